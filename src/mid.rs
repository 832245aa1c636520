//! Mid-size blocks, above 16 KiB up to 1 MiB: a cache of freed blocks in each thread, and behind it talc heaps over runs
//! of pages.
//!
//! There are several heaps, each behind its own lock, and threads are spread over them. Which heap a block belongs to
//! and how big it is stands in the header of the page it begins in, so a caller's wrong layout does no harm. That entry
//! belongs to whoever has the block: the program, the cache of a thread, or the heap under its lock.

mod cache;
mod classes;

pub(crate) use cache::Cache;
pub(crate) use classes::MID_MAX;

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr;

use talc::DefaultBinning;
use talc::base::binning::Binning;
use talc::base::{CHUNK_UNIT, Talc};
use talc::source::Source;

use crate::header::{Kind, PageHeader};
use crate::invariant::fatal;
use crate::size_class::SMALL_MAX;
use crate::space::{self, PAGE_SIZE};
use crate::stats::Counter;
use crate::sync::{Lock, Ordering};
use classes::{class_of, size_of_class};

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

/// Bytes between blocks that lie side by side, talc's word among them. A multiple of the cache line, so that neither the
/// beginnings of blocks nor a head and what is copied behind it fall into the same places of each OS page: where the target of
/// a copy begins 1 to 31 bytes behind its source, the two taken modulo 4 KiB, AMD's `rep movsb` takes 25 times as long.
const STAGGER: usize = 64;

/// Where a talc heap gets memory: runs of pages.
#[derive(Debug)]
struct Pages {
    index: u8,
}

impl Pages {
    const fn new(index: u8) -> Pages {
        Pages { index }
    }
}

/// Live blocks and bytes by the count of threads that have no cache, wrapping.
static LIVE_BLOCKS: Counter = Counter::new();
static LIVE_BYTES: Counter = Counter::new();

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

/// What the header of the page in which a block begins says of it: a word, 0 if no block begins there.
///
/// ```text
/// 63      48 47     40 39        0
/// |  offset |  class  |   size   |     offset in the page, size as requested, 0 while a thread keeps the block for later
/// ```
#[derive(Clone, Copy)]
struct Entry {
    class: usize,
    size: usize,
}

impl Entry {
    fn pack(self, block: *const u8) -> u64 {
        offset(block) << 48 | (self.class as u64) << 40 | self.size as u64
    }

    /// Reads the entry of a block; `None` if no such block begins in the page.
    fn read(header: &PageHeader, block: *const u8) -> Option<Entry> {
        let word = slot(header, block).get();
        (word != 0 && word >> 48 == offset(block))
            .then_some(Entry { class: (word >> 40) as u8 as usize, size: (word & ((1 << 40) - 1)) as usize })
    }

    /// Reads the entry of a block that the program has.
    fn of_live(header: &PageHeader, block: *const u8) -> Entry {
        match Entry::read(header, block) {
            Some(entry) if entry.size != 0 => entry,
            _ => fatal("free or reallocation of a mid-size block that does not exist, or twice"),
        }
    }

    fn write(self, header: &PageHeader, block: *const u8) {
        slot(header, block).set(self.pack(block));
    }
}

fn offset(block: *const u8) -> u64 {
    (block.addr() & (PAGE_SIZE - 1)) as u64
}

/// The word for the entry of a block. Blocks are longer than 16 KiB, so no two have the same.
fn slot(header: &PageHeader, block: *const u8) -> &Cell<u64> {
    const _: () = assert!(PAGE_SIZE / SMALL_MAX == 4);
    &header.remote.sizes[(block.addr() & (PAGE_SIZE - 1)) / SMALL_MAX]
}

/// Allocates a block, from the thread's cache or else from a heap: `preferred` is the one to try first. Null when there is no
/// memory.
pub(crate) fn alloc(layout: Layout, cache: Option<&Cache>, preferred: usize) -> *mut u8 {
    debug_assert!(layout.size() > SMALL_MAX && layout.size() <= MID_MAX);
    let class = class_of(layout.size());
    // Blocks are aligned as talc aligns them; more is seldom wanted.
    let cached = if layout.align() <= CHUNK_UNIT { cache.and_then(|cache| cache.take(class)) } else { None };
    let (block, class) = cached.unwrap_or_else(|| (alloc_from_heap(class, layout.align(), preferred), class));
    let Some(header) = space::header_of(block) else {
        // What the thread keeps may be what is missing.
        return match cache.filter(|cache| !cache.is_empty()) {
            Some(kept) => {
                clear(kept);
                alloc(layout, cache, preferred)
            }
            None => ptr::null_mut(),
        };
    };
    Entry { class, size: layout.size() }.write(header, block);
    count(cache, 1, layout.size() as u64);
    block
}

