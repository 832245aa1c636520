//! Mid-size blocks, above 16 KiB up to 1 MiB: talc heaps over runs of pages.
//!
//! There are several heaps, each behind its own lock, and threads are spread over them. Which heap a block belongs to
//! and how big it is stands in the header of the page it begins in, so a caller's wrong layout does no harm.

use core::alloc::Layout;
use core::ptr;

use talc::DefaultBinning;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use crate::header::{Kind, PageHeader};
use crate::invariant::fatal;
use crate::size_class::SMALL_MAX;
use crate::space::{self, PAGE_SIZE};
use crate::sync::{Lock, Ordering};

/// Largest block served here, in bytes.
pub(crate) const MID_MAX: usize = 1 << 20;
/// Largest alignment served here, in bytes.
pub(crate) const MID_ALIGN_MAX: usize = 4 << 10;

const HEAPS: usize = 4;
/// Pages a heap takes at once, at least: 4 MiB.
const CLAIM: usize = if cfg!(miri) { 24 } else { 64 };

static HEAP: [Lock<Heap>; HEAPS] = [
    Lock::new(Heap::new(Pages::new(0))),
    Lock::new(Heap::new(Pages::new(1))),
    Lock::new(Heap::new(Pages::new(2))),
    Lock::new(Heap::new(Pages::new(3))),
];

/// Where a talc heap gets memory: runs of pages. Counts what is live, under the heap's lock.
#[derive(Debug)]
struct Pages {
    index: u8,
    blocks: u64,
    bytes: u64,
}

impl Pages {
    const fn new(index: u8) -> Pages {
        Pages { index, blocks: 0, bytes: 0 }
    }
}

// SAFETY: neither method touches the lock around the heap or the global allocator.
unsafe impl Source for Pages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // What talc itself needs: the table of its first heap, a tag, and rounding at both ends.
        let own = talc::min_first_heap_layout::<B>().size() + 4 * talc::base::CHUNK_UNIT;
        let bytes =
            layout.size().checked_add(layout.align()).and_then(|sum| sum.checked_add(own)).ok_or(())?;
        let needed = bytes.div_ceil(PAGE_SIZE);
        let run = space::alloc_run(needed.max(CLAIM), 1, Kind::Mid)
            .or_else(|| space::alloc_run(needed, 1, Kind::Mid))
            .ok_or(())?;
        let pages = run.header.run_len.load(Ordering::Relaxed) as usize;
        let base = space::start_of(run.header);
        for page in 0..pages {
            // SAFETY: each page of the run is in the reservation.
            if let Some(header) = space::header_of(unsafe { base.add(page * PAGE_SIZE) }) {
                header.class.store(talc.source.index, Ordering::Relaxed);
            }
        }
        // SAFETY: the run belongs to this heap until `resize` lets it go.
        match unsafe { talc.claim(base, pages * PAGE_SIZE) } {
            Some(_) => Ok(()),
            None => {
                space::free_run(run.header);
                Err(())
            }
        }
    }

    const TRACK_HEAP_END: bool = true;

    unsafe fn resize(&mut self, chunk_base: *mut u8, heap_end: *mut u8, is_heap_base: bool) -> *mut u8 {
        if !is_heap_base {
            return heap_end;
        }
        // Every block of the run is free. Its last page knows how long it is; a run is claimed whole, so the byte
        // before the end is in that page.
        let Some(last) = space::header_of(heap_end.wrapping_sub(1)) else { return heap_end };
        let len = last.run_len.load(Ordering::Relaxed) as usize;
        let start = space::start_of(last).wrapping_sub((len - 1) * PAGE_SIZE);
        match space::header_of(start) {
            Some(first) => {
                space::free_run(first);
                chunk_base
            }
            None => heap_end,
        }
    }
}

type Heap = Talc<Pages, DefaultBinning>;

