//! A heap: one thread's slab pages, the bins in front of them, its stock of empty pages, and its counters.
//!
//! Heaps are never destroyed. When a thread ends its heap is abandoned with everything in it, and the next new thread
//! adopts it whole; so the owner of a page never changes, only the thread behind the heap does. Who owns the heap is
//! decided by its [`Mailbox`]. The owner's fast path touches the
//! [bins](crate::bins) only; what it does beside that it does inside the heap's [`Gate`], so that [`visit`] may look after a heap whose owner sleeps.

mod learned;
mod spares;
mod visit;

pub(crate) use learned::UNLEARNED;
pub(crate) use spares::{FRESH_TURNS, set_slab_size};

use core::cell::Cell;
use core::ptr;

use crate::bins::{Bins, bin_offset};
use crate::gate::{Gate, Inside};
use crate::header::{Block, PageHeader};
use crate::mid;
use crate::page;
use crate::remote::Mailbox;
use crate::size_class::{self, CLASSES};
use crate::space::{self, PAGE_SIZE};
use crate::stats::Counters;
use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::tenure::{KINDS, Tenure};

/// Blocks up to this size in bytes are so many in a page that a class may need little of it.
const LIGHT_BLOCK_MAX: usize = 256;

const _: () = assert!(CLASSES <= u128::BITS as usize, "`Heap::heavy` has a bit for each");

/// Slow paths between two looks at the clock.
const TURNS: u32 = 32;

/// One thread's pages.
///
/// Everything but `mailbox`, `collected`, `collected_seen`, `next_heap`, `gate` and the counters belongs to the owner. `current`,
/// `available`, `empty`, `heavy`, what is about spare pages and the pages themselves it touches inside the gate only, and there a visitor may, too. A page of a class is in exactly one
/// place: `current`, the list `available` (it has free blocks or room to carve), or in none (full or asleep).
#[repr(C, align(128))]
pub(crate) struct Heap {
    /// Which sizes its thread's arenas leave to the slab, by their kind; [`UNLEARNED`] for kinds from which nothing has escaped.
    tenures: [Cell<*const Tenure>; KINDS],
    /// Free blocks of each class for the fast path.
    bins: Bins,
    /// Which period has ended when it was last looked through the bins.
    period: Cell<u32>,
    /// The page each class takes blocks from; the static empty page if there is none.
    current: [Cell<*const PageHeader>; CLASSES],
    /// Other pages of the class that are not full.
    available: [Cell<*const PageHeader>; CLASSES],
    /// The one page of the class in `available` that is empty and kept for its next use; null if there is none.
    empty: [Cell<*const PageHeader>; CLASSES],
    /// Classes, a bit each, that have needed much of a page they began with, and will not begin with a light one again.
    heavy: Cell<u128>,
    /// Empty pages, last used first.
    spares: Cell<*const PageHeader>,
    spare_count: Cell<usize>,
    /// Fewest spare pages since [`Heap::decay_spares`] last looked: pages that nobody needed. And pages taken back since then.
    spare_low: Cell<usize>,
    spare_turns: Cell<u32>,
    /// Pages without memory taken since [`Heap::grown`] last looked for others.
    fresh: Cell<usize>,
    /// Counts slow paths; see [`Heap::turn`].
    turns: Cell<u32>,
    /// Arena records that are not in use; see `chunk.rs`.
    pub(crate) arenas: Cell<*const crate::chunk::Arena>,
    pub(crate) arena_count: Cell<usize>,
    /// Position in the registry, from 0: spreads threads over the mid-size heaps.
    pub(crate) index: usize,
    /// Mid-size blocks for its thread's next requests.
    pub(crate) mid: mid::Cache,
    pub(crate) counters: Counters,
    /// The next heap in the registry; set once.
    next_heap: AtomicPtr<Heap>,
    /// Written by other threads.
    mailbox: MailboxLine,
    /// Counts how often the owner has emptied the mailbox, and the count that [`Heap::collect_for_sleeper`] saw last.
    collected: AtomicU32,
    collected_seen: AtomicU32,
    gate: Gate,
}