/// Adds to the live blocks and bytes; less is more than 2^63.
fn count(cache: Option<&Cache>, blocks: u64, bytes: u64) {
    match cache {
        Some(cache) => {
            cache.live_blocks.add(blocks);
            cache.live_bytes.add(bytes);
        }
        None => {
            LIVE_BLOCKS.add_shared(blocks);
            LIVE_BYTES.add_shared(bytes);
        }
    }
}

fn alloc_from_heap(class: usize, align: usize, preferred: usize) -> *mut u8 {
    let preferred = preferred % HEAPS;
    // A heap that is busy is passed over, unless all are.
    let mut heap = (0..HEAPS)
        .find_map(|turn| HEAP[(preferred + turn) % HEAPS].try_lock())
        .unwrap_or_else(|| HEAP[preferred].lock());
    // SAFETY: the size is not zero.
    match unsafe { heap.allocate(layout(class, align)) } {
        // Talc's memory is the reservation's, but its pointers may carry less provenance.
        Some(block) => space::at(block.as_ptr().addr()),
        None => ptr::null_mut(),
    }
}

/// Frees the block at `ptr`, which begins in the page of `header`.
///
/// # Safety
///
/// The block must be handed out and not used any more.
pub(crate) unsafe fn dealloc(header: &PageHeader, ptr: *mut u8, cache: Option<&Cache>) {
    let Entry { class, size } = Entry::of_live(header, ptr);
    Entry { class, size: 0 }.write(header, ptr);
    count(cache, u64::MAX, (size as u64).wrapping_neg());
    let block = space::at(ptr.addr());
    match cache {
        Some(cache) => cache.put(block, class, give_back),
        None => give_back(block),
    }
}

/// Returns everything that the cache keeps to the heaps.
pub(crate) fn clear(cache: &Cache) {
    cache.clear(give_back);
}

/// Returns a block that was freed to its heap.
fn give_back(block: *mut u8) {
    let Some((header, entry)) =
        space::header_of(block).and_then(|header| Some((header, Entry::read(header, block)?)))
    else {
        fatal("a mid-size block without an entry was kept")
    };
    let mut heap = heap_of(header).lock();
    slot(header, block).set(0);
    // SAFETY: the block is free and has this class; talc does not look at the alignment.
    unsafe { heap.deallocate(block, layout(entry.class, 1)) };
}

/// Changes the size of a block in place. Returns whether that was possible.
///
/// # Safety
///
/// The block must be handed out, and `new_size` must be served by this module.
pub(crate) unsafe fn resize(
    header: &PageHeader,
    ptr: *mut u8,
    new_size: usize,
    cache: Option<&Cache>,
) -> bool {
    let Entry { mut class, size } = Entry::of_live(header, ptr);
    let room = size_of_class(class);
    if new_size > room || new_size <= room / 2 {
        let new_class = class_of(new_size);
        // SAFETY: the block has this class.
        let done = unsafe {
            heap_of(header).lock().try_realloc_in_place(
                space::at(ptr.addr()),
                layout(class, 1),
                layout(new_class, 1).size(),
            )
        };
        if !done {
            return false;
        }
        class = new_class;
    }
    Entry { class, size: new_size }.write(header, ptr);
    count(cache, 0, (new_size as u64).wrapping_sub(size as u64));
    true
}

/// Live blocks and bytes by the count of threads that have no cache, wrapping.
pub(crate) fn usage_uncached() -> (u64, u64) {
    (LIVE_BLOCKS.get(), LIVE_BYTES.get())
}

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

/// What talc is asked for, for a block of `class`.
fn layout(class: usize, align: usize) -> Layout {
    // SAFETY: the alignment is that of a layout, and the size little more than 1 MiB.
    unsafe { Layout::from_size_align_unchecked(size_of_class(class) + STAGGER - size_of::<usize>(), align) }
}
