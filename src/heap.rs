//! A heap: one thread's slab pages, the bins in front of them, its stock of empty pages, and its counters.
//!
//! Heaps are never destroyed. When a thread ends its heap is abandoned with everything in it, and the next new thread
//! adopts it whole; so the owner of a page never changes, only the thread behind the heap does. Who owns the heap is
//! decided by its [`Mailbox`]. The owner's fast path touches the
//! [bins](crate::bins) only; what it does beside that it does inside the heap's [`Gate`], so that [`visit`] may look after a heap whose owner sleeps.

mod learned;
mod pages;
mod spares;
mod visit;

pub(crate) use learned::UNLEARNED;
pub(crate) use spares::{FRESH_TURNS, set_slab_size};

use core::cell::Cell;
use core::ops::Range;
use core::ptr;

use crate::bins::{Bins, Row, SLOTS, class_of_slot, slot, slot_at};
use crate::gate::{Gate, Inside};
use crate::header::{Block, Kind, PageHeader};
use crate::mid;
use crate::page;
use crate::remote::Mailbox;
use crate::size_class::CLASSES;
use crate::space::{self, PAGE_SIZE};
use crate::stats::Counters;
use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::tenure::{KINDS, Tenure, Term};

/// Slow paths between two looks at the clock.
const TURNS: u32 = 32;

/// The slot of a page that belongs to a heap.
fn slot_of(page: &PageHeader) -> usize {
    slot_at(page.bin.load(Ordering::Relaxed))
}

/// Whether a block in a page, which is not in a chunk of the entered arena, may live for long, by where it is: of bigger blocks nobody knows.
/// Any thread may ask while the block is live.
#[inline]
pub(crate) fn is_long(page: &PageHeader) -> bool {
    match page.kind() {
        Kind::Slab => slot_of(page) < CLASSES,
        kind => kind == Kind::Chunk,
    }
}

/// One thread's pages.
///
/// For bins and pages each size class is there twice, once for each [`Term`]: a *slot*. A page is of one slot as long as a block of it is live.
///
/// Everything but `mailbox`, `collected`, `collected_seen`, `next_heap`, `gate` and the counters belongs to the owner. `current`,
/// `available`, `empty`, `heavy`, `short`, what is about spare pages and the pages themselves it touches inside the gate only, and there a visitor may, too. A page of a slot is in exactly one
/// place: `current`, the list `available` (it has free blocks or room to carve), or in none (full or asleep).
#[repr(C, align(128))]
pub(crate) struct Heap {
    /// Which sizes its thread's arenas leave to the slab, by their kind; [`UNLEARNED`] for kinds from which nothing has escaped.
    tenures: [Cell<*const Tenure>; KINDS],
    /// Free blocks of each slot, which is a class for a [`Term`], for the fast path.
    bins: Bins,
    /// Which period has ended when it was last looked through the bins.
    period: Cell<u32>,
    /// The page each slot takes blocks from; the static empty page if there is none.
    current: [Cell<*const PageHeader>; SLOTS],
    /// Other pages of the slot that are not full.
    available: [Cell<*const PageHeader>; SLOTS],
    /// The one page of the slot in `available` that is empty and kept for its next use; null if there is none.
    empty: [Cell<*const PageHeader>; SLOTS],
    /// Slots of small blocks, a bit each, that have needed much of a page they began with, and will not begin with a light one again.
    heavy: Cell<u128>,
    /// Whether there ever was a page for [`Term::Short`]: else the slots of that are as they were made.
    short: Cell<bool>,
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
            current: [const { Cell::new(&raw const EMPTY_PAGE) }; SLOTS],
            available: [const { Cell::new(ptr::null()) }; SLOTS],
            empty: [const { Cell::new(ptr::null()) }; SLOTS],
            heavy: Cell::new(0),
            short: Cell::new(false),
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

    /// The bins of a term, from which the owner of the heap may take blocks. Those of [`EMPTY_HEAP`] are empty.
    #[inline]
    pub(crate) const fn row(&self, term: Term) -> &Row {
        self.bins.row(term)
    }

    /// Takes a block of `class` for a term from its bin, or null.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, unless it is [`EMPTY_HEAP`].
    #[inline]
    pub(crate) unsafe fn alloc(&self, class: usize, term: Term) -> *mut u8 {
        // SAFETY: classes are below CLASSES by construction; the rest is passed on, and the bins of the empty heap are empty.
        unsafe { self.row(term).pop(class) }
    }

