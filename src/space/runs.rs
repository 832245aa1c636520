//! Free runs: lists by length, and boundary tags, by which neighbours find each other.

use core::ptr;

use super::Space;
use crate::header::{Kind, NO_OWNER};
use crate::sync::Ordering;

/// Lists of free runs: one per length below 32, then one per doubling.
pub(super) const BINS: usize = 31 + 27;

impl Space {
    /// Returns pages, merging them with free neighbours.
    pub(super) fn put(&mut self, first: usize, len: usize, dirty: bool) {
        if dirty {
            self.dirty.set(first..first + len);
        }
        let (mut first, mut len) = (first, len);
        let behind = first + len;
        if behind < self.frontier {
            let header = self.header(behind);
            let more = header.run_len.load(Ordering::Relaxed) as usize;
            if header.kind() == Kind::Free && more > 0 {
                self.unlink(behind);
                len += more;
            }
        }
        if first > self.table() {
            let header = self.header(first - 1);
            let more = header.run_len.load(Ordering::Relaxed) as usize;
            if header.kind() == Kind::Free && more > 0 {
                first -= more;
                len += more;
                self.unlink(first);
            }
        }
        self.insert(first, len);
    }

    /// Files a free run.
    fn insert(&mut self, first: usize, len: usize) {
        self.tag(first, len, Kind::Free);
        let header = self.header(first);
        header.owner.store(NO_OWNER, Ordering::Relaxed);
        let bin = bin_of(len);
        header.prev.set(ptr::null());
        header.next.set(self.bins[bin]);
        // SAFETY: list members are headers of the table, used under the lock.
        if let Some(next) = unsafe { self.bins[bin].as_ref() } {
            next.prev.set(header);
        }
        self.bins[bin] = header;
        self.nonempty |= 1 << bin;
    }

    /// Takes a free run out of its list.
    fn unlink(&mut self, first: usize) {
        let header = self.header(first);
        let len = header.run_len.load(Ordering::Relaxed) as usize;
        let bin = bin_of(len);
        let (prev, next) = (header.prev.get(), header.next.get());
        // SAFETY: list members are headers of the table, used under the lock.
        match unsafe { prev.as_ref() } {
            Some(prev) => prev.next.set(next),
            None => self.bins[bin] = next,
        }
        // SAFETY: as above.
        if let Some(next) = unsafe { next.as_ref() } {
            next.prev.set(prev);
        }
        if self.bins[bin].is_null() {
            self.nonempty &= !(1 << bin);
        }
    }

    /// Takes `pages` pages from `start` on out of the free run of `len` pages that begins at `first`; the rest stays free.
    pub(super) fn cut(&mut self, first: usize, len: usize, start: usize, pages: usize) {
        self.unlink(first);
        if start > first {
            self.insert(first, start - first);
        }
        if first + len > start + pages {
            self.insert(start + pages, first + len - start - pages);
        }
    }

    /// Length of one of the longest free runs, in pages, if there is any.
    pub(super) fn longest(&self) -> Option<usize> {
        let bin = self.nonempty.checked_ilog2()? as usize;
        // SAFETY: list members are headers of the table, used under the lock.
        unsafe { self.bins[bin].as_ref() }.map(|run| run.run_len.load(Ordering::Relaxed) as usize)
    }

    /// The shortest length below `pages` for which [`find`](Self::find) finds a run that is dirty, as its first page tells.
    pub(super) fn short_dirty(&self, pages: usize) -> Option<usize> {
        (1..pages).find(|len| {
            // SAFETY: list members are headers of the table, used under the lock.
            unsafe { self.bins[bin_of(*len)].as_ref() }.is_some_and(|run| self.dirty.is_set(self.index(run)))
        })
    }

    /// A free run of at least `pages` pages: first index and length.
    pub(super) fn find(&self, pages: usize) -> Option<(usize, usize)> {
        let mut candidates = self.nonempty & (u64::MAX << bin_of(pages));
        while candidates != 0 {
            let bin = candidates.trailing_zeros() as usize;
            let mut run = self.bins[bin];
            // SAFETY: list members are headers of the table, used under the lock.
            while let Some(header) = unsafe { run.as_ref() } {
                let len = header.run_len.load(Ordering::Relaxed) as usize;
                if len >= pages {
                    return Some((self.index(header), len));
                }
                run = header.next.get();
            }
            candidates &= candidates - 1;
        }
        None
    }
}

/// The list a free run of `pages` pages belongs to. Every run in a higher list is longer.
const fn bin_of(pages: usize) -> usize {
    if pages < 32 { pages - 1 } else { 31 + (pages.ilog2() as usize - 5) }
}
