//! Mid-size blocks, above 16 KiB up to 1 MiB: a cache of freed blocks in each thread, and behind it heaps of units of 4 KiB.
//!
//! There are several heaps, each behind its own lock, and threads are spread over them. Which heap a block belongs to
//! and how big it is stands in the header of the page it begins in, so a caller's wrong layout does no harm. That entry
//! belongs to whoever has the block: the program, the cache of a thread, or the heap under its lock.

mod cache;
mod classes;
mod spans;

pub(crate) use cache::Cache;
pub(crate) use classes::MID_MAX;

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr;

use crate::header::{Kind, PageHeader};
use crate::invariant::fatal;
use crate::round::{Progress, Thorough};
use crate::size_class::SMALL_MAX;
use crate::space::{self, PAGE_SIZE};
use crate::stats::Counter;
use crate::sync::{AtomicUsize, Lock, LockGuard, Ordering};
use classes::{UNIT, class_of, size_of_class, units_of_class};
use spans::Spans;

/// Largest alignment served here, in bytes: that of every block.
pub(crate) const MID_ALIGN_MAX: usize = UNIT;

const HEAPS: usize = 4;
/// Pages of a span: as many as the longest block needs. In longer ones more lies free between blocks, and they become free as a whole more
/// seldom.
const CLAIM: usize = spans::pages_for(MID_MAX / UNIT);

const _: () = assert!(CLAIM <= spans::SPAN_MAX);

static HEAP: [Lock<Spans>; HEAPS] = [const { Lock::new(Spans::new()) }; HEAPS];

/// How many heaps threads are spread over, a power of two: as few as do, because what lies free in one is of no use to another.
static WIDTH: AtomicUsize = AtomicUsize::new(1);

/// What says how wide: more when threads meet often in a period, fewer after a long time in which they did not.
static MEETINGS: Meetings = Meetings { met: AtomicUsize::new(0), quiet: AtomicUsize::new(0) };

/// Apart from what every thread reads.
#[repr(align(128))]
struct Meetings {
    /// How often a thread has found a heap busy since the period began. Written by threads that have to wait anyway.
    met: AtomicUsize,
    /// Periods in a row in which they met seldom. Belongs to whoever makes the rounds.
    quiet: AtomicUsize,
}

/// So many meetings in a period are too many. A quarter is still no reason for fewer heaps.
const MET_OFTEN: usize = 256;
/// Periods after which there are fewer heaps: threads that are kept apart do not meet, so that it is often the wrong thing.
const QUIET_PERIODS: usize = 64;

/// Live blocks and bytes by the count of threads that have no cache, wrapping.
static LIVE_BLOCKS: Counter = Counter::new();
static LIVE_BYTES: Counter = Counter::new();

/// What the header of the page in which a block begins says of it: a word, 0 if no block begins there.
///
/// ```text
/// 63      48 47     40 39        0
/// |  offset | class + 1 |  size  |     offset in the page, size as requested, 0 while a thread keeps the block for later
/// ```
#[derive(Clone, Copy)]
struct Entry {
    class: usize,
    size: usize,
}

impl Entry {
    fn pack(self, block: *const u8) -> u64 {
        offset(block) << 48 | (self.class as u64 + 1) << SIZE_BITS | self.size as u64
    }

