//! What a request asks of the allocator, replayed without its compute.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::hint::black_box;
use std::ptr;

use crate::{Clock, Sample, Scope};

/// Blocks of the request; each has a slot of its own.
const SLOTS: usize = 60;

/// One operation: the 140 steps of `REQUEST`: 60 allocations, 20 grows through `realloc`, 60 frees. The
/// sizes (8 B to 4 KiB) and the order follow a JSON endpoint of an async server: read and parse the head,
/// collect the body, parse it, query a store, serialise the answer, write it. Temporaries go last in, first
/// out; the parsed head and the document first in, first out; buffers of the connection at the end. Of each
/// block the first byte is written, and after growing the first of the new ones.
pub fn trace<S: Scope>(clock: &Clock) -> Sample {
    // SAFETY: the request frees each block that it allocates, which `is_sound` has checked.
    unsafe { clock.measure_scoped::<S>(1, replay) }
}

/// One call of the allocator.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Step {
    /// Whose block it is about.
    slot: usize,
    /// Size of the block before the step, in bytes; 0 if there is none.
    before: usize,
    /// Size of the block after the step, in bytes; 0 if there is none.
    after: usize,
}

const fn make(slot: usize, size: usize) -> Step {
    Step { slot, before: 0, after: size }
}

const fn grow(slot: usize, before: usize, after: usize) -> Step {
    Step { slot, before, after }
}

const fn free(slot: usize, size: usize) -> Step {
    Step { slot, before: size, after: 0 }
}

/// Makes of one list of steps both the data that is checked and straight code that runs it. A loop over the
/// data would cost more than the allocator: it guesses wrong which step is next.
macro_rules! request {
    ($($step:ident($($argument:literal),+);)*) => {
        /// The request.
        const REQUEST: &[Step] = &[$($step($($argument),+)),*];

        /// Runs it; returns how many steps it has.
        fn replay() -> u64 {
            let mut blocks = Blocks([ptr::null_mut(); SLOTS]);
            // SAFETY: these are the steps of `REQUEST`, in its order, and `is_sound` has checked them.
            $(unsafe { blocks.$step($($argument),+) };)*
            // The addresses are looked at, so no pair of allocation and free is removed.
            black_box(&blocks);
            REQUEST.len() as u64
        }
    };
}

// make(slot, size), grow(slot, size, new size), free(slot, size); sizes in bytes.
request! {
    // Connection: read buffer, timer entry. Request head: its parts, and the map of headers.
    make(0, 4096); make(59, 128); make(1, 240); make(2, 24); grow(2, 24, 48); make(3, 256); make(4, 64);
    // Eight headers, name and value. The map grows on the way.
    make(5, 8); make(6, 15); make(7, 10); make(8, 71); make(9, 8); make(10, 48); make(11, 15); make(12, 17);
    grow(3, 256, 512); grow(4, 64, 128); make(13, 10); make(14, 10); make(15, 12); make(16, 16); make(17, 13);
    make(18, 120); make(19, 14); make(20, 8); grow(3, 512, 1024);
    // Extensions, route and its parameters, the handler's future.
    make(21, 32); make(22, 64); make(23, 8); make(24, 16); make(25, 640);
    // The body arrives in pieces.
    make(26, 64); grow(26, 64, 256); grow(26, 256, 512); grow(26, 512, 1024);
    // Its document: a tree node, keys, strings, an array; and the parser's scratch buffer.
    make(27, 632); make(39, 128); make(28, 8); make(29, 24); make(30, 9); make(31, 40); make(32, 128); make(33, 16);
    make(34, 24); grow(39, 128, 256); make(35, 40); grow(32, 128, 256); make(36, 8); make(37, 64); make(38, 12);
    grow(32, 256, 512); free(39, 256); free(26, 1024);
    // A query with two parameters, and the row that answers it. Last in, first out.
    make(40, 80); grow(40, 80, 160); make(41, 96); make(42, 24); make(43, 40); grow(40, 160, 320);
    make(44, 2048); free(43, 40); free(42, 24); free(41, 96); free(40, 320);
    // Records out of the row, four at first.
    make(50, 480); make(45, 24); make(46, 36); make(47, 16); make(48, 200); grow(50, 480, 960); make(49, 72);
    free(44, 2048);
    // The answer: head, headers, and the body as it is serialised.
    make(51, 208); make(52, 256); make(53, 8); make(54, 32); make(55, 128); grow(55, 128, 256);
    grow(55, 256, 512); grow(55, 512, 1024); grow(55, 1024, 2048); make(56, 48);
    // The records, last in, first out; the document, first in, first out; the future.
    free(49, 72); free(48, 200); free(47, 16); free(46, 36); free(45, 24); free(50, 960); free(28, 8);
    free(29, 24); free(30, 9); free(31, 40); free(33, 16); free(34, 24); free(35, 40); free(36, 8);
    free(37, 64); free(38, 12); free(32, 512); free(27, 632); free(25, 640);
    // A line for the log.
    make(57, 64); grow(57, 64, 128); grow(57, 128, 256);
    // The head of the request, first in, first out.
    free(2, 48); free(5, 8); free(6, 15); free(7, 10); free(8, 71); free(9, 8); free(10, 48); free(11, 15);
    free(12, 17); free(13, 10); free(14, 10); free(15, 12); free(16, 16); free(17, 13); free(18, 120);
    free(19, 14); free(20, 8); free(3, 1024); free(4, 128); free(24, 16); free(23, 8); free(22, 64);
    free(21, 32); free(1, 240);
    // The answer goes into the write buffer and is dropped; then what the connection kept to the end.
    make(58, 1024); grow(58, 1024, 4096); free(53, 8); free(54, 32); free(52, 256); free(51, 208);
    free(55, 2048); free(56, 48); free(57, 256); free(58, 4096); free(59, 128); free(0, 4096);
}

