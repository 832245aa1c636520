//! Visits: what a heap keeps and does not need goes back, also while its owner sleeps.
//!
//! A visitor holds the heap's gate, so the owner is on the fast path at most, which touches bins. The visitor touches everything else. A heap without an owner it takes over for the time of the visit.

use core::ptr;

use super::{Heap, slot_of};
use crate::gate::Visit;
use crate::header::{Kind, NO_OWNER, PageHeader};
use crate::mid;
use crate::page;
use crate::round::{Progress, Thorough};
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
        if thorough != Thorough::Rest {
            let all = thorough == Thorough::Everything;
            self.collect_as_visitor();
            self.return_pages(all, true, progress);
            if all {
                mid::clear(&self.mid);
            } else {
                mid::decay(&self.mid);
            }
            progress.more |= !self.mid.is_empty();
        }
        self.visit_pages(thorough, Some(&visit), progress);
    }

    /// Collects remote frees for an owner that sleeps, and returns the pages that are empty then. Whoever has not collected any since the
    /// last call, though there are, is taken to sleep.
    pub(crate) fn collect_for_sleeper(&'static self, progress: &mut Progress) {
        // Nobody sends anything to a heap without an owner and leaves it at that.
        if self.mailbox.0.is_empty() {
            return;
        }
        let collected = self.collected.load(Ordering::Relaxed);
        if self.collected_seen.swap(collected, Ordering::Relaxed) != collected {
            return;
        }
        let Some(_visit) = self.gate.try_visit() else { return };
        self.collect_as_visitor();
        self.return_pages(true, false, progress);
    }

    /// The visit to a heap that had no owner, by the thread that has claimed it.
    fn look_after(&self, thorough: Thorough, progress: &mut Progress) {
        // SAFETY: the heap is this thread's.
        unsafe { self.release_unused() };
        {
            let _inside = self.gate.enter();
            self.visit_pages(thorough, None, progress);
        }
        self.abandon();
    }

    /// Collects remote frees for the owner.
    fn collect_as_visitor(&'static self) {
        let mut list = if self.mailbox.0.is_empty() { 0 } else { self.mailbox.0.take_as_visitor() };
        while list != 0 {
            // SAFETY: as in `collect`.
            let page: &'static PageHeader = unsafe { &*space::at(list).cast::<PageHeader>() };
            list = page.remote.mail.next();
            let chain = page.remote.frees.take();
            // SAFETY: inside the gate pages are the visitor's.
            unsafe {
                page::collect(page, chain);
                self.settle(page, slot_of(page));
            }
        }
    }

    /// Returns spare pages and empty ones to the space: those that were there at the last visit, or all. If they are not `cold` they are
    /// meant to be used at once.
    fn return_pages(&self, all: bool, cold: bool, progress: &mut Progress) {
        for slot in self.slots() {
            // SAFETY: current pages are never null; inside the gate pages are the visitor's.
            unsafe {
                if (*self.current[slot].get()).used() == 0 {
                    self.retire_current(slot);
                }
            }
        }
        let count = self.spare_count.get();
        let kept = if all { 0 } else { count - self.spare_low.get().min(count) };
        if count > kept {
            progress.pages += count - kept;
            space::free_spares(self.cut_spares(kept), cold);
        }
        self.spare_low.set(kept);
        let mut list: *const PageHeader = ptr::null();
        for slot in self.slots() {
            let mut next = self.available[slot].get();
            // SAFETY: list members are headers of pages of this heap.
            while let Some(page) = unsafe { next.as_ref() } {
                next = page.next.get();
                if page.used() != 0 {
                    continue;
                }
                if page.seen.replace(1) != 1 && !all {
                    progress.more = true;
                    continue;
                }
                self.unlink(page, slot);
                page.owner.store(NO_OWNER, Ordering::Relaxed);
                page.set_kind(Kind::Spare);
                page.next.set(list);
                list = page;
                progress.pages += 1;
            }
        }
        space::free_spares(list, cold);
        progress.more |= kept > 0;
    }

    /// Purges the holes of pages in which nothing has changed since the last visit, or of all. With a `visit`, only until the owner
    /// waits for its end.
    fn visit_pages(&self, thorough: Thorough, visit: Option<&Visit>, progress: &mut Progress) {
        for slot in self.slots() {
            // SAFETY: these are headers of pages of this heap, or the empty page, which is full.
            let (current, mut next) =
                unsafe { (self.current[slot].get().as_ref(), self.available[slot].get().as_ref()) };
            for page in current.into_iter().chain(core::iter::from_fn(|| {
                let page = next?;
                // SAFETY: as above.
                next = unsafe { page.next.get().as_ref() };
                Some(page)
            })) {
                if purge_holes(page, thorough, progress) && visit.is_some_and(Visit::is_awaited) {
                    progress.leave_rest();
                    return;
                }
            }
        }
    }
}

/// Purges the holes of one page, of a heap inside whose gate the caller is, if it is time for that. Returns whether it did.
fn purge_holes(page: &PageHeader, thorough: Thorough, progress: &mut Progress) -> bool {
    // Empty pages go back as a whole.
    if page.used() == 0 || page::is_full(page) || !page::may_have_holes(page) {
        return false;
    }
    let live = page.used() + 1;
    let seen = page.seen.get();
    if seen == live | DONE {
        return false;
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
        return false;
    }
    if progress.budget == 0 {
        page.seen.set(live | READY);
        progress.leave_rest();
        return false;
    }
    // SAFETY: pages are the caller's, who is inside the gate or visits.
    let bytes = unsafe { page::purge_holes(page) };
    page.seen.set(live | DONE);
    progress.gave(bytes);
    true
}