    /// Reads the entry of a block; `None` if no such block begins in the page.
    fn read(header: &PageHeader, block: *const u8) -> Option<Entry> {
        let word = slot(header, block).get();
        (word != 0 && word >> 48 == offset(block)).then_some(Entry {
            class: usize::from((word >> SIZE_BITS) as u8) - 1,
            size: (word & ((1 << SIZE_BITS) - 1)) as usize,
        })
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

    /// Changes the entry of a block that the program has had to that of one that is kept for later.
    fn write_kept(header: &PageHeader, block: *const u8) {
        let slot = slot(header, block);
        slot.set(slot.get() >> SIZE_BITS << SIZE_BITS);
    }
}

/// Bits of an entry that hold a size.
const SIZE_BITS: u32 = 40;

fn offset(block: *const u8) -> u64 {
    (block.addr() & (PAGE_SIZE - 1)) as u64
}

/// The word for the entry of a block. Blocks are longer than 16 KiB, so no two have the same.
fn slot(header: &PageHeader, block: *const u8) -> &Cell<u64> {
    const _: () = assert!(PAGE_SIZE / SMALL_MAX == 4);
    &header.sizes[(block.addr() & (PAGE_SIZE - 1)) / SMALL_MAX]
}

/// Allocates a block, from the thread's cache or else from a heap: `preferred` is the one to try first. Null when there is no
/// memory. `grows` says that the block is for contents that outgrew another one.
pub(crate) fn alloc(layout: Layout, grows: bool, cache: Option<&Cache>, preferred: usize) -> *mut u8 {
    debug_assert!(layout.size() > SMALL_MAX && layout.size() <= MID_MAX);
    let class = class_of(layout.size());
    let cached = cache
        .and_then(|cache| if grows { cache.take_to_grow(class, layout.size()) } else { cache.take(class) });
    let (block, class) = cached.unwrap_or_else(|| (alloc_from_heap(class, preferred), class));
    let Some(header) = space::header_of(block) else {
        // What the thread keeps may be what is missing.
        return match cache.filter(|cache| !cache.is_empty()) {
            Some(kept) => {
                clear(kept);
                alloc(layout, grows, cache, preferred)
            }
            None => ptr::null_mut(),
        };
    };
    Entry { class, size: layout.size() }.write(header, block);
    count(cache, 1, layout.size() as u64, size_of_class(class) as u64);
    block
}

/// Allocates a block of `size` bytes if the cache has one: the shortest way.
#[inline]
pub(crate) fn alloc_cached(size: usize, cache: &Cache) -> Option<*mut u8> {
    let (block, class) = cache.take(class_of(size))?;
    // Always there, as the block was.
    let header = space::header_of(block)?;
    Entry { class, size }.write(header, block);
    count(Some(cache), 1, size as u64, size_of_class(class) as u64);
    Some(block)
}

/// Adds to the live blocks, bytes and the room of these blocks; less is more than 2^63.
#[inline]
fn count(cache: Option<&Cache>, blocks: u64, bytes: u64, room: u64) {
    match cache {
        Some(cache) => {
            cache.live_blocks.add(blocks);
            cache.live_bytes.add(bytes);
            cache.live_room.add(room);
        }
        None => {
            LIVE_BLOCKS.add_shared(blocks);
            LIVE_BYTES.add_shared(bytes);
        }
    }
}

fn alloc_from_heap(class: usize, preferred: usize) -> *mut u8 {
    let units = units_of_class(class);
    let (index, mut heap) = lock_any(preferred);
    let mut block = heap.alloc(units);
    if block.is_null() && claim(&mut heap, index, units) {
        block = heap.alloc(units);
    }
    drop(heap);
    if block.is_null() {
        // No memory: heaps that are not in use any more may have some.
        return HEAP
            .iter()
            .map(|heap| heap.lock().alloc(units))
            .find(|block| !block.is_null())
            .unwrap_or(block);
    }
    block
}

/// Locks one of the heaps in use: the preferred one, or else one that is not busy, unless all are.
fn lock_any(preferred: usize) -> (usize, LockGuard<'static, Spans>) {
    let width = WIDTH.load(Ordering::Relaxed).clamp(1, HEAPS);
    let first = preferred % width;
    if let Some(heap) = HEAP[first].try_lock() {
        return (first, heap);
    }
    met();
    (1..width)
        .map(|next| (first + next) % width)
        .find_map(|index| HEAP[index].try_lock().map(|heap| (index, heap)))
        .unwrap_or_else(|| (first, HEAP[first].lock()))
}

/// Locks the heap that a page belongs to.
fn lock_of(header: &PageHeader) -> LockGuard<'static, Spans> {
    let heap = &HEAP[usize::from(header.class.load(Ordering::Relaxed)) % HEAPS];
    heap.try_lock().unwrap_or_else(|| {
        met();
        heap.lock()
    })
}

/// Counts that a thread has found a heap busy.
#[cold]
fn met() {
    if MEETINGS.met.fetch_add(1, Ordering::Relaxed) + 1 == MET_OFTEN {
        let wider = |width| (width < HEAPS).then_some(2 * width);
        let _ = WIDTH.fetch_update(Ordering::Relaxed, Ordering::Relaxed, wider);
        MEETINGS.met.store(MET_OFTEN / 4, Ordering::Relaxed);
    }
}

/// Ends a period: fewer heaps may do.
fn narrow() {
    let quiet = if MEETINGS.met.swap(0, Ordering::Relaxed) < MET_OFTEN / 4 {
        MEETINGS.quiet.load(Ordering::Relaxed) + 1
    } else {
        0
    };
    MEETINGS.quiet.store(quiet % QUIET_PERIODS, Ordering::Relaxed);
    if quiet == QUIET_PERIODS {
        let narrower = |width| (width > 1).then_some(width / 2);
        let _ = WIDTH.fetch_update(Ordering::Relaxed, Ordering::Relaxed, narrower);
    }
}

/// Gives the heap of this index one more span, in which there are `units` units. Returns false if there is no memory.
fn claim(heap: &mut Spans, index: usize, units: usize) -> bool {
    let run = space::alloc_run(CLAIM, 1, Kind::Mid)
        .or_else(|| space::alloc_run(spans::pages_for(units), 1, Kind::Mid));
    let Some(run) = run else { return false };
    let pages = run.header.run_len.load(Ordering::Relaxed) as usize;
    let base = space::start_of(run.header);
    for page in 0..pages {
        let Some(header) = space::header_of(base.wrapping_add(page * PAGE_SIZE)) else { continue };
        header.class.store(index as u8, Ordering::Relaxed);
        header.next.set(run.header);
    }
    // SAFETY: the run belongs to this heap until it is given back; it has at most the pages of a claim, and enough of them.
    unsafe { heap.add(base, pages) };
    true
}

