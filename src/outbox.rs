//! Blocks on their way to the heaps that own them.
//!
//! A thread that frees blocks of other heaps collects them in chains, one per page, without any atomic write, and sends
//! a chain when it is long or its place is needed: one compare-and-swap per chain. The idea of batching remote frees per
//! slab is snmalloc's ("BatchIt", release 0.7).

use core::cell::Cell;
use core::ptr;

use crate::header::{Block, PageHeader};
use crate::heap::Heap;
use crate::remote::Chain;
use crate::space::{self, PAGE_SIZE};
use crate::sync::Ordering;

/// Chains a thread collects at the same time.
const PLACES: usize = 16;
/// Blocks after which a chain is sent.
const LONGEST: u32 = 64;
/// Bytes after which a chain is sent: what a thread that frees and then sleeps keeps from others is at most
/// `PLACES` times this.
const HEAVIEST: u32 = 4 << 10;

/// Chains that belong to one thread.
pub(crate) struct Outbox {
    /// The page of the block added last, if its chain is still here.
    last: Cell<*const PageHeader>,
    places: [Place; PLACES],
}

/// A chain of blocks of one page, empty if there is no page.
struct Place {
    page: Cell<*const PageHeader>,
    head: Cell<*mut Block>,
    tail: Cell<*mut Block>,
    count: Cell<u16>,
    /// Blocks with which the chain is sent.
    full: Cell<u16>,
}

impl Outbox {
    pub(crate) const fn new() -> Outbox {
        Outbox {
            last: Cell::new(ptr::null()),
            places: [const {
                Place {
                    page: Cell::new(ptr::null()),
                    head: Cell::new(ptr::null_mut()),
                    tail: Cell::new(ptr::null_mut()),
                    count: Cell::new(0),
                    full: Cell::new(0),
                }
            }; PLACES],
        }
    }

    /// Whether the block added last is of `page` and still here. Then the page is a slab page and keeps its use, which need not be
    /// read from its header: the owner writes to that line all the time.
    #[inline]
    pub(crate) fn has_last(&self, page: &PageHeader) -> bool {
        ptr::eq(self.last.get(), page)
    }

    /// Adds a freed block of `page`, a slab page of another heap. `link` and `block` are as in [`page::push`](crate::page::push).
    ///
    /// # Safety
    ///
    /// `block` must be a block of the page that is handed out and not used any more.
    #[inline]
    pub(crate) unsafe fn add(&self, page: &'static PageHeader, link: *mut Block, block: *mut u8) {
        // Neighbouring pages fall into different places.
        let place = &self.places[(page.address() / size_of::<PageHeader>()) % PLACES];
        if !ptr::eq(place.page.get(), page) {
            self.begin(place, page, block);
        }
        self.last.set(page);
        // SAFETY: a block has at least 8 bytes, aligned to 8, and by contract nobody uses it.
        unsafe { (*link).next = place.head.get() };
        place.head.set(block.cast());
        place.count.set(place.count.get() + 1);
        if place.count.get() == place.full.get() {
            self.send(place);
        }
    }

    /// Begins an empty chain of `page`, whose last block will be `tail`.
    #[cold]
    fn begin(&self, place: &Place, page: &'static PageHeader, tail: *mut u8) {
        self.send(place);
        place.page.set(page);
        place.head.set(ptr::null_mut());
        place.tail.set(tail.cast());
        place.count.set(0);
        let heavy = HEAVIEST / page.block_size.load(Ordering::Relaxed).max(1);
        place.full.set(heavy.clamp(1, LONGEST) as u16);
    }

    fn send(&self, place: &Place) {
        // SAFETY: a page with a block on its way keeps its use.
        let Some(page) = (unsafe { place.page.replace(ptr::null()).as_ref() }) else { return };
        if self.has_last(page) {
            self.last.set(ptr::null());
        }
        // SAFETY: the chain has `count` blocks of the page, linked, from head to tail.
        unsafe { send(page, place.head.get(), place.tail.get(), place.count.get()) };
    }

    /// Sends everything.
    pub(crate) fn flush(&self) {
        self.places.iter().for_each(|place| self.send(place));
    }
}

/// Hands a chain of freed blocks to the heap that owns their page.
///
/// # Safety
///
/// The chain must consist of `count` blocks of the slab page `page` that are handed out and not used any more, linked
/// from `head` to `tail`.
pub(crate) unsafe fn send(page: &'static PageHeader, head: *mut Block, tail: *mut Block, count: u16) {
    let head = (head.addr() & (PAGE_SIZE - 1)) / 8;
    let start = space::start_of(page);
    // The page keeps its owner at least until its blocks have arrived.
    let owner = page.owner.load(Ordering::Relaxed) & !PageHeader::FLAGS;
    let first = page.remote.frees.push(Chain { head: head as u16, count }, |behind| {
        let next = behind.map_or(ptr::null_mut(), |index| start.wrapping_add(usize::from(index) * 8).cast());
        // SAFETY: the tail is a free block that only this thread knows so far.
        unsafe { (*tail).next = next };
    });
    if first {
        // SAFETY: owners of slab pages are heaps, which live for ever.
        let heap: &'static Heap = unsafe { &*space::at(owner).cast::<Heap>() };
        heap.post(page);
    }
}
