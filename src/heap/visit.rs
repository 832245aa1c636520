//! Visits: what a heap keeps and does not need goes back, also while its owner sleeps.
//!
//! A visitor holds the heap's gate, so the owner is on the fast path at most. That touches current and hot pages; the visitor touches
//! spare, cold and full ones, and never makes a page hot. A heap without an owner it takes over for the time of the visit.

use core::ptr;

use super::Heap;
use crate::gate::Visit;
use crate::header::{Kind, NO_OWNER, PageHeader};
use crate::mid;
use crate::page;
use crate::round::{Progress, Thorough};
use crate::size_class::CLASSES;
use crate::space;
use crate::sync::Ordering;

/// In [`PageHeader::seen`], beside the number of live blocks plus one: nothing has changed in the page for a period, so its holes may be
/// purged; and this was done.
const READY: u32 = 1 << 30;
const DONE: u32 = 1 << 31;

impl Heap {
    /// Visits the heap, as a part of a round.
    pub(crate) fn visit(&'static self, thorough: Thorough, progress: &mut Progress) {
        if self.try_claim() {
            self.look_after(thorough, progress);
            return;
        }
        // Whoever is inside is awake, and looks after its pages by itself.
        let Some(visit) = self.gate.try_visit() else {
            progress.more = true;
            return;
        };
        let mut ownerless = false;
        if thorough != Thorough::Rest {
            ownerless = self.collect_as_visitor();
            self.return_pages(thorough == Thorough::Everything, progress);
        }
        self.visit_cold_pages(thorough, Some(&visit), progress);
        drop(visit);
        // What was put back would wait for the next owner.
        if ownerless && self.try_claim() {
            self.look_after(thorough, progress);
        }
    }

    /// The visit to a heap that had no owner, by the thread that has claimed it.
    fn look_after(&self, thorough: Thorough, progress: &mut Progress) {
        // SAFETY: the heap is this thread's.
        unsafe { self.release_unused() };
        {
            let _inside = self.gate.enter();
            self.visit_cold_pages(thorough, None, progress);
        }
        self.abandon();
    }

    /// Collects remote frees for the owner; those of current and hot pages wait for it. Returns whether the heap has no owner
    /// any more, so that what was put back has to be collected.
    fn collect_as_visitor(&'static self) -> bool {
        if self.mailbox.0.is_empty() {
            return false;
        }
        let mut ownerless = false;
        let mut list = self.mailbox.0.take_as_visitor();
        while list != 0 {
            // SAFETY: as in `collect`.
            let page: &'static PageHeader = unsafe { &*space::at(list).cast::<PageHeader>() };
            list = page.remote.mail.next();
            let flags = page.owner.load(Ordering::Relaxed) & PageHeader::FLAGS;
            if flags == 0 {
                ownerless |= self.mailbox.0.post(page.address(), &page.remote.mail);
                continue;
            }
            let chain = page.remote.frees.take();
            // SAFETY: inside the gate cold and full pages are the visitor's.
            unsafe { page::collect(page, chain) };
            if flags == PageHeader::FULL {
                page.owner.store(self.address() | PageHeader::COLD, Ordering::Relaxed);
                self.link(page, usize::from(page.class.load(Ordering::Relaxed)));
            }
        }
        ownerless
    }

    /// Returns spare pages and cold ones that are empty to the space: those that were there at the last visit, or all.
    fn return_pages(&self, all: bool, progress: &mut Progress) {
        let count = self.spare_count.get();
        let kept = if all { 0 } else { count - self.spare_low.get().min(count) };
        if count > kept {
            progress.pages += count - kept;
            space::free_spares(self.cut_spares(kept), true);
        }
        self.spare_low.set(kept);
        if all {
            mid::clear(&self.mid);
        } else {
            mid::decay(&self.mid);
        }
        progress.more |= !self.mid.is_empty();
        let mut list: *const PageHeader = ptr::null();
        for class in 0..CLASSES {
            let mut next = self.available[class].get();
            // SAFETY: list members are headers of pages of this heap.
            while let Some(page) = unsafe { next.as_ref() } {
                next = page.next.get();
                if page.owner.load(Ordering::Relaxed) & PageHeader::COLD == 0 || page.used() != 0 {
                    continue;
                }
                if page.seen.replace(1) != 1 && !all {
                    progress.more = true;
                    continue;
                }
                self.unlink(page, class);
                page.owner.store(NO_OWNER, Ordering::Relaxed);
                page.set_kind(Kind::Spare);
                page.next.set(list);
                list = page;
                progress.pages += 1;
            }
        }
        space::free_spares(list, true);
        progress.more |= kept > 0;
    }

    /// Purges the holes of cold pages in which nothing has changed since the last visit, or of all. With a `visit`, only until the owner
    /// waits for its end.
    fn visit_cold_pages(&self, thorough: Thorough, visit: Option<&Visit>, progress: &mut Progress) {
        for available in &self.available {
            let mut next = available.get();
            // SAFETY: list members are headers of pages of this heap.
            while let Some(page) = unsafe { next.as_ref() } {
                next = page.next.get();
                if page.owner.load(Ordering::Relaxed) & PageHeader::COLD == 0 {
                    continue;
                }
                let live = page.used() + 1;
                let seen = page.seen.get();
                // Empty pages go back as a whole.
                if live == 1 || seen == live | DONE {
                    continue;
                }
                let ready = thorough == Thorough::Everything
                    || seen == live | READY
                    || seen == live && thorough == Thorough::Decay;
                if !ready {
                    // In the middle of a period this would be too early.
                    if thorough == Thorough::Decay {
                        page.seen.set(live);
                    }
                    progress.more = true;
                    continue;
                }
                if progress.budget == 0 {
                    page.seen.set(live | READY);
                    progress.leave_rest();
                    continue;
                }
                // SAFETY: cold pages are the caller's, who is inside the gate or visits.
                let bytes = unsafe { page::purge_holes(page) };
                page.seen.set(live | DONE);
                progress.gave(bytes);
                if visit.is_some_and(Visit::is_awaited) {
                    progress.leave_rest();
                    return;
                }
            }
        }
    }
}
