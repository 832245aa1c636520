//! When memory goes back to the OS: rounds over all heaps and the space, whoever makes them.
//!
//! A round belongs to the end of a period of time. What was not needed throughout the period is returned: spare and empty pages of
//! heaps, holes in pages with few live blocks, cached mid-size blocks and the memory between them, and free pages of the space.
//! Rounds are made by the scavenger's thread, if there is one, else by threads that end arenas or need pages, now and then, with a
//! limit to what one of them does.

use crate::heap::{self, Heap};
use crate::round::{Progress, Thorough};
use crate::space;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Lock, Ordering, now_ms};
use crate::{mid, trace};

/// Milliseconds after which unneeded memory goes back, if not configured otherwise. Two periods: the first tells what is not needed.
pub(crate) const DEFAULT_DECAY_MS: u64 = 1000;

/// Bytes that a round by the way gives back at most, and milliseconds until it goes on.
const BUDGET: usize = 4 << 20;
const PAUSE_MS: u64 = 20;

/// What rounds leave for each other.
struct Rounds {
    /// When the running period ends, in milliseconds of the monotonic clock.
    period_end: u64,
    /// Pages of the space that may still be purged.
    due: usize,
    /// Whether heaps have something left of the last round.
    rest: bool,
    /// Whether the next round may find more.
    more: bool,
}

static ROUNDS: Lock<Rounds> = Lock::new(Rounds { period_end: 0, due: 0, rest: false, more: false });

/// When the next round by the way may be made. A hint, read without the lock.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Whether the last round by the way has left something for the next. A hint, read without the lock.
static LEFT: AtomicBool = AtomicBool::new(false);

/// How many scavenger threads there are: then nobody else makes rounds.
static SCAVENGERS: AtomicU32 = AtomicU32::new(0);

/// Counts periods, so that owners of heaps notice the end of one.
static PERIODS: AtomicU32 = AtomicU32::new(0);

static DECAY_MS: AtomicU64 = AtomicU64::new(DEFAULT_DECAY_MS);

/// Sets after how many milliseconds unneeded memory goes back. Returns after how many it did before.
pub(crate) fn set_decay(ms: u64) -> u64 {
    let before = DECAY_MS.swap(ms.max(2), Ordering::Relaxed);
    // The running period may have been meant to be longer.
    let mut rounds = ROUNDS.lock();
    rounds.period_end = rounds.period_end.min(now_ms() + period());
    drop(rounds);
    NEXT.store(0, Ordering::Relaxed);
    before
}

/// Length of a period in milliseconds.
pub(crate) fn period() -> u64 {
    (DECAY_MS.load(Ordering::Relaxed) / 2).max(1)
}

/// Announces a thread that makes the rounds.
pub(crate) fn scavenger_starts() {
    SCAVENGERS.fetch_add(1, Ordering::Relaxed);
}

/// Takes the announcement back.
pub(crate) fn scavenger_ends() {
    SCAVENGERS.fetch_sub(1, Ordering::Relaxed);
}

/// Whether a round by the way has left something, so that whoever looks at the clock now and then had better do it at once.
#[inline]
pub(crate) fn has_left() -> bool {
    LEFT.load(Ordering::Relaxed)
}

/// What a round did.
pub(crate) struct Round {
    /// Bytes given back to the OS.
    pub bytes: usize,
    /// Whether the next round may find more.
    pub more: bool,
}

/// What a thread does for the return of memory on its way, outside of any gate and lock: at the end of a period with the bins of its heap,
/// which nobody else can; and a part of a round if it is time for one and nobody else makes it. Returns whether a period
/// has ended for the heap.
#[inline]
pub(crate) fn by_the_way(own: Option<&Heap>) -> bool {
    // SAFETY: the heap is this thread's.
    let ended = own.is_some_and(|heap| unsafe { heap.end_period(PERIODS.load(Ordering::Relaxed)) });
    if SCAVENGERS.load(Ordering::Relaxed) != 0 {
        // What was left is the scavenger's now. Only written if it has to be: others read the line.
        if LEFT.load(Ordering::Relaxed) {
            LEFT.store(false, Ordering::Relaxed);
        }
    } else if now_ms() >= NEXT.load(Ordering::Relaxed) {
        by_the_way_slow();
    }
    ended
}

