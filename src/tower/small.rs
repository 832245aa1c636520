//! Which kinds of requests allocate so little that an arena costs more than it saves.

use core::cell::Cell;
use core::fmt;

use crate::sync::{AtomicU32, Ordering};

/// A request is small if its arena has served fewer allocations than this until the response is ready.
///
/// Measured on the example server: the layer executes some 2,400 instructions more for a request with an arena, and the shortest allocation
/// and its free 22 less in it than in the slab.
const FEW: u64 = 100;

/// A kind is small after this many requests in a row that were looked at and small.
const ENOUGH: u32 = 8;

/// One request in this many is looked at, of a small kind one in [`RARELY`].
const SOMETIMES: u32 = 8;
const RARELY: u32 = 64;

/// Kinds of which something is known. Those that meet in a place take it from each other, and are then not found small.
const KINDS: usize = 256;

/// What is known of each kind. Shared by all threads; in the steady state nobody writes it. Aligned, so that it shares no cache line with
/// the count of its owners, which is written for each request that is looked at.
#[repr(align(128))]
pub(super) struct Small {
    /// Small requests in a row, up to [`ENOUGH`], in the low [`COUNT_BITS`]; above them what tells the kind from others of the place.
    places: [AtomicU32; KINDS],
}

const COUNT_BITS: u32 = 4;
const _: () = assert!(ENOUGH < 1 << COUNT_BITS);

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It has no arena.
    Skipped,
    /// It has one.
    Arena,
    /// It has one, and is to be [noted](Small::note).
    LookedAt,
}

impl Small {
    pub(super) fn new() -> Small {
        Small { places: [const { AtomicU32::new(0) }; KINDS] }
    }

    /// What to do with the next request of the kind with this key.
    pub(super) fn choose(&self, key: u64) -> Choice {
        let (place, tag) = self.find(key);
        let small = place.load(Ordering::Relaxed) == tag | ENOUGH;
        let random = random();
        match small {
            true if !random.is_multiple_of(RARELY) => Choice::Skipped,
            false if !random.is_multiple_of(SOMETIMES) => Choice::Arena,
            _ => Choice::LookedAt,
        }
    }

    /// Notes how many allocations the arena of a request has served.
    pub(super) fn note(&self, key: u64, allocations: u64) {
        let (place, tag) = self.find(key);
        let known = place.load(Ordering::Relaxed);
        // What is known of another kind says nothing.
        let before = if known >> COUNT_BITS == tag >> COUNT_BITS { known - tag } else { 0 };
        let after = tag | if allocations < FEW { ENOUGH.min(before + 1) } else { 0 };
        // What others note at the same time may be lost: they will note again.
        if after != known {
            place.store(after, Ordering::Relaxed);
        }
    }

    /// The place of a kind, and its tag.
    fn find(&self, key: u64) -> (&AtomicU32, u32) {
        // Fibonacci hashing, as for `tenure::kind_of`.
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (&self.places[(hash >> 56) as usize % KINDS], (hash >> 24) as u32 >> COUNT_BITS << COUNT_BITS)
    }
}

impl fmt::Debug for Small {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self
            .places
            .iter()
            .filter(|place| place.load(Ordering::Relaxed) % (1 << COUNT_BITS) == ENOUGH)
            .count();
        f.debug_struct("Small").field("kinds", &small).finish_non_exhaustive()
    }
}

/// Any number, of this thread's sequence: requests that come in turn must not always be the same ones that are looked at.
fn random() -> u32 {
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    // The generator MMIX of Knuth, The Art of Computer Programming, volume 2, section 3.3.4; its high bits are the good ones.
    let state = STATE.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    STATE.set(state);
    (state >> 40) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many requests, each with `allocations`, have an arena.
    fn arenas(small: &Small, key: u64, requests: usize, allocations: u64) -> usize {
        (0..requests)
            .filter(|_| {
                let choice = small.choose(key);
                if choice == Choice::LookedAt {
                    small.note(key, allocations);
                }
                choice != Choice::Skipped
            })
            .count()
    }

    #[test]
    fn kinds_that_share_a_place_are_not_taken_for_each_other() {
        let small = Small::new();
        let one = 1;
        let other = |in_place: bool| {
            let is_there = |key: &u64| std::ptr::eq(small.find(*key).0, small.find(one).0);
            (2..).find(|key| is_there(key) == in_place).expect("places are not many")
        };
        for in_place in [false, true] {
            assert!(arenas(&small, one, 1_000, 1) < 300);
            assert_eq!(arenas(&small, other(in_place), 10, 1), 10);
            assert!(arenas(&small, other(in_place), 1_000, 1) < 300);
            // 300 are enough to note some.
            assert_eq!(arenas(&small, one, 300, FEW) == 300, in_place);
        }
    }

    #[test]
    fn kinds_that_allocate_little_are_skipped_until_they_do_not() {
        let (small, key, other) = (Small::new(), 5 << 32, 6 << 32);
        assert_eq!(arenas(&small, key, 1_000, FEW), 1_000);
        // Some 64 until it is known, then one in 64.
        let first = arenas(&small, key, 1_000, FEW - 1);
        assert!((8..300).contains(&first), "{first}");
        let then = arenas(&small, key, 10_000, FEW - 1);
        assert!((80..300).contains(&then), "{then}");
        assert_eq!(arenas(&small, other, 1_000, FEW), 1_000);
        // A single one that is not small changes it.
        let changed = arenas(&small, key, 10_000, FEW);
        assert!(changed > 9_000, "{changed}");
        assert_eq!(arenas(&small, key, 1_000, FEW), 1_000);
    }
}
