//! Pages of which little was used.
//!
//! A heap needs a page for each size that its thread uses, and of small blocks often only a few. Were that a page that has been full before,
//! the memory behind those few would lie idle. So the first page of a class of small blocks is one for which the OS has provided
//! nothing; and when it comes back, having been used little, it does not join the free runs, where it would be taken for
//! something big, but waits for the next class that begins.

use core::ptr;

use super::{SPACE, Space};
use crate::header::{Kind, PageHeader};
use crate::sync::Ordering;

/// Bytes that may have been carved from a page that counts as light.
pub(crate) const LIGHT_BYTES: usize = 24 << 10;

/// Pages that wait at most.
const WAITING_MAX: usize = 256;

/// Pages that may be taken from the frontier, although there are free ones, in all, and which part of the reservation: it bounds the
/// headers that this costs, and leaves room for long runs.
const FRONTIER_MAX: usize = 1024;
const FRONTIER_PART: usize = 16;

/// Free runs that are looked at for a page without memory.
const TRIES: usize = 8;

/// The pages that wait: spare ones, linked through `next`. Used under the lock of the space.
pub(super) struct Light {
    newest: *const PageHeader,
    count: usize,
    /// Fewest since the last [`decay`](super::decay): so many were not needed.
    low: usize,
    /// Pages taken from the frontier.
    taken: usize,
}

impl Light {
    pub(super) const NONE: Light = Light { newest: ptr::null(), count: 0, low: 0, taken: 0 };

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Takes a spare page in if it is light and there are not too many. Returns whether it did.
    pub(super) fn keep(&mut self, page: &'static PageHeader) -> bool {
        debug_assert!(!page.light.get() || page.kind() == Kind::Spare);
        if !page.light.get() || self.count >= WAITING_MAX {
            return false;
        }
        page.next.set(self.newest);
        self.newest = page;
        self.count += 1;
        true
    }

    fn pop(&mut self) -> Option<&'static PageHeader> {
        // SAFETY: list members are headers of the table, used under the lock of the space.
        let page = unsafe { self.newest.as_ref() }?;
        self.newest = page.next.get();
        self.count -= 1;
        self.low = self.low.min(self.count);
        Some(page)
    }
}

/// Takes a page that is to be used little, as a spare one. `None` when the space is used up.
pub(crate) fn alloc_light() -> Option<&'static PageHeader> {
    let mut space = SPACE.lock();
    if let Some(page) = space.light.pop() {
        return Some(page);
    }
    if let Some(index) = space.take_clean() {
        return Some(space.spare(index, true));
    }
    if space.light.taken < FRONTIER_MAX.min(space.pages / FRONTIER_PART) && space.advance(1) {
        space.light.taken += 1;
        return Some(space.spare(space.frontier - 1, true));
    }
    let (index, dirty) = space.take(1, 1)?;
    Some(space.spare(index, dirty == 0))
}

impl Space {
    /// Puts all but `keep` of the waiting pages to the free runs. Returns how many.
    pub(super) fn release_light(&mut self, keep: usize) -> usize {
        let mut released = 0;
        while self.light.count > keep {
            let Some(page) = self.light.pop() else { break };
            self.put(self.index(page), 1, true);
            released += 1;
        }
        released
    }

    /// At the end of a period: the pages that nobody needed throughout it are free and dirty from now on, and were so. Returns how many.
    pub(super) fn decay_light(&mut self) -> usize {
        let released = self.release_light(self.light.count - self.light.low);
        self.light.low = self.light.count;
        released
    }

    /// Takes a page without memory from the end or the beginning of one of the longest free runs. The end, because what lies before a run
    /// may want to grow into it.
    fn take_clean(&mut self) -> Option<usize> {
        let mut tries = 0;
        let mut candidates = self.nonempty;
        while candidates != 0 {
            let bin = candidates.ilog2() as usize;
            // SAFETY: list members are headers of the table, used under the lock.
            let mut next = unsafe { self.bins[bin].as_ref() };
            while let Some(run) = next {
                let first = self.index(run);
                let last = first + run.run_len.load(Ordering::Relaxed) as usize - 1;
                if let Some(index) = [last, first].into_iter().find(|index| !self.dirty.is_set(*index)) {
                    self.cut(first, last + 1 - first, index, 1);
                    return Some(index);
                }
                tries += 1;
                if tries == TRIES {
                    return None;
                }
                // SAFETY: as above.
                next = unsafe { run.next.get().as_ref() };
            }
            candidates &= !(1 << bin);
        }
        None
    }
}