/// Allocates a block; `preferred` is the heap to try first. Null when there is no memory.
pub(crate) fn alloc(layout: Layout, preferred: usize) -> *mut u8 {
    debug_assert!(layout.size() > SMALL_MAX && layout.size() <= MID_MAX);
    let preferred = preferred % HEAPS;
    // A heap that is busy is passed over, unless all are.
    let mut heap = (0..HEAPS)
        .find_map(|turn| HEAP[(preferred + turn) % HEAPS].try_lock())
        .unwrap_or_else(|| HEAP[preferred].lock());
    // SAFETY: the size is not zero.
    let Some(block) = (unsafe { heap.allocate(layout) }) else { return ptr::null_mut() };
    heap.source.blocks += 1;
    heap.source.bytes += layout.size() as u64;
    let Some(header) = space::header_of(block.as_ptr()) else {
        fatal("a mid-size block outside the reservation")
    };
    // At most four blocks of more than 16 KiB begin in one page.
    match header.remote.sizes.iter().find(|entry| entry.get() == 0) {
        Some(entry) => entry.set(pack(block.as_ptr(), layout.size())),
        None => fatal("no room for the size of a mid-size block"),
    }
    // Talc's memory is the reservation's, but its pointers may carry less provenance.
    space::at(block.as_ptr().addr())
}

/// Frees the block at `ptr`, which begins in the page of `header`.
///
/// # Safety
///
/// The block must be handed out and not used any more.
pub(crate) unsafe fn dealloc(header: &PageHeader, ptr: *mut u8) {
    let mut heap = heap_of(header).lock();
    let size = forget(header, ptr);
    heap.source.blocks -= 1;
    heap.source.bytes -= size as u64;
    // SAFETY: the size is the one the block has; talc does not look at the alignment.
    unsafe { heap.deallocate(space::at(ptr.addr()), layout(size)) };
}

/// Changes the size of a block in place. Returns whether that was possible.
///
/// # Safety
///
/// The block must be handed out, and `new_size` must be served by this module.
pub(crate) unsafe fn resize(header: &PageHeader, ptr: *mut u8, new_size: usize) -> bool {
    let mut heap = heap_of(header).lock();
    let Some(entry) = header.remote.sizes.iter().find(|entry| is_at(entry.get(), ptr)) else {
        fatal("reallocation of a mid-size block that does not exist")
    };
    let size = entry.get() as u32 as usize;
    let heap: &mut Heap = &mut heap;
    // SAFETY: the size is the one the block has.
    let done = unsafe { heap.try_realloc_in_place(space::at(ptr.addr()), layout(size), new_size) };
    if done {
        entry.set(pack(ptr, new_size));
        heap.source.bytes = heap.source.bytes - size as u64 + new_size as u64;
    }
    done
}

/// Live blocks and their bytes.
pub(crate) fn usage() -> (u64, u64) {
    HEAP.iter().fold((0, 0), |(blocks, bytes), heap| {
        let heap = heap.lock();
        (blocks + heap.source.blocks, bytes + heap.source.bytes)
    })
}

/// Returns what is kept for later: what was not needed since the last call, or everything.
pub(crate) fn trim(_everything: bool) {}

/// Takes the locks of this module, before a fork.
pub(crate) fn lock_for_fork() {
    HEAP.iter().for_each(|heap| core::mem::forget(heap.lock()));
}

/// # Safety
///
/// [`lock_for_fork`] must have been called before the fork.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on.
    HEAP.iter().for_each(|heap| unsafe { heap.force_unlock() });
}

fn heap_of(header: &PageHeader) -> &'static Lock<Heap> {
    &HEAP[usize::from(header.class.load(Ordering::Relaxed)) % HEAPS]
}

/// Removes the entry of a block and returns its size.
fn forget(header: &PageHeader, ptr: *mut u8) -> usize {
    match header.remote.sizes.iter().find(|entry| is_at(entry.get(), ptr)) {
        Some(entry) => entry.replace(0) as u32 as usize,
        None => fatal("free of a mid-size block that does not exist, or twice"),
    }
}

/// Offset in the page and size. Sizes are not zero, so an entry never is.
fn pack(ptr: *mut u8, size: usize) -> u64 {
    ((ptr.addr() & (PAGE_SIZE - 1)) as u64) << 32 | size as u64
}

fn is_at(entry: u64, ptr: *mut u8) -> bool {
    entry != 0 && (entry >> 32) as usize == ptr.addr() & (PAGE_SIZE - 1)
}

fn layout(size: usize) -> Layout {
    // SAFETY: the alignment is a power of two and the size at most 1 MiB.
    unsafe { Layout::from_size_align_unchecked(size, 8) }
}
