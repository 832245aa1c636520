//! The storage of a pooled object: one block that fills from both ends, and where it comes from.
//!
//! This is all that the three pools do not have in common, and all of their code that is unsafe.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::slice;
use std::alloc::{GlobalAlloc, Layout, System, alloc, dealloc, handle_alloc_error};

use crate::{Mode, RequestArena, mode, outside_arena};

/// Alignment of a block, and what its capacity is a multiple of, in bytes.
pub(super) const GRAIN: usize = 16;

/// Bytes of a chunk of an arena.
const CHUNK: usize = 64 << 10;

/// Which allocator serves the blocks of a pool.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// The system allocator, called directly.
    System,
    /// The global allocator, outside any arena.
    Slab,
    /// An arena that belongs to the object.
    Arena,
}

/// [`Origin`] with the arena.
enum Source {
    System,
    Slab,
    Arena(RequestArena),
}

impl Source {
    /// Allocates a block.
    fn alloc(&self, layout: Layout) -> *mut u8 {
        assert!(layout.size() > 0, "a block has at least a grain");
        // SAFETY: the size is not 0.
        unsafe {
            match self {
                Source::System => System.alloc(layout),
                Source::Slab => outside_arena(|| alloc(layout)),
                Source::Arena(arena) => arena.run(|| alloc(layout)),
            }
        }
    }

    /// Frees a block.
    ///
    /// # Safety
    ///
    /// It must come from this source with this layout and not be used any more.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe {
            match self {
                Source::System => System.dealloc(block, layout),
                Source::Slab => dealloc(block, layout),
                // Inside its arena the block is in the current chunk, where a free is cheap.
                Source::Arena(arena) => arena.run(|| dealloc(block, layout)),
            }
        }
    }
}

/// A block: `head` bytes from its beginning on and `tail` bytes up to its end have been written.
///
/// ```text
/// at                                                      at + capacity
/// | head ............ | room ................ | ............ tail |
/// ```
pub(super) struct Block {
    /// Dangling if `capacity` is 0, otherwise the only pointer to that many bytes.
    at: NonNull<u8>,
    /// A multiple of [`GRAIN`].
    capacity: usize,
    /// Initialised bytes; `head + tail <= capacity`.
    head: usize,
    tail: usize,
}

impl Block {
    const EMPTY: Block = Block { at: NonNull::<u128>::dangling().cast(), capacity: 0, head: 0, tail: 0 };

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, GRAIN).expect("a block of less than half the address space")
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        // SAFETY: there are `capacity` bytes, written only through `&mut self`.
        unsafe { slice::from_raw_parts(self.at.as_ptr().cast(), self.capacity) }
    }

    fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: there are `capacity` bytes, and no other pointer to them. Nobody de-initialises what has been written:
        // the callers only write whole `u8`s.
        unsafe { slice::from_raw_parts_mut(self.at.as_ptr().cast(), self.capacity) }
    }

    pub(super) fn room(&self) -> usize {
        self.capacity - self.head - self.tail
    }

    /// What was written to the beginning.
    pub(super) fn head(&self) -> &[u8] {
        // SAFETY: these bytes were written.
        unsafe { self.memory()[..self.head].assume_init_ref() }
    }

    /// The same, to be written over.
    pub(super) fn head_mut(&mut self) -> &mut [u8] {
        let head = self.head;
        // SAFETY: these bytes were written.
        unsafe { self.memory_mut()[..head].assume_init_mut() }
    }

    /// What was written to the end.
    pub(super) fn tail(&self) -> &[u8] {
        // SAFETY: these bytes were written.
        unsafe { self.memory()[self.capacity - self.tail..].assume_init_ref() }
    }

    /// Writes behind the head. Panics without enough room.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "no room for {} B", bytes.len());
        let from = self.head;
        self.memory_mut()[from..from + bytes.len()].write_copy_of_slice(bytes);
        self.head += bytes.len();
    }

    /// Writes before the tail. Panics without enough room.
    pub(super) fn prepend(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "no room for {} B", bytes.len());
        let to = self.capacity - self.tail;
        self.memory_mut()[to - bytes.len()..to].write_copy_of_slice(bytes);
        self.tail += bytes.len();
    }

    /// Shortens the head to at most `len` bytes.
    pub(super) fn truncate_head(&mut self, len: usize) {
        self.head = self.head.min(len);
    }

    /// Forgets what was written.
    pub(super) fn clear(&mut self) {
        (self.head, self.tail) = (0, 0);
    }
}

