//! The pages of a heap: which one a slot takes blocks from, and where the others are.

use core::ptr;

use super::{EMPTY_PAGE, Heap};
use crate::bins::{bin_offset, class_of_slot};
use crate::gate::Inside;
use crate::header::PageHeader;
use crate::page;
use crate::size_class::{self, CLASSES};
use crate::sync::Ordering;

/// Blocks up to this size in bytes are so many in a page that a class may need little of it.
const LIGHT_BLOCK_MAX: usize = 256;

/// Bits of [`Heap::heavy`] for each term.
const HEAVY_BITS: usize = 64;

const _: () =
    assert!(size_class::size_of_class(HEAVY_BITS) > LIGHT_BLOCK_MAX, "`Heap::heavy` has a bit for each");

/// The bit in [`Heap::heavy`] of a slot of blocks of at most [`LIGHT_BLOCK_MAX`].
const fn heavy_bit(slot: usize) -> u128 {
    1 << if slot < CLASSES { slot } else { slot - CLASSES + HEAVY_BITS }
}

impl Heap {
    /// The current page of a slot, or the next one, with blocks in its free list. `None` when there is no memory.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    pub(super) unsafe fn page_with_blocks(
        &self,
        inside: &Inside,
        slot: usize,
    ) -> Option<&'static PageHeader> {
        // SAFETY: the caller owns the heap and so all its pages, throughout.
        unsafe {
            self.drain(inside);
            let page: &'static PageHeader = &*self.current[slot].get();
            // A visitor that saw as many live blocks before has not seen these.
            if !page.free.get().is_null() || self.carve(page, slot) {
                page.seen.set(0);
                return Some(page);
            }
            let begins = ptr::eq(page, &raw const EMPTY_PAGE);
            self.retire_current(slot);
            // The one that was listed last: choosing the fullest of a few costs more than it saves in memory.
            let page = match self.available[slot].get().as_ref() {
                Some(page) => {
                    self.unlink(page, slot);
                    page
                }
                None => {
                    let class = class_of_slot(slot);
                    let light = begins
                        && size_class::size_of_class(class) <= LIGHT_BLOCK_MAX
                        && self.heavy.get() & heavy_bit(slot) == 0;
                    let page = if light { self.take_light_page() } else { self.take_page() }?;
                    page::init(page, class, self.address(), bin_offset(slot));
                    self.short.set(self.short.get() || slot >= CLASSES);
                    page
                }
            };
            page.current.store(1, Ordering::Relaxed);
            page.seen.set(0);
            self.current[slot].set(page);
            if page.free.get().is_null() && !self.carve(page, slot) {
                crate::invariant::fatal("a page that is not full has no block");
            }
            Some(page)
        }
    }

    /// Carves more blocks from a page of a slot, whose free list is empty; learns whether the slot needs much of it.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, and be inside its gate.
    unsafe fn carve(&self, page: &PageHeader, slot: usize) -> bool {
        let light = page.light.get();
        // SAFETY: passed on; the heap owns the page.
        let carved = unsafe { page::carve(page) };
        if light && !page.light.get() {
            self.heavy.set(self.heavy.get() | heavy_bit(slot));
        }
        carved
    }

    /// Files a page by the number of its live blocks, after some were freed or it ceased to be current.
    ///
    /// # Safety
    ///
    /// The caller must own the heap and be inside its gate, or visit it, and the page must belong to it.
    pub(super) unsafe fn settle(&self, page: &'static PageHeader, slot: usize) {
        if page.current.load(Ordering::Relaxed) != 0 {
            return;
        }
        if !page.listed.get() && page::is_awake(page) {
            self.link(page, slot);
        }
        // One empty page stays with its slot, because carving a page anew costs as much as using it.
        if page.used() == 0 && !ptr::eq(self.empty[slot].get(), page) {
            if self.empty[slot].get().is_null() {
                self.empty[slot].set(page);
            } else {
                self.unlink(page, slot);
                self.keep_spare(page);
            }
        }
    }

    /// Gives the empty page away that the slot keeps, if it does.
    pub(super) fn give_empty(&self, slot: usize) {
        // SAFETY: a kept page is a page of this heap.
        if let Some(page) = unsafe { self.empty[slot].get().as_ref() } {
            self.unlink(page, slot);
            self.keep_spare(page);
        }
    }

    /// Makes the page a slot takes blocks from an ordinary one.
    ///
    /// # Safety
    ///
    /// The caller must own the heap and be inside its gate, or visit it.
    pub(super) unsafe fn retire_current(&self, slot: usize) {
        // SAFETY: current pages are never null.
        let page: &'static PageHeader = unsafe { &*self.current[slot].get() };
        if ptr::eq(page, &raw const EMPTY_PAGE) {
            return;
        }
        self.current[slot].set(&raw const EMPTY_PAGE);
        page.current.store(0, Ordering::Relaxed);
        // A page that has blocks is listed, however few.
        if !page::is_full(page) {
            self.link(page, slot);
        }
        // SAFETY: passed on.
        unsafe { self.settle(page, slot) };
    }

    fn link(&self, page: &'static PageHeader, slot: usize) {
        let head = self.available[slot].get();
        page.prev.set(ptr::null());
        page.next.set(head);
        // SAFETY: list members are headers of pages of this heap.
        if let Some(head) = unsafe { head.as_ref() } {
            head.prev.set(page);
        }
        self.available[slot].set(page);
        page.listed.set(true);
    }

    pub(super) fn unlink(&self, page: &PageHeader, slot: usize) {
        page.listed.set(false);
        if ptr::eq(self.empty[slot].get(), page) {
            self.empty[slot].set(ptr::null());
        }
        let (prev, next) = (page.prev.get(), page.next.get());
        // SAFETY: list members are headers of pages of this heap.
        match unsafe { prev.as_ref() } {
            Some(prev) => prev.next.set(next),
            None => self.available[slot].set(next),
        }
        // SAFETY: as above.
        if let Some(next) = unsafe { next.as_ref() } {
            next.prev.set(prev);
        }
    }
}
