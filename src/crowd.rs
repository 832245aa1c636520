//! Whether so many arenas are open that the next ones had better leave everything to the slab.
//!
//! An arena keeps a chunk of 64 KiB to itself as long as it is open, and one block that escapes keeps it for longer. A few arenas at once
//! go round in the same warm chunks. Thousands do not: each request then walks through memory that is not in the cache, needs twice
//! what it would need in the slab, and after a burst of them survivors everywhere keep the memory of all. So arenas that are opened
//! while many chunks are in use are diverted.
//!
//! The chunks are counted by the heaps, each for itself, when an arena takes one or gives it up. A thread that has done so a few
//! times adds the counts of all, so that nobody writes what others read often.

use crate::heap;
use crate::space;
use crate::stats::{Counters, UNATTACHED};
use crate::sync::{AtomicBool, Ordering};

/// Chunks that arenas may have in any case: 8 MiB.
const CHUNKS: u64 = 128;
/// Pages ever used for each chunk that they may have besides.
const PAGES_PER_CHUNK: u64 = 64;
/// Chunks that a heap counts before the counts of all are added.
const COUNTED: u64 = 16;

static CROWDED: AtomicBool = AtomicBool::new(false);

/// Whether a new arena is to be diverted.
#[inline]
pub(crate) fn crowded() -> bool {
    CROWDED.load(Ordering::Relaxed)
}

/// An arena has taken a page for a chunk. For the owner of the counters.
pub(crate) fn taken(counters: &Counters) {
    counters.chunks_taken.add(1);
    if counters.chunks_taken.get().is_multiple_of(COUNTED) {
        recount();
    }
}

/// Arenas have given up `chunks` chunks, for another use or to their survivors. For the owner of the counters.
pub(crate) fn left(counters: &Counters, chunks: u64) {
    let before = counters.chunks_left.get();
    counters.chunks_left.add(chunks);
    if before / COUNTED != counters.chunks_left.get() / COUNTED {
        recount();
    }
}

/// Adds the counts of all heaps. Those that change meanwhile may be off by a few.
pub(crate) fn recount() {
    let (taken, left) = heap::all()
        .map(|heap| &heap.counters)
        .chain(core::iter::once(&UNATTACHED))
        .map(|counters| (counters.chunks_taken.get(), counters.chunks_left.get()))
        .fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
    let open = u64::saturating_sub(taken, left);
    CROWDED.store(open > CHUNKS + space::pages_ever_used() as u64 / PAGES_PER_CHUNK, Ordering::Relaxed);
}
