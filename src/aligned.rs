//! Blocks aligned to more than an OS page: one talc heap over runs of pages.
//!
//! Talc places any alignment, and what lies before an aligned block serves others. It keeps a tag of a word behind each
//! block, so a block whose length is a multiple of its alignment takes one alignment more. [`serves`] leaves to
//! [`large`](crate::large) what would not take less here than in a run of 64 KiB pages of its own.
//!
//! How big a block is stands in the header of the page it begins in, so a caller's wrong layout does no harm.

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr;

use talc::DefaultBinning;
use talc::base::binning::Binning;
use talc::base::{CHUNK_UNIT, Talc};
use talc::source::Source;

use crate::header::{Kind, PageHeader};
use crate::invariant::fatal;
use crate::mid::MID_ALIGN_MAX;
use crate::space::{self, PAGE_SIZE};
use crate::sync::Lock;

/// Longest block served here, in bytes: a quarter of a claim, so that what remains at the end of one is little.
pub(crate) const ALIGNED_MAX: usize = CLAIM * PAGE_SIZE / 4;

/// Pages the heap takes at once: 512 KiB.
const CLAIM: usize = 8;
/// What talc keeps behind each block, and in front of the first one of a run.
const TAG: usize = size_of::<usize>();
/// Blocks begin at multiples of this.
const STEP: usize = 2 * MID_ALIGN_MAX;

static HEAP: Lock<Heap> = Lock::new(Talc::new(Pages { blocks: 0, bytes: 0, empty: None }));

type Heap = Talc<Pages, DefaultBinning>;

/// Whether a block of this size and alignment belongs here, if it is too big for the slab.
pub(crate) const fn serves(size: usize, align: usize) -> bool {
    size.wrapping_sub(1) < ALIGNED_MAX
        && align > MID_ALIGN_MAX
        && align < PAGE_SIZE
        && length(size, align) < size.next_multiple_of(PAGE_SIZE)
}

/// From one block to the next, if all are of this size and alignment.
const fn length(size: usize, align: usize) -> usize {
    (size + TAG).next_multiple_of(align)
}

// Also where all blocks are the same, so that nothing fits what is left over between them and at the ends of a claim, they do
// not take more than runs of pages.
const _: () = {
    let mut align = STEP;
    while align < PAGE_SIZE {
        let mut size = 1;
        while size <= ALIGNED_MAX {
            let blocks = (CLAIM * PAGE_SIZE - align) / length(size, align);
            assert!(!serves(size, align) || CLAIM * PAGE_SIZE <= blocks * size.next_multiple_of(PAGE_SIZE));
            size += STEP / 4 - 1;
        }
        align *= 2;
    }
};

/// Where talc gets memory: runs of pages. Counts what is live, under the heap's lock.
#[derive(Debug)]
struct Pages {
    blocks: u64,
    bytes: u64,
    /// First page of a run that is free as a whole and not the heap's any more.
    empty: Option<Empty>,
}

/// See [`Pages`].
struct Empty(&'static PageHeader);

impl core::fmt::Debug for Empty {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Empty").field(&self.0.address()).finish()
    }
}

// SAFETY: neither method touches the lock around the heap or the global allocator.
unsafe impl Source for Pages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if !talc.is_metadata_established() {
            // Talc's own table goes where records live for ever, or the run it is in would never be free. The length leaves no
            // room behind it.
            let bytes = (B::BIN_COUNT as usize * size_of::<usize>() + TAG).next_multiple_of(CHUNK_UNIT);
            let record = space::alloc_record(bytes);
            // SAFETY: the record is the heap's alone.
            if record.is_null() || unsafe { talc.claim(record, bytes) }.is_none() {
                return Err(());
            }
        }
        debug_assert!(layout.size() <= ALIGNED_MAX && layout.align() < PAGE_SIZE);
        let run = space::alloc_run(CLAIM, 1, Kind::Aligned).ok_or(())?;
        // SAFETY: the run belongs to this heap until `resize` lets it go.
        match unsafe { talc.claim(space::start_of(run.header), CLAIM * PAGE_SIZE) } {
            Some(_) => Ok(()),
            None => {
                space::free_run(run.header);
                Err(())
            }
        }
    }

    const TRACK_HEAP_END: bool = true;

    unsafe fn resize(&mut self, chunk_base: *mut u8, heap_end: *mut u8, is_heap_base: bool) -> *mut u8 {
        // Every block of the run is free if what is free begins behind the run's first tag.
        match space::header_of(chunk_base).filter(|_| is_heap_base) {
            Some(first) => {
                self.empty = Some(Empty(first));
                chunk_base
            }
            None => heap_end,
        }
    }
}

