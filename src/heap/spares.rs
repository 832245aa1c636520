//! The stock of empty pages of a heap.

use core::ptr;

use super::Heap;
use crate::header::{Kind, NO_OWNER, PageHeader};
use crate::scavenge;
use crate::space;
use crate::sync::{AtomicUsize, Ordering};

/// Empty pages a heap keeps: 2 MiB. Above that half of them go back to the space.
const SPARES_MAX: usize = 32;

/// Pages that a heap takes back before it looks how many spare ones it did not need meanwhile.
const SPARE_TURNS: u32 = 64;

/// Pages without memory that a heap takes before it looks for some that sleeping threads keep: 1 MiB.
pub(crate) const FRESH_TURNS: usize = 16;

/// Pages per slab: how many a heap takes from the space at once.
static SLAB_PAGES: AtomicUsize = AtomicUsize::new(crate::config::DEFAULT_SLAB_SIZE >> space::PAGE_SHIFT);

/// Sets the slab size in bytes.
pub(crate) fn set_slab_size(bytes: usize) {
    SLAB_PAGES.store((bytes >> space::PAGE_SHIFT).max(1), Ordering::Relaxed);
}

impl Heap {
    /// An empty page for a new use. Only for the owner.
    pub(crate) fn take_page(&self) -> Option<&'static PageHeader> {
        let _inside = self.gate.enter();
        // SAFETY: spare pages are headers of the table that this heap owns.
        if let Some(page) = unsafe { self.spares.get().as_ref() } {
            self.spares.set(page.next.get());
            let left = self.spare_count.get() - 1;
            self.spare_count.set(left);
            self.spare_low.set(self.spare_low.get().min(left));
            page.light.set(false);
            return Some(page);
        }
        let wanted = SLAB_PAGES.load(Ordering::Relaxed);
        let (first, count, fresh) = space::alloc_spares(wanted).or_else(|| {
            // The space is used up: what the heap keeps for other classes may help.
            // SAFETY: only the owner calls this.
            unsafe { self.release_unused() };
            space::alloc_spares(1)
        })?;
        self.counters.slabs.add(1);
        self.spares.set(first.next.get());
        self.spare_count.set(count - 1);
        self.spare_low.set(0);
        if fresh > 0 {
            self.grown(fresh);
        }
        Some(first)
    }

    /// An empty page for a class of which the heap has none, and that may need little of it. Only for the owner, inside the gate.
    pub(super) fn take_light_page(&self) -> Option<&'static PageHeader> {
        space::alloc_light().inspect(|_| self.counters.slabs.add(1)).or_else(|| self.take_page())
    }

    /// Counts pages for which the OS has to provide memory, and now and then looks for others, to be taken the next time.
    fn grown(&self, pages: usize) {
        let fresh = self.fresh.get() + pages;
        self.fresh.set(if fresh < FRESH_TURNS { fresh } else { 0 });
        if fresh >= FRESH_TURNS {
            scavenge::collect_for_sleepers(self);
        }
    }

    /// Takes back a page that is empty. Only for the owner.
    pub(crate) fn give_page(&self, page: &'static PageHeader) {
        let _inside = self.gate.enter();
        self.keep_spare(page);
    }

    /// [`Heap::give_page`], inside the gate.
    pub(super) fn keep_spare(&self, page: &'static PageHeader) {
        page.owner.store(NO_OWNER, Ordering::Relaxed);
        page.set_kind(Kind::Spare);
        page.next.set(self.spares.get());
        self.spares.set(page);
        self.spare_count.set(self.spare_count.get() + 1);
        self.spare_turns.set(self.spare_turns.get() + 1);
        if self.spare_count.get() > SPARES_MAX {
            self.trim_spares(SPARES_MAX / 2);
        } else if self.spare_turns.get() >= SPARE_TURNS {
            self.decay_spares();
        }
    }

    /// Returns half of the spare pages that were not needed lately, so that what is kept follows the need: the low-water mark of
    /// TCMalloc's thread caches (Ghemawat and Menage, "TCMalloc: Thread-Caching Malloc").
    #[cold]
    fn decay_spares(&self) {
        let unneeded = self.spare_low.get().min(self.spare_count.get());
        self.trim_spares(self.spare_count.get() - unneeded.div_ceil(2));
        self.spare_low.set(self.spare_count.get());
        self.spare_turns.set(0);
    }

    /// Returns all but `keep` spare pages, the least recently used ones, to the space.
    pub(super) fn trim_spares(&self, keep: usize) {
        if self.spare_count.get() > keep {
            space::free_spares(self.cut_spares(keep), false);
        }
    }

    /// Takes all but `keep` spare pages, the least recently used ones, out of the stock, as a list. There must be more.
    pub(super) fn cut_spares(&self, keep: usize) -> *const PageHeader {
        let mut link = &self.spares;
        for _ in 0..keep {
            // SAFETY: the list has more than `keep` members, headers that this heap owns.
            link = unsafe { &(*link.get()).next };
        }
        let rest = link.replace(ptr::null());
        self.spare_count.set(keep);
        self.spare_low.set(self.spare_low.get().min(keep));
        rest
    }
}