const _: () = assert!(is_sound(REQUEST), "a step does not fit the one before it, or a block is never freed");

/// Whether each step finds its block as it expects it, and every block is freed.
const fn is_sound(steps: &[Step]) -> bool {
    let mut sizes = [0; SLOTS];
    let mut index = 0;
    while index < steps.len() {
        let Step { slot, before, after } = steps[index];
        let changes = if after == 0 { before > 0 } else { before < after };
        if slot >= SLOTS || sizes[slot] != before || !changes {
            return false;
        }
        sizes[slot] = after;
        index += 1;
    }
    let mut slot = 0;
    while slot < SLOTS {
        if sizes[slot] != 0 {
            return false;
        }
        slot += 1;
    }
    true
}

/// The blocks of the request. The methods are always inlined, so that sizes are constants as they mostly are
/// in the code of a server.
struct Blocks([*mut u8; SLOTS]);

impl Blocks {
    /// # Safety
    ///
    /// `size` is not zero.
    #[inline(always)]
    unsafe fn make(&mut self, slot: usize, size: usize) {
        let layout = layout(slot, size);
        // SAFETY: the caller's promise.
        self.0[slot] = unsafe { filled(alloc(layout), 0, layout) };
    }

    /// # Safety
    ///
    /// The slot holds a block of `before` bytes, less than `after`.
    #[inline(always)]
    unsafe fn grow(&mut self, slot: usize, before: usize, after: usize) {
        let layout = layout(slot, before);
        // SAFETY: the caller's promise; the same slot always has the same alignment.
        self.0[slot] = unsafe { filled(realloc(self.0[slot], layout, after), before, layout) };
    }

    /// # Safety
    ///
    /// The slot holds a block of `size` bytes.
    #[inline(always)]
    unsafe fn free(&mut self, slot: usize, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { dealloc(self.0[slot], layout(slot, size)) }
    }
}

/// Layout of a slot's block of `size` bytes. One in three slots is a structure, aligned to 8; the others are
/// text and buffers, aligned to 1.
const fn layout(slot: usize, size: usize) -> Layout {
    match Layout::from_size_align(size, if slot.is_multiple_of(3) { 8 } else { 1 }) {
        Ok(layout) => layout,
        Err(_) => panic!("sizes are far below `isize::MAX`"),
    }
}

/// Writes one byte at `offset`. Volatile, since the compiler may else drop what is written to a block that is
/// freed unread.
///
/// # Safety
///
/// `block` is null or has more than `offset` bytes.
#[inline(always)]
unsafe fn filled(block: *mut u8, offset: usize, layout: Layout) -> *mut u8 {
    if block.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: the caller's promise.
    unsafe { block.add(offset).write_volatile(1) };
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_has_the_documented_steps() {
        let count = |has: fn(&Step) -> bool| REQUEST.iter().filter(|step| has(step)).count();
        assert_eq!(count(|step| step.before == 0), 60);
        assert_eq!(count(|step| step.before > 0 && step.after > 0), 20);
        assert_eq!(count(|step| step.after == 0), 60);
        let sizes = || REQUEST.iter().map(|step| step.after).filter(|size| *size > 0);
        assert_eq!((sizes().min(), sizes().max()), (Some(8), Some(4096)));
        assert_eq!(replay(), 140);
    }

    #[test]
    fn what_is_unsound_is_refused() {
        assert!(is_sound(&[make(0, 8), grow(0, 8, 16), free(0, 16)]));
        for unsound in [
            [make(0, 8), free(0, 8), free(0, 8)],
            [make(0, 8), free(0, 16), make(1, 8)],
            [make(0, 8), grow(0, 16, 32), free(0, 32)],
            [make(0, 8), make(0, 8), free(0, 8)],
            [make(0, 8), grow(0, 8, 16), grow(0, 16, 32)],
            [make(SLOTS, 8), grow(SLOTS, 8, 9), free(SLOTS, 9)],
        ] {
            assert!(!is_sound(&unsound));
        }
    }
}