/// A block and its source.
pub(super) struct Memory {
    source: Source,
    /// From the source.
    block: Block,
    /// Bytes allocated since [`Memory::take_allocated`].
    allocated: u64,
    /// Whether the arena has had a chunk; it then keeps one.
    has_chunk: bool,
}

// SAFETY: the block is memory that belongs to this value alone, and all three sources may free it from any thread.
unsafe impl Send for Memory {}

// SAFETY: with a shared reference one can read the block and the numbers. The source, whose arena must not be shared, is
// used through `&mut` only.
unsafe impl Sync for Memory {}

impl Memory {
    /// No memory yet.
    pub(super) fn new(origin: Origin) -> Memory {
        let source = match origin {
            Origin::System => Source::System,
            Origin::Slab => Source::Slab,
            Origin::Arena => Source::Arena(RequestArena::builder().in_crowds().build()),
        };
        Memory { source, block: Block::EMPTY, allocated: 0, has_chunk: false }
    }

    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    pub(super) fn block_mut(&mut self) -> &mut Block {
        &mut self.block
    }

    /// Bytes of the block.
    pub(super) fn capacity(&self) -> usize {
        self.block.capacity
    }

    /// Replaces the block by one of at least `capacity` bytes, into which `copy` brings what is needed of the old one.
    pub(super) fn replace(&mut self, capacity: usize, copy: impl FnOnce(&Block, &mut Block)) {
        let capacity = capacity.max(1).next_multiple_of(GRAIN);
        let layout = Block::layout(capacity);
        let Some(at) = NonNull::new(self.source.alloc(layout)) else { handle_alloc_error(layout) };
        self.allocated += capacity as u64;
        self.has_chunk |= matches!(self.source, Source::Arena(_)) && mode() == Mode::Arena;
        let mut new = Block { at, capacity, head: 0, tail: 0 };
        copy(&self.block, &mut new);
        self.free();
        self.block = new;
    }

    /// Frees the block.
    pub(super) fn free(&mut self) {
        let Block { at, capacity, .. } = core::mem::replace(&mut self.block, Block::EMPTY);
        if capacity > 0 {
            // SAFETY: the block came from this source with this layout, and was taken out of `self`.
            unsafe { self.source.dealloc(at.as_ptr(), Block::layout(capacity)) };
        }
    }

    /// Ends a use: an arena frees everything as a whole, the other sources keep a block of at most `keep` bytes.
    pub(super) fn reset(&mut self, keep: usize) {
        self.block.clear();
        if self.capacity() > keep || matches!(self.source, Source::Arena(_)) {
            self.free();
        }
        if let Source::Arena(arena) = &mut self.source {
            arena.reset();
        }
    }

    /// Bytes kept after [`Memory::reset`].
    pub(super) fn kept(&self) -> usize {
        // A reset arena has no block and keeps a chunk.
        if self.has_chunk { CHUNK } else { self.capacity() }
    }

    /// Bytes allocated since the last call.
    pub(super) fn take_allocated(&mut self) -> u64 {
        core::mem::take(&mut self.allocated)
    }

    /// Writes to every byte of the room, so that the OS provides it.
    pub(super) fn touch(&mut self) {
        let room = self.block.head..self.block.capacity - self.block.tail;
        for byte in &mut self.block.memory_mut()[room] {
            // Opaque, so that the writes are not dropped as of no effect.
            byte.write(core::hint::black_box(0));
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Before the arena, which is a field.
        self.free();
    }
}