    /// Takes a block of `class` for a term, refilling its bin as needed. Null when there is no memory.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    #[cold]
    pub(crate) unsafe fn alloc_slow(&self, class: usize, term: Term) -> *mut u8 {
        // SAFETY: the caller owns the heap.
        let block = unsafe { self.alloc(class, term) };
        if !block.is_null() {
            return block;
        }
        let inside = self.gate.enter();
        // SAFETY: the caller owns the heap and so all its pages.
        unsafe {
            let Some(page) = self.page_with_blocks(&inside, slot(class, term)) else {
                // No memory: then the place of a block matters less than that there is one.
                return self.alloc_among_others(&inside, slot(class, term.other()));
            };
            let (first, count) = page::take(page);
            self.bins.fill(slot(class, term), (*first).next, count - 1);
            first.cast()
        }
    }

    /// Takes a block of a slot for another term than its own, if any is free. For when there is no memory: all that the heap kept for later
    /// has been given back to the pages then.
    ///
    /// # Safety
    ///
    /// As [`Heap::alloc_slow`].
    #[cold]
    unsafe fn alloc_among_others(&self, inside: &Inside, slot: usize) -> *mut u8 {
        if self.available[slot].get().is_null() {
            return ptr::null_mut();
        }
        // SAFETY: the caller owns the heap and so all its pages.
        unsafe {
            self.page_with_blocks(inside, slot).map_or(ptr::null_mut(), |page| page::take_one(page).cast())
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
            let block = match self.page_with_blocks(&inside, slot(class, Term::Long)) {
                Some(page) => page::take_one(page).cast(),
                None => self.alloc_among_others(&inside, slot(class, Term::Short)),
            };
            self.retire_current(slot(class, Term::Long));
            self.retire_current(slot(class, Term::Short));
            // What came from other threads meanwhile may have emptied pages of any slot.
            self.slots().for_each(|slot| self.give_empty(slot));
            self.trim_spares(0);
            block
        }
    }

    /// Takes a freed block of `page` into the bin of its slot. Returns whether that has too many then, and [`Heap::overflow`] is to be called.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, the page must belong to it, and `block` must be a block of it that is handed out and not used any more.
    /// `link` is from [`page::link_pointer`].
    #[inline]
    pub(crate) unsafe fn free(&self, page: &PageHeader, link: *mut Block, block: *mut u8) -> bool {
        // SAFETY: the page's offset is that of its slot; the rest is passed on.
        unsafe { self.bins.push(page.bin.load(Ordering::Relaxed), link, block) }
    }

    /// Returns the older blocks of the bin of the slot of `page` to their pages.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    pub(crate) unsafe fn overflow(&self, page: &PageHeader) {
        let inside = self.gate.enter();
        // SAFETY: passed on.
        unsafe {
            let slot = slot_of(page);
            self.put_back(&inside, slot, self.bins.give_up(slot, false));
        }
    }

    /// Returns a list of blocks of a slot to their pages.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, and have the blocks from the bin of the slot.
    unsafe fn put_back(&self, _inside: &Inside, slot: usize, list: *mut Block) {
        let capacity = page::CAPACITY[class_of_slot(slot)];
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
                while first.addr() ^ next.addr() < PAGE_SIZE && count < capacity {
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
                self.settle(page, slot);
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
        for slot in self.slots() {
            // SAFETY: passed on.
            unsafe { self.put_back(&inside, slot, self.bins.end_period(slot)) };
        }
    }

    /// The slots that may have pages. Only inside the gate, or for the owner.
    fn slots(&self) -> Range<usize> {
        0..if self.short.get() { SLOTS } else { CLASSES }
    }

    /// Goes inside the gate, for what [`mid`] does with the cache of this heap. Only for the owner.
    #[inline]
    pub(crate) fn go_inside(&self) -> Inside<'_> {
        self.gate.enter()
    }

    /// Blocks in the bins, with their class. Any thread may ask.
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
                self.settle(page, slot_of(page));
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
        self.slots().for_each(|slot| self.give_empty(slot));
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
        for slot in self.slots() {
            // SAFETY: as above; a kept page is a header of this heap.
            unsafe {
                self.put_back(&inside, slot, self.bins.give_up(slot, true));
                self.retire_current(slot);
                self.give_empty(slot);
            }
        }
        self.trim_spares(0);
        mid::clear(&self.mid);
    }
}
