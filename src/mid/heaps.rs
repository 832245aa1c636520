//! Heaps of units, each behind its own lock, over which threads are spread.

use super::classes::{MID_MAX, UNIT};
use super::spans::{self, Spans};
use crate::header::{Kind, PageHeader};
use crate::round::{Progress, Thorough};
use crate::space::{self, PAGE_SIZE};
use crate::sync::{AtomicUsize, Lock, LockGuard, Ordering};

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

/// Takes a run of `units` units, `preferred` being the heap to try first. Null when there is no memory.
pub(super) fn alloc(units: usize, preferred: usize) -> *mut u8 {
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

/// Returns a run that begins in the page of `header` to its heap.
///
/// # Safety
///
/// The run must have been taken from here with this length.
pub(super) unsafe fn free(header: &PageHeader, block: *mut u8, units: usize) {
    let mut heap = lock_of(header);
    // SAFETY: by the caller's promise; it is in the span that its page is part of.
    let empty = unsafe { heap.free(span_of(header), block, units) };
    drop(heap);
    free_span(empty);
}

/// Changes the length of a run in place. Returns whether that was possible.
///
/// # Safety
///
/// As [`free`].
pub(super) unsafe fn resize(header: &PageHeader, block: *mut u8, units: usize, wanted: usize) -> bool {
    // SAFETY: as there.
    unsafe { lock_of(header).resize(span_of(header), block, units, wanted) }
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
    use std::alloc::Layout;

    use super::*;

    // One test: there is one set of heaps.
    #[test]
    fn heaps() {
        there_are_as_many_in_use_as_threads_meet();
        without_memory_those_that_are_not_in_use_serve();
    }

    fn there_are_as_many_in_use_as_threads_meet() {
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

    /// There is no reservation here, so none of them can claim a span.
    fn without_memory_those_that_are_not_in_use_serve() {
        let memory = Layout::from_size_align(CLAIM * PAGE_SIZE, PAGE_SIZE).unwrap();
        // SAFETY: the size is not zero, and the span is the heap's until it gives it back.
        let base = unsafe {
            let base = std::alloc::alloc(memory);
            assert!(!base.is_null());
            HEAP[HEAPS - 1].lock().add(base, CLAIM);
            base
        };
        let units = 5;
        let block = alloc(units, 0);
        assert!((base.addr()..base.addr() + memory.size()).contains(&block.addr()), "{block:?} at {base:?}");
        let mut heap = HEAP[HEAPS - 1].lock();
        // SAFETY: the block is from there and not used; then nothing of the span is.
        unsafe {
            assert_eq!(heap.free(base, block, units), None);
            assert_eq!(heap.take_spare(), Some(base));
            std::alloc::dealloc(base, memory);
        }
    }
}
