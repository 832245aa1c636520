//! Giving memory back to the OS: free pages, and what lies free inside of pages that are in use.

use super::{PAGE_SHIFT, SPACE, os, pages_ever_used, start_of};
use crate::sync::{AtomicUsize, Ordering};

/// Dirty pages that free runs may hold before some are purged at once: 32 MiB, an eighth of what was ever used, and what it was wrong to
/// purge of late.
const DIRTY_LIMIT: usize = 512;
/// Pages purged by one system call, at most: 1 MiB. The lock is held meanwhile.
const PURGE_STEP: usize = 16;

/// Gives free pages back to the OS until at most `keep` dirty ones remain, `most` of them at most. Returns the bytes given back.
pub(crate) fn purge(keep: usize, most: usize) -> usize {
    let mut pages = 0;
    while pages < most {
        let mut space = SPACE.lock();
        let more = space.dirty.count().saturating_sub(keep).min(most - pages).min(PURGE_STEP);
        let Some(range) = (more > 0).then(|| space.dirty.last_before(space.frontier, more)).flatten() else {
            break;
        };
        let (first, len) = (range.start, range.len());
        // Dirty pages are free, and nobody can take them while the lock is held.
        if !os::purge(start_of(space.header(first)), len << PAGE_SHIFT) {
            break;
        }
        space.dirty.clear(range);
        space.dirty_low = space.dirty_low.min(space.dirty.count());
        pages += len;
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    PURGED.fetch_add(pages << PAGE_SHIFT, Ordering::Relaxed);
    pages << PAGE_SHIFT
}

/// Whether [`purge_hole`] may be tried with multiples of 4 KiB.
pub(crate) fn can_purge_holes() -> bool {
    cfg!(miri) || cfg!(target_os = "linux") && region::page::size() <= 4096
}

/// Purges `bytes` bytes at `start` inside a page that is in use, whole OS pages. Returns whether the OS did.
///
/// # Safety
///
/// Nobody may need the contents.
pub(crate) unsafe fn purge_hole(start: *mut u8, bytes: usize) -> bool {
    let purged = os::purge(start, bytes);
    if purged {
        CALLS.fetch_add(1, Ordering::Relaxed);
        PURGED.fetch_add(bytes, Ordering::Relaxed);
    }
    purged
}

/// How often memory was given back to the OS, and how many bytes in all.
static CALLS: AtomicUsize = AtomicUsize::new(0);
static PURGED: AtomicUsize = AtomicUsize::new(0);

/// System calls that gave memory back, and bytes given back in all.
pub(crate) fn purged() -> (usize, usize) {
    (CALLS.load(Ordering::Relaxed), PURGED.load(Ordering::Relaxed))
}

/// Makes all free pages members of free runs, which can be purged.
pub(crate) fn release_light() {
    SPACE.lock().release_light(0);
}

/// Ends a period of time. Returns how many pages were free and dirty throughout it, which may be purged, and how many are now, with those
/// that wait apart.
///
/// The low-water mark of TCMalloc's caches (Ghemawat and Menage, "TCMalloc: Thread-Caching Malloc"): what was not needed in one
/// period will hardly be in the next.
pub(crate) fn decay() -> (usize, usize) {
    let mut space = SPACE.lock();
    let released = space.decay_light();
    let now = space.dirty.count();
    space.purged_at_once = 0;
    space.regretted /= 2;
    let unneeded = core::mem::replace(&mut space.dirty_low, now) + released;
    (unneeded.min(now), now + space.light.count())
}

/// Purges a part of the dirty pages if there are very many.
pub(super) fn limit_dirty() {
    crate::bell::ring();
    let space = SPACE.lock();
    let limit = DIRTY_LIMIT + pages_ever_used() / 8 + space.regretted;
    let too_many = space.dirty.count() > limit;
    drop(space);
    if too_many {
        let purged = purge(limit - limit / 8, usize::MAX);
        SPACE.lock().purged_at_once += purged >> PAGE_SHIFT;
        crate::trace::purged(purged, dirty_bytes());
    }
}

/// Gives the whole OS pages of memory that has an owner, but is free, back to the OS. Returns the bytes that it took.
pub(crate) fn purge_free(start: *mut u8, bytes: usize) -> usize {
    let (start, bytes) = os::whole_pages(start, bytes);
    // SAFETY: the caller has it, and nobody has put anything into it.
    if bytes > 0 && unsafe { purge_hole(start, bytes) } { bytes } else { 0 }
}

/// Bytes in free runs that may hold something other than zeros, so that the OS has provided memory for them.
pub(crate) fn dirty_bytes() -> usize {
    SPACE.lock().dirty.count() << PAGE_SHIFT
}
