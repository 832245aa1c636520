//! Pretenuring: blocks of sizes that tend to outlive their arena are allocated outside of it from the start.
//!
//! An arena cannot give back a part of a chunk, so a block that survives it keeps 64 KiB. Which blocks will survive is
//! predictable: a program that stores a 104-byte entry per request does so with the next request, too. So some arenas
//! are *tracked*: they count allocations and frees by size, and what is left at their end teaches the heap which sizes
//! to place in its slab. The fast path pays for that with one load, because it takes the rounded size from the table
//! that the lesson is written to. The idea is that of pretenuring in garbage collectors (Blackburn et al.,
//! "Pretenuring for Java", OOPSLA 2001), with the size where they have the allocation site.
//!
//! Nothing here decides about validity: a wrong prediction costs time or memory.
#![forbid(unsafe_code)]

use core::cell::Cell;
use core::hash::{Hash, Hasher};
use core::ptr;

/// Blocks of an arena begin and end at multiples of this many bytes.
pub(crate) const GRANULE: usize = 8;

/// Sizes up to this many bytes are told apart by granule, bigger ones by KiB.
pub(crate) const STEP_MAX: usize = 1 << 10;

/// Sizes that are told apart: 0 to 128 granules, then 1 to 16 KiB in steps of 1 KiB.
pub(crate) const SIZES: usize = STEP_MAX / GRANULE + 16;

/// In the table of steps: blocks of this size belong outside. More than any chunk has left, so that it fits nowhere.
const OUTSIDE: u16 = u16::MAX;

/// A size belongs outside if at least one in this many of its blocks survives.
const RATIO: u32 = 16;
/// The same while pinned chunks are many.
const RATIO_PRESSED: u32 = 512;

/// Most arenas between two tracked ones while blocks go on to escape that no lesson covers.
const WAIT_MAX: u32 = 31;
/// The same while pinned chunks are many.
const WAIT_MAX_PRESSED: u32 = 3;
/// Arenas after which the sizes outside are tried inside again: at first, and at most.
const RECHECK_MIN: u32 = 1 << 10;
const RECHECK_MAX: u32 = 1 << 15;
/// The same after a trial in which a size had no survivors.
const RECHECK_SOON: u32 = 1 << 5;

/// Arenas that are diverted after one from which something escaped while pinned chunks are too many: at first, and at most.
const PENALTY_MIN: u32 = 1 << 3;
const PENALTY_MAX: u32 = 1 << 10;

/// So many arenas of a kind after the last one from which anything escaped nothing is expected to escape any more.
const MIXED: u16 = 1 << 10;

/// A tracked arena that has allocated this much is not representative any more.
const TRACKED_MAX: u32 = 10_000;

/// Number of `size`, at most 16 KiB, among the [`SIZES`].
#[inline]
pub(crate) const fn index(size: usize) -> usize {
    if size <= STEP_MAX {
        size.div_ceil(GRANULE)
    } else {
        let kib = size.div_ceil(1 << 10);
        STEP_MAX / GRANULE - 1 + if kib > 16 { 16 } else { kib }
    }
}

const _: () = assert!(index(STEP_MAX) == STEP_MAX / GRANULE);
const _: () = assert!(index(STEP_MAX + 1) == STEP_MAX / GRANULE + 1);
const _: () = assert!(index(16 << 10) == SIZES - 1);
const _: () = assert!(STEP_MAX < OUTSIDE as usize);

/// What a heap has learned of one kind of arenas. Belongs to the heap's owner.
pub(crate) struct Tenure {
    /// Rounded size in bytes by granules, or [`OUTSIDE`].
    steps: [Cell<u16>; STEP_MAX / GRANULE + 1],
    /// The same for bigger sizes: bit `index - 129`.
    big_outside: Cell<u16>,
    /// How many sizes are outside.
    outside: Cell<u16>,
    /// Evidence by size, decaying: allocations in tracked arenas, and survivors of them.
    allocs: [Cell<u16>; SIZES],
    survivors: [Cell<u16>; SIZES],
    /// Whether anything escaped since the last arena was tracked.
    escaped: Cell<bool>,
    /// Arenas to go, of those that are not diverted, until it is forgotten that anything escaped.
    mixed: Cell<u16>,
    /// Arenas to go before the next one may be tracked, and what that is after the next one that teaches nothing.
    wait: Cell<u32>,
    pause: Cell<u32>,
    /// Arenas to go before the sizes outside are tried again, and how many that were last time.
    recheck: Cell<u32>,
    recheck_every: Cell<u32>,
    /// While pinned chunks are too many: arenas to be diverted after one from which something escaped, and how many of these
    /// there still are.
    penalty: Cell<u32>,
    diverted: Cell<u32>,
}

