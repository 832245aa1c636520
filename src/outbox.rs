//! Blocks on their way to the heaps that own them.
//!
//! A thread that frees blocks of other heaps collects them in chains, one per page, without any atomic write, and sends
//! a chain when it is long, when its place is needed, or at a look at the clock after the end of a period: one compare-and-swap per chain. The idea of batching remote frees per
//! slab is snmalloc's ("BatchIt", release 0.7).

use core::cell::Cell;
use core::ptr;

use crate::header::{Block, PageHeader};
use crate::heap::Heap;
use crate::remote::Chain;
use crate::space::{self, PAGE_SIZE};
use crate::sync::Ordering;

/// Chains a thread collects at the same time: a request frees blocks of many sizes, each of a page of its own.
const PLACES: usize = 64;
/// Blocks after which a chain is sent.
const LONGEST: u32 = 64;
/// Bytes after which a chain is sent: what a thread that frees and then sleeps keeps from others is at most
/// `PLACES` times this.
const HEAVIEST: u32 = 8 << 10;

/// Chains that belong to one thread.
pub(crate) struct Outbox {
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

    /// Adds a freed block of `page` to the chain of that page, if there is one: then it is a slab page of another heap and keeps its
    /// use, which nobody needs to look up. Returns whether there is. `link` and `block` are as in
    /// [`Bins::push`](crate::bins::Bins::push).
    ///
    /// # Safety
    ///
    /// `block` must be a block of the page that is handed out and not used any more.
    #[inline]
    pub(crate) unsafe fn join(&self, page: &PageHeader, link: *mut Block, block: *mut u8) -> bool {
        let place = self.place_of(page);
        if !ptr::eq(place.page.get(), page) {
            return false;
        }
        // SAFETY: passed on.
        unsafe { place.add(link, block) };
        true
    }

    /// Adds a freed block of `page`, a slab page of another heap, of which there is no chain. As [`Outbox::join`] otherwise.
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn begin(&self, page: &'static PageHeader, link: *mut Block, block: *mut u8) {
        let place = self.place_of(page);
        place.send();
        place.page.set(page);
        place.head.set(ptr::null_mut());
        place.tail.set(block.cast());
        place.count.set(0);
        let heavy = HEAVIEST / page.block_size.load(Ordering::Relaxed).max(1);
        place.full.set(heavy.clamp(1, LONGEST) as u16);
        // SAFETY: passed on.
        unsafe { place.add(link, block) };
    }

    #[inline]
    fn place_of(&self, page: &PageHeader) -> &Place {
        // Neighbouring pages fall into different places.
        &self.places[(page.address() / size_of::<PageHeader>()) % PLACES]
    }

    /// Sends everything.
    pub(crate) fn flush(&self) {
        self.places.iter().for_each(Place::send);
    }
}

impl Place {
    /// Adds a block to the chain, and sends it when it is long.
    ///
    /// # Safety
    ///
    /// As [`Outbox::join`]; the chain must be of the block's page.
    #[inline]
    unsafe fn add(&self, link: *mut Block, block: *mut u8) {
        // SAFETY: a block has at least 8 bytes, aligned to 8, and by contract nobody uses it.
        unsafe { (*link).next = self.head.get() };
        self.head.set(block.cast());
        let count = self.count.get() + 1;
        self.count.set(count);
        if count == self.full.get() {
            self.send();
        }
    }

    #[cold]
    #[inline(never)]
    fn send(&self) {
        // SAFETY: a page with a block on its way keeps its use.
        let Some(page) = (unsafe { self.page.replace(ptr::null()).as_ref() }) else { return };
        // SAFETY: the chain has `count` blocks of the page, linked, from head to tail.
        unsafe { send(page, self.head.get(), self.tail.get(), self.count.get()) };
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
    let owner = page.owner.load(Ordering::Relaxed);
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