#[repr(align(128))]
struct MailboxLine(Mailbox);

// SAFETY: the `Cell` fields are touched by the thread that owns the heap, and some of them by a visitor, while both are kept apart by
// the gate; ownership passes through the mailbox.
unsafe impl Sync for Heap {}

static EMPTY_PAGE: PageHeader = PageHeader::empty();

/// The heap of a thread that has none: every bin is empty, so every allocation takes the slow path. Never written.
pub(crate) static EMPTY_HEAP: Heap = Heap::new(0);

/// All heaps, newest first.
static HEAPS: AtomicPtr<Heap> = AtomicPtr::new(ptr::null_mut());
static HEAP_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Iterates over all heaps, owned or not.
pub(crate) fn all() -> impl Iterator<Item = &'static Heap> {
    let mut next = HEAPS.load(Ordering::Acquire);
    core::iter::from_fn(move || {
        // SAFETY: heaps in the registry are initialised and live for ever.
        let heap = unsafe { next.as_ref() }?;
        next = heap.next_heap.load(Ordering::Relaxed);
        Some(heap)
    })
}

/// Takes ownership of an abandoned heap, or makes a new one. `None` when there is no memory for it.
pub(crate) fn adopt() -> Option<&'static Heap> {
    if let Some(heap) = all().find(|heap| heap.try_claim()) {
        return Some(heap);
    }
    let record = space::alloc_record(size_of::<Heap>()).cast::<Heap>();
    if record.is_null() {
        return None;
    }
    // SAFETY: the record is big and aligned enough, lives for ever, and nobody else has it.
    let heap: &'static Heap = unsafe {
        record.write(Heap::new(HEAP_COUNT.fetch_add(1, Ordering::Relaxed)));
        &*record
    };
    let mut head = HEAPS.load(Ordering::Relaxed);
    loop {
        heap.next_heap.store(head, Ordering::Relaxed);
        match HEAPS.compare_exchange_weak(head, record, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return Some(heap),
            Err(now) => head = now,
        }
    }
}

impl Heap {
    const fn new(index: usize) -> Heap {
        Heap {
            tenures: [const { Cell::new(&raw const UNLEARNED.0) }; KINDS],
            bins: Bins::new(),
            period: Cell::new(0),
            current: [const { Cell::new(&raw const EMPTY_PAGE) }; CLASSES],
            available: [const { Cell::new(ptr::null()) }; CLASSES],
            empty: [const { Cell::new(ptr::null()) }; CLASSES],
            heavy: Cell::new(0),
            spares: Cell::new(ptr::null()),
            spare_count: Cell::new(0),
            spare_low: Cell::new(0),
            spare_turns: Cell::new(0),
            fresh: Cell::new(0),
            turns: Cell::new(0),
            arenas: Cell::new(ptr::null()),
            arena_count: Cell::new(0),
            index,
            mid: mid::Cache::new(),
            counters: Counters::new(),
            next_heap: AtomicPtr::new(ptr::null_mut()),
            mailbox: MailboxLine(Mailbox::new()),
            collected: AtomicU32::new(0),
            collected_seen: AtomicU32::new(0),
            gate: Gate::new(),
        }
    }

    /// Address of this heap, as `owner` words hold it.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Whether this is the heap of threads that have none.
    #[inline]
    pub(crate) fn is_empty_heap(&self) -> bool {
        ptr::eq(self, &raw const EMPTY_HEAP)
    }

    /// Takes a block of `class` from its bin, or null.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, unless it is [`EMPTY_HEAP`].
    #[inline]
    pub(crate) unsafe fn alloc(&self, class: usize) -> *mut u8 {
        // SAFETY: classes are below CLASSES by construction; the rest is passed on, and the bins of the empty heap are empty.
        unsafe { self.bins.pop(class) }
    }