/// How long a block in the slab is expected to live. Nothing but its place depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    /// What is allocated outside of arenas, or in an arena of a kind from which blocks escape.
    Long,
    /// What other arenas leave to the slab, because they are diverted or it would not fit a chunk.
    Short,
}

impl Term {
    /// The one that this is not.
    pub(crate) fn other(self) -> Term {
        match self {
            Term::Long => Term::Short,
            Term::Short => Term::Long,
        }
    }
}

/// Kinds of arenas that are told apart: what one kind of request leaves behind says little about another.
pub(crate) const KINDS: usize = 16;

/// The number, below [`KINDS`], of the kind of arenas that have this key.
#[inline]
pub(crate) const fn kind_of(key: u64) -> u8 {
    // Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4).
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - KINDS.trailing_zeros())) as u8
}

/// The kind of arenas that are opened for this value: that of its type, which for a closure is its place in the program.
#[inline]
pub(crate) fn kind_for<T>(_: &T) -> u8 {
    /// The words that are hashed, which are a hash already.
    struct Words(u64);

    impl Hasher for Words {
        fn write_u64(&mut self, word: u64) {
            self.0 ^= word;
        }

        fn write(&mut self, bytes: &[u8]) {
            bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }

    let mut words = Words(0);
    typeid::of::<T>().hash(&mut words);
    kind_of(words.finish())
}

/// How an arena begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// As most do.
    Ordinary,
    /// Tracked; sizes outside stay there.
    Tracked,
    /// Tracked with everything inside.
    Recheck,
}

impl Tenure {
    pub(crate) const fn new() -> Tenure {
        let mut steps = [const { Cell::new(0u16) }; STEP_MAX / GRANULE + 1];
        let mut granules = 0;
        while granules < steps.len() {
            steps[granules] = Cell::new((granules * GRANULE) as u16);
            granules += 1;
        }
        Tenure {
            steps,
            big_outside: Cell::new(0),
            outside: Cell::new(0),
            allocs: [const { Cell::new(0) }; SIZES],
            survivors: [const { Cell::new(0) }; SIZES],
            escaped: Cell::new(false),
            mixed: Cell::new(0),
            wait: Cell::new(0),
            pause: Cell::new(0),
            recheck: Cell::new(RECHECK_MIN),
            recheck_every: Cell::new(RECHECK_MIN),
            penalty: Cell::new(0),
            diverted: Cell::new(0),
        }
    }

    /// How far to move the cursor for a block of `size` bytes, at most [`STEP_MAX`]; for a size that belongs outside more
    /// than fits any chunk.
    #[inline]
    pub(crate) fn step(&self, size: usize) -> usize {
        // The bound is known to hold; `get` keeps a panic out of the allocator in any case.
        self.steps
            .get((size + (GRANULE - 1)) >> GRANULE.trailing_zeros())
            .map_or(usize::from(OUTSIDE), |step| usize::from(step.get()))
    }

    /// Whether blocks of `size` bytes belong outside.
    #[inline]
    pub(crate) fn is_outside(&self, size: usize) -> bool {
        if size <= STEP_MAX {
            self.step(size) == usize::from(OUTSIDE)
        } else {
            self.big_outside.get() & big_bit(index(size)) != 0
        }
    }

    /// How long blocks live that an arena leaves to the slab, but not because of their size: if some escape, nobody knows which.
    #[inline]
    pub(crate) fn term(&self) -> Term {
        if self.mixed.get() > 0 || self.outside.get() > 0 { Term::Long } else { Term::Short }
    }

    /// How the next arena begins.
    #[inline]
    pub(crate) fn start(&self) -> Start {
        if !self.escaped.get() && self.outside.get() == 0 && self.mixed.get() == 0 {
            return Start::Ordinary;
        }
        self.start_slow()
    }

    #[cold]
    fn start_slow(&self) -> Start {
        self.mixed.set(self.mixed.get().saturating_sub(1));
        if !self.escaped.get() && self.outside.get() == 0 {
            return Start::Ordinary;
        }
        let wait = self.wait.get();
        self.wait.set(wait.saturating_sub(1));
        if self.outside.get() > 0 {
            let recheck = self.recheck.get().saturating_sub(1);
            self.recheck.set(recheck);
            if recheck == 0 {
                let every = self.recheck_every.get().saturating_mul(2).min(RECHECK_MAX);
                self.recheck_every.set(every);
                self.recheck.set(every);
                return Start::Recheck;
            }
        }
        if !self.escaped.get() || wait > 0 {
            return Start::Ordinary;
        }
        // Until this one has taught something, if it ever ends, others may be tracked too, but few.
        self.wait.set(WAIT_MAX);
        self.escaped.set(false);
        Start::Tracked
    }

