//! How much memory chunks with survivors keep.

use crate::header::PageHeader;
use crate::space::{self, PAGE_SIZE};
use crate::sync::{AtomicUsize, Ordering};

/// Chunks closed with live blocks that are still alive.
static PINNED: AtomicUsize = AtomicUsize::new(0);

/// How much memory chunks with survivors keep, for the size of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// Little.
    Low,
    /// Above 256 KiB and 1/128 of all memory that was ever used: sizes go outside at the first sign of an escape.
    High,
    /// Above 1 MiB and 1/64: after each arena that pins more, many are diverted.
    Full,
}

/// How much pinned chunks weigh at the moment.
#[inline]
pub(crate) fn pressure() -> Pressure {
    let pinned = PINNED.load(Ordering::Relaxed);
    if pinned <= PINNED_HIGH { Pressure::Low } else { pressure_of(pinned) }
}

const PINNED_HIGH: usize = (256 << 10) / PAGE_SIZE;
const PINNED_FULL: usize = (1 << 20) / PAGE_SIZE;

#[cold]
fn pressure_of(pinned: usize) -> Pressure {
    let pages = space::pages_ever_used();
    if pinned > PINNED_FULL + pages / 64 {
        Pressure::Full
    } else if pinned > PINNED_HIGH + pages / 128 {
        Pressure::High
    } else {
        Pressure::Low
    }
}

/// A chunk is about to be left to its survivors.
pub(super) fn pin() {
    PINNED.fetch_add(1, Ordering::Relaxed);
}

/// There were none.
pub(super) fn unpin() {
    PINNED.fetch_sub(1, Ordering::Relaxed);
}

/// Counts a free of a block of `page` by a thread that does not have its arena entered. Returns whether the arena is closed and
/// this was the last block: then the page is the caller's.
pub(crate) fn free_remote(page: &PageHeader) -> bool {
    let last = page.remote.live.free_remote();
    if last {
        unpin();
    }
    last
}