    /// Takes a block of `class`, refilling its bin as needed. Null when there is no memory.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    #[cold]
    pub(crate) unsafe fn alloc_slow(&self, class: usize) -> *mut u8 {
        // SAFETY: the caller owns the heap.
        let block = unsafe { self.alloc(class) };
        if !block.is_null() {
            return block;
        }
        let inside = self.gate.enter();
        // SAFETY: the caller owns the heap and so all its pages.
        unsafe {
            let Some(page) = self.page_with_blocks(&inside, class) else { return ptr::null_mut() };
            let (first, count) = page::take(page);
            self.bins.fill(class, (*first).next, count - 1);
            first.cast()
        }
    }

    /// Takes a block of `class` and leaves the heap prepared for having no owner, as it must be: for a thread that borrows it for one
    /// call. Null when there is no memory.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    pub(crate) unsafe fn alloc_one(&self, class: usize) -> *mut u8 {
        let inside = self.gate.enter();
        // SAFETY: the caller owns the heap and so all its pages.
        unsafe {
            let page = self.page_with_blocks(&inside, class);
            let block = page.map_or(ptr::null_mut(), |page| page::take_one(page).cast());
            self.retire_current(class);
            self.give_empty(class);
            self.trim_spares(0);
            block
        }
    }

    /// The current page of `class`, or the next one, with blocks in its free list. `None` when there is no memory.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    unsafe fn page_with_blocks(&self, inside: &Inside, class: usize) -> Option<&'static PageHeader> {
        // SAFETY: the caller owns the heap and so all its pages, throughout.
        unsafe {
            self.drain(inside);
            let page: &'static PageHeader = &*self.current[class].get();
            // A visitor that saw as many live blocks before has not seen these.
            if !page.free.get().is_null() || self.carve(page, class) {
                page.seen.set(0);
                return Some(page);
            }
            let begins = ptr::eq(page, &raw const EMPTY_PAGE);
            self.retire_current(class);
            // The one that was listed last: choosing the fullest of a few costs more than it saves in memory.
            let page = match self.available[class].get().as_ref() {
                Some(page) => {
                    self.unlink(page, class);
                    page
                }
                None => {
                    let light = begins
                        && size_class::size_of_class(class) <= LIGHT_BLOCK_MAX
                        && self.heavy.get() & 1 << class == 0;
                    let page = if light { self.take_light_page() } else { self.take_page() }?;
                    page::init(page, class, self.address(), bin_offset(class));
                    page
                }
            };
            page.current.store(1, Ordering::Relaxed);
            page.seen.set(0);
            self.current[class].set(page);
            if page.free.get().is_null() && !self.carve(page, class) {
                crate::invariant::fatal("a page that is not full has no block");
            }
            Some(page)
        }
    }

    /// Carves more blocks from a page of `class`, whose free list is empty; learns whether the class needs much of it.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, and be inside its gate.
    unsafe fn carve(&self, page: &PageHeader, class: usize) -> bool {
        let light = page.light.get();
        // SAFETY: passed on; the heap owns the page.
        let carved = unsafe { page::carve(page) };
        if light && !page.light.get() {
            self.heavy.set(self.heavy.get() | 1 << class);
        }
        carved
    }

    /// Takes a freed block of `page` into the bin of its class. Returns whether that has too many then, and [`Heap::overflow`] is to be called.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, the page must belong to it, and `block` must be a block of it that is handed out and not used any more.
    /// `link` is from [`page::link_pointer`].
    #[inline]
    pub(crate) unsafe fn free(&self, page: &PageHeader, link: *mut Block, block: *mut u8) -> bool {
        // SAFETY: the page's offset is that of its class; the rest is passed on.
        unsafe { self.bins.push(page.bin.load(Ordering::Relaxed), link, block) }
    }

    /// Returns the older blocks of the bin of the class of `page` to their pages.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    pub(crate) unsafe fn overflow(&self, page: &PageHeader) {
        let inside = self.gate.enter();
        // SAFETY: passed on.
        unsafe {
            let class = page::class(page);
            self.put_back(&inside, class, self.bins.give_up(class, false));
        }
    }

    /// Returns a list of blocks of a class to their pages.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, and have the blocks from the bin of the class.
    unsafe fn put_back(&self, _inside: &Inside, class: usize, list: *mut Block) {
        // SAFETY: the caller owns the heap. Blocks of a bin are unused, begin with their link, and lie in pages of the heap.
        unsafe {
            let mut next = list;
            while !next.is_null() {
                let first = next;
                let Some(page) = space::header_of(first.cast()) else {
                    crate::invariant::fatal("a bin has a block of no page")
                };
                // Neighbours in the list are of one page mostly: linked as they are they go back together.
                let (mut last, mut count) = (first, 1);
                next = (*first).next;
                while first.addr() ^ next.addr() < PAGE_SIZE && count < page::CAPACITY[class] {
                    last = next;
                    next = (*last).next;
                    count += 1;
                }
                if first.addr() ^ next.addr() < PAGE_SIZE {
                    crate::invariant::fatal(
                        "a bin has more blocks of a page than the page has: one was freed twice",
                    );
                }
                page::push(page, first, last, count);
                self.settle(page, class);
            }
        }
    }

    /// Returns what bins have that was not used during a period, if `period`, a count, says that one has ended, and whether it does.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    #[inline]
    pub(crate) unsafe fn end_period(&self, period: u32) -> bool {
        let ended = self.period.replace(period) != period;
        if ended {
            // SAFETY: passed on.
            unsafe { self.give_up_unused() };
        }
        ended
    }

    /// # Safety
    ///
    /// As [`Heap::end_period`].
    #[cold]
    unsafe fn give_up_unused(&self) {
        let inside = self.gate.enter();
        for class in 0..CLASSES {
            // SAFETY: passed on.
            unsafe { self.put_back(&inside, class, self.bins.end_period(class)) };
        }
    }

    /// Files a page by the number of its live blocks, after some were freed or it ceased to be current.
    ///
    /// # Safety
    ///
    /// The caller must own the heap and be inside its gate, or visit it, and the page must belong to it.
    unsafe fn settle(&self, page: &'static PageHeader, class: usize) {
        if page.current.load(Ordering::Relaxed) != 0 {
            return;
        }
        if !page.listed.get() && page::is_awake(page) {
            self.link(page, class);
        }
        // One empty page stays with its class, because carving a page anew costs as much as using it.
        if page.used() == 0 && !ptr::eq(self.empty[class].get(), page) {
            if self.empty[class].get().is_null() {
                self.empty[class].set(page);
            } else {
                self.unlink(page, class);
                self.keep_spare(page);
            }
        }
    }

    /// Gives the empty page away that the class keeps, if it does.
    fn give_empty(&self, class: usize) {
        // SAFETY: a kept page is a page of this heap.
        if let Some(page) = unsafe { self.empty[class].get().as_ref() } {
            self.unlink(page, class);
            self.keep_spare(page);
        }
    }

    /// Makes the page a class takes blocks from an ordinary one.
    ///
    /// # Safety
    ///
    /// The caller must own the heap and be inside its gate, or visit it.
    unsafe fn retire_current(&self, class: usize) {
        // SAFETY: current pages are never null.
        let page: &'static PageHeader = unsafe { &*self.current[class].get() };
        if ptr::eq(page, &raw const EMPTY_PAGE) {
            return;
        }
        self.current[class].set(&raw const EMPTY_PAGE);
        page.current.store(0, Ordering::Relaxed);
        // A page that has blocks is listed, however few.
        if !page::is_full(page) {
            self.link(page, class);
        }
        // SAFETY: passed on.
        unsafe { self.settle(page, class) };
    }

    fn link(&self, page: &'static PageHeader, class: usize) {
        let head = self.available[class].get();
        page.prev.set(ptr::null());
        page.next.set(head);
        // SAFETY: list members are headers of pages of this heap.
        if let Some(head) = unsafe { head.as_ref() } {
            head.prev.set(page);
        }
        self.available[class].set(page);
        page.listed.set(true);
    }

    fn unlink(&self, page: &PageHeader, class: usize) {
        page.listed.set(false);
        if ptr::eq(self.empty[class].get(), page) {
            self.empty[class].set(ptr::null());
        }
        let (prev, next) = (page.prev.get(), page.next.get());
        // SAFETY: list members are headers of pages of this heap.
        match unsafe { prev.as_ref() } {
            Some(prev) => prev.next.set(next),
            None => self.available[class].set(next),
        }
        // SAFETY: as above.
        if let Some(next) = unsafe { next.as_ref() } {
            next.prev.set(prev);
        }
    }

    /// Goes inside the gate, for what [`mid`] does with the cache of this heap. Only for the owner.
    #[inline]
    pub(crate) fn go_inside(&self) -> Inside<'_> {
        self.gate.enter()
    }

    /// Blocks of each class in the bins. Any thread may ask.
    pub(crate) fn binned(&self) -> impl Iterator<Item = (usize, u64)> {
        self.bins.counts()
    }

    /// Whether it is time to look at the clock. Only for the owner.
    #[inline]
    pub(crate) fn turn(&self) -> bool {
        self.turns.set(self.turns.get().wrapping_add(1));
        self.turns.get().is_multiple_of(TURNS)
    }

    /// Collects what other threads have freed.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    #[inline]
    unsafe fn drain(&self, inside: &Inside) {
        if !self.mailbox.0.is_empty() {
            self.collected.store(self.collected.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            // SAFETY: passed on.
            unsafe { self.collect(inside, self.mailbox.0.take()) }
        }
    }

    /// Collects the remote frees of a list of pages taken from the mailbox.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    #[cold]
    unsafe fn collect(&self, _inside: &Inside, mut list: usize) {
        while list != 0 {
            // SAFETY: mailboxes hold addresses of headers, whose pages have blocks handed out and so keep their use.
            let page: &'static PageHeader = unsafe { &*space::at(list).cast::<PageHeader>() };
            list = page.remote.mail.next();
            let chain = page.remote.frees.take();
            // SAFETY: the caller owns the heap, the heap the page.
            unsafe {
                page::collect(page, chain);
                self.settle(page, page::class(page));
            }
        }
    }

    /// Tells the heap that its page has remote frees. Any thread may call this, once for each time that
    /// [`RemoteFrees::push`](crate::remote::RemoteFrees::push) said so.
    pub(crate) fn post(&'static self, page: &PageHeader) {
        if self.mailbox.0.post(page.address(), &page.remote.mail) && self.try_claim() {
            // Nobody else will collect: claiming has, and the pages that became empty go back.
            // SAFETY: the heap is this thread's.
            unsafe { self.release_collected() };
            self.abandon();
        }
    }

    /// Becomes the owner of an abandoned heap.
    fn try_claim(&self) -> bool {
        match self.mailbox.0.try_claim() {
            Some(list) => {
                // SAFETY: the heap is this thread's now.
                unsafe { self.collect(&self.gate.enter(), list) };
                true
            }
            None => false,
        }
    }

    /// Gives up ownership of a heap that is prepared for that. The caller must not touch the heap's plain fields afterwards.
    pub(crate) fn abandon(&self) {
        while !self.mailbox.0.try_abandon() {
            // SAFETY: the heap is still the caller's.
            unsafe { self.release_collected() };
        }
    }

    /// Returns what became empty in a heap that is prepared for having no owner, and collects what arrived meanwhile.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    unsafe fn release_collected(&self) {
        let inside = self.gate.enter();
        // SAFETY: passed on.
        unsafe { self.drain(&inside) };
        (0..CLASSES).for_each(|class| self.give_empty(class));
        self.trim_spares(0);
    }

    /// Prepares for having no owner: no bin has blocks and no page is current any more, so that each page goes back when its
    /// last block is freed, and the spare ones and mid-size blocks go back now.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    pub(crate) unsafe fn release_unused(&self) {
        let inside = self.gate.enter();
        // SAFETY: the caller owns the heap.
        unsafe { self.drain(&inside) };
        for class in 0..CLASSES {
            // SAFETY: as above; a kept page is a header of this heap.
            unsafe {
                self.put_back(&inside, class, self.bins.give_up(class, true));
                self.retire_current(class);
                self.give_empty(class);
            }
        }
        self.trim_spares(0);
        mid::clear(&self.mid);
    }
}