    /// Blocks have escaped from an arena. `full`: pinned chunks are too many.
    pub(crate) fn note_escapes(&self, full: bool) {
        self.escaped.set(true);
        self.mixed.set(MIXED);
        if full {
            let penalty = self.penalty.get().saturating_mul(2).clamp(PENALTY_MIN, PENALTY_MAX);
            self.penalty.set(penalty);
            self.diverted.set(penalty);
        }
    }

    /// How the next arena begins while pinned chunks are too many; `None` if it is to be diverted.
    ///
    /// Only arenas from which something escapes are followed by diverted ones. Those that are not diverted then are tracked,
    /// and one survivor is enough to send its size outside, so that soon nothing escapes any more.
    #[cold]
    pub(crate) fn start_pressed(&self) -> Option<Start> {
        let (left, penalty) = (self.diverted.get(), self.penalty.get());
        if left > 0 {
            self.diverted.set(left - 1);
            return None;
        }
        self.penalty.set(penalty.saturating_sub(1));
        // This is no time for trials.
        let ordinary = penalty == 0 && self.start() == Start::Ordinary;
        Some(if ordinary { Start::Ordinary } else { Start::Tracked })
    }

    /// Learns from a tracked arena that ended, with survivors if `survived`. `pressed`: pinned chunks are many; `full`:
    /// they are too many, and any survivor is reason enough.
    pub(crate) fn learn(&self, tracker: &Tracker, survived: bool, pressed: bool, full: bool) {
        let ratio = if pressed { RATIO_PRESSED } else { RATIO };
        let (mut changed, mut soon) = (false, false);
        for size in 0..SIZES {
            let allocs = u32::from(tracker.allocs[size].get());
            if allocs == 0 {
                continue;
            }
            // Blocks that were freed where the tracker does not see it are no survivors if nothing survived.
            let left = if survived { allocs.saturating_sub(u32::from(tracker.frees[size].get())) } else { 0 };
            let outside = self.is_index_outside(size);
            if outside && tracker.recheck.get() {
                // A trial weighs as much as all evidence before it.
                self.allocs[size].set(self.allocs[size].get() / 2);
                self.survivors[size].set(self.survivors[size].get() / 2);
            }
            let (allocs, survivors) = self.add_evidence(size, allocs, left);
            if !outside && left > 0 && (full || survivors * ratio >= allocs) {
                self.set_outside(size, true);
                changed = true;
            } else if outside && tracker.recheck.get() && left == 0 && !pressed {
                if survivors == 0 {
                    self.set_outside(size, false);
                } else {
                    soon = true;
                }
            }
        }
        let longest = if pressed { WAIT_MAX_PRESSED } else { WAIT_MAX };
        let pause = if changed { 0 } else { (self.pause.get() * 2 + 1).min(longest) };
        self.pause.set(pause);
        self.wait.set(pause);
        if changed {
            self.recheck_every.set(RECHECK_MIN);
            self.recheck.set(RECHECK_MIN);
        }
        if soon {
            self.recheck.set(RECHECK_SOON);
        }
    }

    /// Adds to what is known of a size, and halves it now and then, so that the recent counts most.
    fn add_evidence(&self, size: usize, allocs: u32, survivors: u32) -> (u32, u32) {
        let mut sums =
            (u32::from(self.allocs[size].get()) + allocs, u32::from(self.survivors[size].get()) + survivors);
        while sums.0 > 1 << 10 {
            sums = (sums.0 / 2, sums.1.div_ceil(2));
        }
        self.allocs[size].set(sums.0 as u16);
        self.survivors[size].set(sums.1.min(sums.0) as u16);
        sums
    }

    fn is_index_outside(&self, size: usize) -> bool {
        match self.steps.get(size) {
            Some(step) => step.get() == OUTSIDE,
            None => self.big_outside.get() & big_bit(size) != 0,
        }
    }

    fn set_outside(&self, size: usize, outside: bool) {
        match self.steps.get(size) {
            Some(step) => step.set(if outside { OUTSIDE } else { (size * GRANULE) as u16 }),
            None if outside => self.big_outside.set(self.big_outside.get() | big_bit(size)),
            None => self.big_outside.set(self.big_outside.get() & !big_bit(size)),
        }
        self.outside.set(if outside { self.outside.get() + 1 } else { self.outside.get().saturating_sub(1) });
    }
}