/// Allocates a block that is [served](serves) here. Null when there is no memory.
pub(crate) fn alloc(layout: Layout) -> *mut u8 {
    debug_assert!(serves(layout.size(), layout.align()));
    let mut heap = HEAP.lock();
    // SAFETY: the size is not zero.
    let Some(block) = (unsafe { heap.allocate(layout) }) else { return ptr::null_mut() };
    heap.source.blocks += 1;
    heap.source.bytes += layout.size() as u64;
    // Talc's memory is the reservation's, but its pointers may carry less provenance.
    let block = space::at(block.as_ptr().addr());
    match space::header_of(block).and_then(|header| Entry::of(header, block)) {
        Some(entry) if entry.size() == 0 => entry.set(layout.size()),
        _ => fatal("an aligned block where none can begin"),
    }
    block
}

/// Frees the block at `ptr`, which begins in the page of `header`.
///
/// # Safety
///
/// The block must be handed out and not used any more.
pub(crate) unsafe fn dealloc(header: &PageHeader, ptr: *mut u8) {
    let mut heap = HEAP.lock();
    let entry = Entry::of_live(header, ptr);
    let size = entry.size();
    entry.set(0);
    heap.source.blocks -= 1;
    heap.source.bytes -= size as u64;
    // SAFETY: the size is the one the block has; talc does not look at the alignment.
    unsafe { heap.deallocate(space::at(ptr.addr()), layout(size)) };
    let empty = heap.source.empty.take();
    drop(heap);
    if let Some(Empty(first)) = empty {
        space::free_run(first);
    }
}

/// Changes the size of a block in place. Returns whether that was possible.
///
/// # Safety
///
/// The block must be handed out, and `new_size` must be 1 to [`ALIGNED_MAX`].
pub(crate) unsafe fn resize(header: &PageHeader, ptr: *mut u8, new_size: usize) -> bool {
    let mut heap = HEAP.lock();
    let entry = Entry::of_live(header, ptr);
    let size = entry.size();
    // SAFETY: the size is the one the block has.
    let done = unsafe { heap.try_realloc_in_place(space::at(ptr.addr()), layout(size), new_size) };
    if done {
        entry.set(new_size);
        heap.source.bytes = heap.source.bytes - size as u64 + new_size as u64;
    }
    done
}

/// Live blocks and their bytes.
pub(crate) fn usage() -> (u64, u64) {
    let heap = HEAP.lock();
    (heap.source.blocks, heap.source.bytes)
}

/// Takes the lock of this module, before a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget(HEAP.lock());
}

/// # Safety
///
/// [`lock_for_fork`] must have been called before the fork.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on.
    unsafe { HEAP.force_unlock() };
}

/// Where the header of a page has the size of a block that begins in it: half a word for each place where one may, 0 if none does.
/// To be used under the lock.
struct Entry<'a> {
    word: &'a Cell<u64>,
    shift: u32,
}

impl Entry<'_> {
    /// `None` if no block begins at such an address.
    fn of(header: &PageHeader, block: *const u8) -> Option<Entry<'_>> {
        const _: () = assert!(PAGE_SIZE / STEP == 8 && ALIGNED_MAX <= u32::MAX as usize);
        let offset = block.addr() % PAGE_SIZE;
        let place = offset / STEP;
        offset
            .is_multiple_of(STEP)
            .then(|| Entry { word: &header.sizes[place / 2], shift: place as u32 % 2 * u32::BITS })
    }

    /// The entry of a block that the program has.
    fn of_live(header: &PageHeader, block: *const u8) -> Entry<'_> {
        match Entry::of(header, block) {
            Some(entry) if entry.size() != 0 => entry,
            _ => fatal("free or reallocation of an aligned block that does not exist, or twice"),
        }
    }

    fn size(&self) -> usize {
        (self.word.get() >> self.shift) as u32 as usize
    }

    fn set(&self, size: usize) {
        let others = self.word.get() & !(u64::from(u32::MAX) << self.shift);
        self.word.set(others | (size as u64) << self.shift);
    }
}

fn layout(size: usize) -> Layout {
    // SAFETY: the alignment is a power of two and the size at most `ALIGNED_MAX`.
    unsafe { Layout::from_size_align_unchecked(size, TAG) }
}