/// Frees the block at `ptr`, which begins in the page of `header`.
///
/// # Safety
///
/// The block must be handed out and not used any more.
#[inline]
pub(crate) unsafe fn dealloc(header: &PageHeader, ptr: *mut u8, cache: Option<&Cache>) {
    let Entry { class, size } = Entry::of_live(header, ptr);
    Entry::write_kept(header, ptr);
    count(cache, u64::MAX, (size as u64).wrapping_neg(), (size_of_class(class) as u64).wrapping_neg());
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
    let mut heap = lock_of(header);
    slot(header, block).set(0);
    // SAFETY: the block is free, in the span that begins in this page, and of this class.
    let empty = unsafe { heap.free(span_of(header), block, units_of_class(entry.class)) };
    drop(heap);
    free_span(empty);
}

/// Returns the span that begins at `base`, if any, to the space.
fn free_span(base: Option<*mut u8>) {
    if let Some(header) = base.and_then(|base| space::header_of(base)) {
        space::free_run(header);
    }
}

/// Gives back to the OS what lies free between blocks, as a part of a round. For [`Thorough::Everything`] the spans that heaps keep
/// for their next need go to the space, too. Only for who makes rounds: no two at a time. No heap is locked while the OS works.
pub(crate) fn purge(thorough: Thorough, progress: &mut Progress) {
    if thorough == Thorough::Decay {
        narrow();
    }
    for heap in &HEAP {
        if thorough == Thorough::Everything {
            let spare = heap.lock().take_spare();
            free_span(spare);
        }
        let mut due = heap.lock().take_due(thorough, progress.budget);
        due.purge(progress, space::purge_free);
        while !due.is_empty() {
            let empty = heap.lock().put_back(&mut due);
            free_span(empty);
        }
        progress.more |= due.more;
        if due.left {
            progress.leave_rest();
        }
    }
}

/// Returns what the cache has not needed since the last call to the heaps.
pub(crate) fn decay(cache: &Cache) {
    cache.decay(true, &mut give_back);
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
    // A block with room to grow keeps it while it grows.
    if new_size > room || new_size < size && new_size <= room / 2 {
        let new_class = class_of(new_size);
        if let Some(cache) = cache.filter(|_| new_size > room) {
            cache.outgrew(class);
        }
        let (units, wanted) = (units_of_class(class), units_of_class(new_class));
        let block = space::at(ptr.addr());
        // SAFETY: the block is in the span that begins in this page, and of this class.
        if !unsafe { lock_of(header).resize(span_of(header), block, units, wanted) } {
            return false;
        }
        class = new_class;
    }
    Entry { class, size: new_size }.write(header, ptr);
    let room_added = (size_of_class(class) as u64).wrapping_sub(room as u64);
    count(cache, 0, (new_size as u64).wrapping_sub(size as u64), room_added);
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

/// First byte of the span that a page is part of.
fn span_of(header: &PageHeader) -> *mut u8 {
    // SAFETY: pages of spans have the header of the first one, which is in the table.
    space::start_of(unsafe { &*header.next.get() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_heaps_in_use_as_threads_meet() {
        let index = |preferred| lock_any(preferred).0;
        let meet = |times| (0..times).for_each(|_| met());
        let rest = |periods| (0..periods).for_each(|_| narrow());
        assert_eq!([0, 1, 2, 3, 4].map(index), [0; 5]);
        meet(MET_OFTEN - 1);
        assert_eq!([0, 1, 2, 3, 4].map(index), [0; 5]);
        meet(1);
        assert_eq!([0, 1, 2, 3, 4].map(index), [0, 1, 0, 1, 0]);
        let busy = HEAP[1].lock();
        assert_eq!(index(1), 0, "a heap that is busy is passed over");
        drop(busy);
        rest(QUIET_PERIODS);
        assert_eq!(index(1), 1, "in the first of these periods threads have met");
        meet(4 * MET_OFTEN);
        assert_eq!([0, 1, 2, 3, 4].map(index), [0, 1, 2, 3, 0], "there are no more");
        rest(QUIET_PERIODS - 1);
        meet(MET_OFTEN / 2);
        rest(QUIET_PERIODS);
        assert_eq!(index(3), 3, "they still meet at times");
        rest(1);
        assert_eq!([0, 1, 2, 3, 4].map(index), [0, 1, 0, 1, 0]);
        rest(2 * QUIET_PERIODS);
        assert_eq!([0, 1, 2, 3, 4].map(index), [0; 5]);
    }
}