/// Bit of an index above the steps.
#[inline]
const fn big_bit(index: usize) -> u16 {
    1 << (index - (STEP_MAX / GRANULE + 1))
}

const _: () = assert!(SIZES - (STEP_MAX / GRANULE + 1) <= u16::BITS as usize);

/// Blocks that were made smaller in place whose first size is remembered.
const SHRUNK: usize = 32;

/// What a tracked arena counts. Belongs to the arena.
pub(crate) struct Tracker {
    /// Link in a list of unused trackers.
    pub next: Cell<*const Tracker>,
    allocs: [Cell<u16>; SIZES],
    frees: [Cell<u16>; SIZES],
    total: Cell<u32>,
    /// Whether sizes outside are inside for once.
    recheck: Cell<bool>,
    /// Blocks made smaller in place, as address and the index they were counted by: it is by that size that they were
    /// allocated. An address of 0 marks a free place.
    shrunk: [Cell<(usize, usize)>; SHRUNK],
    shrunk_count: Cell<usize>,
}

impl Tracker {
    pub(crate) const fn new() -> Tracker {
        Tracker {
            next: Cell::new(ptr::null()),
            allocs: [const { Cell::new(0) }; SIZES],
            frees: [const { Cell::new(0) }; SIZES],
            total: Cell::new(0),
            recheck: Cell::new(false),
            shrunk: [const { Cell::new((0, 0)) }; SHRUNK],
            shrunk_count: Cell::new(0),
        }
    }

    /// Begins with another arena.
    pub(crate) fn begin(&self, recheck: bool) {
        self.allocs.iter().chain(&self.frees).for_each(|count| count.set(0));
        self.total.set(0);
        self.recheck.set(recheck);
        self.shrunk_count.set(0);
    }

    /// Whether sizes outside are inside for once.
    pub(crate) fn is_recheck(&self) -> bool {
        self.recheck.get()
    }

    /// Whether a block of `size` bytes belongs outside while this tracker looks on.
    pub(crate) fn is_outside(&self, tenure: &Tenure, size: usize) -> bool {
        !self.recheck.get() && tenure.is_outside(size)
    }

    /// Counts an allocation. Returns false when the arena has become too big to learn from.
    pub(crate) fn allocated(&self, size: usize) -> bool {
        bump(&self.allocs, index(size));
        self.total.set(self.total.get() + 1);
        self.total.get() < TRACKED_MAX
    }

    /// Counts a free.
    pub(crate) fn freed(&self, addr: usize, size: usize) {
        let count = self.shrunk_count.get();
        for shrunk in self.shrunk.iter().take(count) {
            if shrunk.get().0 == addr {
                bump(&self.frees, shrunk.get().1);
                shrunk.set(self.shrunk[count - 1].get());
                self.shrunk_count.set(count - 1);
                return;
            }
        }
        bump(&self.frees, index(size.min(16 << 10)));
    }

    /// Notes that a block became smaller in place.
    pub(crate) fn shrunk(&self, addr: usize, old_size: usize) {
        let count = self.shrunk_count.get();
        let known = self.shrunk.iter().take(count).any(|shrunk| shrunk.get().0 == addr);
        if let Some(place) = self.shrunk.get(count).filter(|_| !known) {
            place.set((addr, index(old_size)));
            self.shrunk_count.set(count + 1);
        }
    }
}

fn bump(counts: &[Cell<u16>; SIZES], index: usize) {
    if let Some(count) = counts.get(index) {
        count.set(count.get().saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_mixed_until_nothing_has_escaped_for_long() {
        let tenure = Tenure::new();
        assert_eq!((tenure.term(), tenure.start()), (Term::Short, Start::Ordinary));
        for _ in 0..3 {
            tenure.note_escapes(false);
            assert_eq!(tenure.start(), Start::Tracked);
            for arena in 1..MIXED {
                assert_eq!(tenure.term(), Term::Long, "{arena}");
                assert_eq!(tenure.start(), Start::Ordinary);
            }
            assert_eq!(tenure.term(), Term::Short);
            // The next lesson may come at once.
            tenure.wait.set(0);
        }
        tenure.set_outside(index(100), true);
        assert_eq!(tenure.term(), Term::Long, "a size is outside");
        tenure.set_outside(index(100), false);
        assert_eq!(tenure.term(), Term::Short);
    }
}