#[cold]
#[inline(never)]
fn by_the_way_slow() {
    let now = now_ms();
    let Some(mut rounds) = ROUNDS.try_lock() else { return };
    if now < NEXT.load(Ordering::Relaxed) {
        return;
    }
    NEXT.store(now + PAUSE_MS.min(period()), Ordering::Relaxed);
    let round = rounds.advance(now, BUDGET);
    let left = rounds.due > 0 || rounds.rest;
    if !left {
        NEXT.store(rounds.period_end, Ordering::Relaxed);
    }
    LEFT.store(left, Ordering::Relaxed);
    drop(rounds);
    report(&round);
}

/// Makes a round at the end of a period, as long as that takes. For the scavenger.
pub(crate) fn round() -> Round {
    let round = ROUNDS.lock().advance(now_ms(), usize::MAX);
    report(&round);
    round
}

/// Gives back everything that nobody uses.
pub(crate) fn everything() -> usize {
    let mut rounds = ROUNDS.lock();
    let mut progress = Progress::new(usize::MAX);
    visit_heaps(Thorough::Everything, &mut progress);
    (rounds.due, rounds.rest) = (0, false);
    space::release_light();
    let round = Round { bytes: progress.bytes + space::purge(0, usize::MAX), more: false };
    drop(rounds);
    report(&round);
    round.bytes
}

/// Collects what sleeping threads were sent and have not noticed, for `own`, which takes memory from the OS: twice as much as it has
/// taken since the last time, if there is that much. Only for the owner, who may be inside its gate: nobody waits for another one in here.
#[cold]
pub(crate) fn collect_for_sleepers(own: &Heap) {
    // As long as it is held nobody forks.
    let Some(_rounds) = ROUNDS.try_lock() else { return };
    let mut progress = Progress::new(0);
    for heap in heap::all().filter(|heap| !core::ptr::eq(*heap, own)) {
        heap.collect_for_sleeper(&mut progress);
        if progress.pages >= 2 * heap::FRESH_TURNS {
            break;
        }
    }
}

fn report(round: &Round) {
    if round.bytes != 0 {
        trace::purged(round.bytes, space::dirty_bytes());
    }
}

fn visit_heaps(thorough: Thorough, progress: &mut Progress) {
    for heap in heap::all() {
        heap.visit(thorough, progress);
    }
    // Behind the heaps, whose caches have given back what this finds.
    mid::purge(thorough, progress);
}

impl Rounds {
    /// Goes on with the round that is due: gives back at most `budget` bytes.
    fn advance(&mut self, now: u64, budget: usize) -> Round {
        let mut progress = Progress::new(budget);
        if now >= self.period_end {
            self.period_end = now + period();
            PERIODS.fetch_add(1, Ordering::Relaxed);
            visit_heaps(Thorough::Decay, &mut progress);
            let (unneeded, dirty) = space::decay();
            self.due = unneeded;
            self.more = progress.more || progress.pages > 0 || dirty > unneeded;
        } else if self.rest {
            visit_heaps(Thorough::Rest, &mut progress);
        }
        self.rest = progress.rest;
        let most = self.due.min(progress.budget >> space::PAGE_SHIFT);
        let purged = space::purge(0, most);
        self.due -= most;
        Round { bytes: progress.bytes + purged, more: self.more || self.due > 0 || self.rest }
    }
}

/// Takes the lock of this module, before a fork: no heap is visited then.
pub(crate) fn lock_for_fork() {
    core::mem::forget(ROUNDS.lock());
}

/// # Safety
///
/// [`lock_for_fork`] must have been called before the fork.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on.
    unsafe { ROUNDS.force_unlock() };
}

/// The child of a fork has no scavenger: its threads make the rounds.
pub(crate) fn forget_scavengers() {
    SCAVENGERS.store(0, Ordering::Relaxed);
}
