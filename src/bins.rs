//! Bins: of each size class some free blocks that a thread takes from and puts to without looking at their pages.
//!
//! There are two for each class: blocks that may live for long and those of a request have pages of their own ([`Term`]).
//!
//! Last in, first out across all pages of the class and term: what was freed last is in the processor's caches. For their pages the blocks of a bin
//! are live, so nobody but the thread knows of them.

use core::cell::Cell;
use core::mem::offset_of;
use core::ptr;

use crate::header::Block;
use crate::page::CAPACITY;
use crate::size_class::{self, CLASSES};
use crate::sync::{AtomicI32, Ordering};
use crate::tenure::Term;

/// Bytes of freed blocks that a bin takes at first, and at least and at most so many blocks.
const FIRST_BYTES: usize = 8 << 10;
const FIRST_MIN: usize = 4;
const FIRST_MAX: usize = 256;

/// How many slots there are: size classes for a term, those for [`Term::Long`] first.
pub(crate) const SLOTS: usize = 2 * CLASSES;

/// Number, below [`SLOTS`], of a class for a term.
#[inline]
pub(crate) const fn slot(class: usize, term: Term) -> usize {
    class + term as usize * CLASSES
}

/// The class of a slot.
#[inline]
pub(crate) const fn class_of_slot(slot: usize) -> usize {
    if slot < CLASSES { slot } else { slot - CLASSES }
}

/// How many more blocks may at first be freed into the bin of each class than are allocated from it.
const FIRST: [u16; CLASSES] = {
    let mut first = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let blocks = FIRST_BYTES / size_class::size_of_class(class);
        first[class] = if blocks < FIRST_MIN {
            FIRST_MIN
        } else if blocks > FIRST_MAX {
            FIRST_MAX
        } else {
            blocks
        } as u16;
        class += 1;
    }
    first
};

/// The bin of one slot.
///
/// It belongs to the owner of the heap, and nobody else touches it; the atomic fields are so that statistics may look. There are `full` less
/// `room` blocks in it.
pub(crate) struct Bin {
    head: Cell<*mut Block>,
    /// How many more blocks may be freed than allocated before it gives some up.
    room: AtomicI32,
    full: AtomicI32,
}

/// What a bin's slow paths need to know.
pub(crate) struct Size {
    /// How many more blocks may be freed than allocated since the bin was filled.
    limit: Cell<u16>,
    /// How many were given up since then: if any, the limit is too low for how the class goes up and down.
    given: Cell<u16>,
    /// At the end of the last period: a block in the middle, and how many there were from it downwards.
    mark: Cell<*mut Block>,
    below: Cell<u16>,
}

/// Where among the bins of a heap that of a slot is, in bytes: a page knows it, so that a free has nothing to multiply.
pub(crate) const fn bin_offset(slot: usize) -> u32 {
    (offset_of!(Bins, bins) + slot * size_of::<Bin>()) as u32
}

/// The slot whose bin is at an offset.
pub(crate) const fn slot_at(offset: u32) -> usize {
    (offset as usize - offset_of!(Bins, bins)) / size_of::<Bin>()
}

/// The bins of all slots.
pub(crate) struct Bins {
    /// By term.
    bins: [Row; 2],
    sizes: [Size; SLOTS],
}

/// The bins of all classes for one term.
#[repr(transparent)]
pub(crate) struct Row([Bin; CLASSES]);

impl Row {
    /// Takes the block of `class` that was put in last, or null.
    ///
    /// # Safety
    ///
    /// `class` is below [`CLASSES`]. The caller must own the heap, unless the bin is empty.
    #[inline]
    pub(crate) unsafe fn pop(&self, class: usize) -> *mut u8 {
        // SAFETY: passed on.
        let bin = unsafe { self.0.get_unchecked(class) };
        let block = bin.head.get();
        if !block.is_null() {
            // SAFETY: blocks of a bin are unused and begin with their link.
            bin.head.set(unsafe { (*block).next });
            bin.room.store(bin.room.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        block.cast()
    }
}

impl Bins {
    /// Empty.
    pub(crate) const fn new() -> Bins {
        let mut bins = Bins {
            bins: [const { Row([const { Bin::new(0) }; CLASSES]) }; 2],
            sizes: [const { Size::new(0) }; SLOTS],
        };
        let mut slot = 1;
        while slot < SLOTS {
            let class = class_of_slot(slot);
            bins.bins[slot / CLASSES].0[class] = Bin::new(class);
            bins.sizes[slot] = Size::new(class);
            slot += 1;
        }
        bins
    }

    /// Those of a term.
    #[inline]
    pub(crate) const fn row(&self, term: Term) -> &Row {
        &self.bins[term as usize]
    }

    fn bin(&self, slot: usize) -> &Bin {
        &self.bins[slot / CLASSES].0[slot % CLASSES]
    }

    /// Puts a freed block into the bin at `offset`. Returns whether some have to be given up now. `link` is from
    /// [`link_pointer`](crate::page::link_pointer), `block` the same address with the reservation's provenance.
    ///
    /// # Safety
    ///
    /// `offset` is the [`bin_offset`] of the block's slot. The caller must own the heap, and `block` must be handed out and not used any more.
    #[inline]
    pub(crate) unsafe fn push(&self, offset: u32, link: *mut Block, block: *mut u8) -> bool {
        // SAFETY: passed on.
        let bin = unsafe { &*ptr::from_ref(self).byte_add(offset as usize).cast::<Bin>() };
        // SAFETY: a block has at least 8 bytes, aligned to 8, and by contract nobody uses it.
        unsafe { (*link).next = bin.head.get() };
        bin.head.set(block.cast());
        let room = bin.room.load(Ordering::Relaxed) - 1;
        bin.room.store(room, Ordering::Relaxed);
        room < 0
    }

    /// Fills an empty bin with a list of `count` blocks. If it gave blocks up since the last time it may hold twice as many from now on, up
    /// to a page's.
    pub(crate) fn fill(&self, slot: usize, list: *mut Block, count: u16) {
        let (bin, size) = (self.bin(slot), &self.sizes[slot]);
        if size.given.replace(0) > 0 {
            let class = class_of_slot(slot);
            size.limit.set(size.limit.get().saturating_mul(2).min(CAPACITY[class].max(FIRST[class])));
        }
        debug_assert!(bin.head.get().is_null());
        bin.set(list, size.limit.get(), count);
    }

    /// Takes the older half of the blocks out of a bin, or all; returns them as a list.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    pub(crate) unsafe fn give_up(&self, slot: usize, all: bool) -> *mut Block {
        let (bin, size) = (self.bin(slot), &self.sizes[slot]);
        let first = FIRST[class_of_slot(slot)];
        let held = bin.count();
        let keep = if all { 0 } else { held / 2 };
        let given = if all { 0 } else { size.given.get().saturating_add(held - keep) };
        size.given.set(given);
        if all {
            size.limit.set(first);
        } else if given > CAPACITY[class_of_slot(slot)] {
            // More than any bin may hold: perhaps blocks are freed for good, and those that stay in the bin keep as many OS pages.
            size.limit.set((size.limit.get() / 2).max(first));
        }
        // SAFETY: there are more than `keep` blocks, or none is kept.
        let rest = unsafe { bin.link(keep) }.replace(ptr::null_mut());
        // After some were given up, there is room for half as many as at first.
        bin.set(bin.head.get(), if all { size.limit.get() } else { size.limit.get() / 2 }, keep);
        rest
    }

    /// At the end of a period: takes out the blocks that nobody needed during it, and returns them as a list.
    ///
    /// These are those from the one down that was in the middle at the end of the last period, if that is still where it was. (It may have been
    /// taken and put back to the same place; then the bin finds out again what it needs.)
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    pub(crate) unsafe fn end_period(&self, slot: usize) -> *mut Block {
        let (bin, size) = (self.bin(slot), &self.sizes[slot]);
        size.given.set(0);
        let (held, below) = (bin.count(), size.below.get());
        let mut unneeded = ptr::null_mut();
        if below > 0 && below <= held {
            let keep = held - below;
            // SAFETY: there are `held` blocks, unused, each of which begins with its link.
            let link = unsafe { bin.link(keep) };
            if link.get() == size.mark.get() {
                unneeded = link.replace(ptr::null_mut());
                size.limit.set((size.limit.get() / 2).max(FIRST[class_of_slot(slot)]));
                bin.set(bin.head.get(), size.limit.get(), keep);
            }
        }
        let held = bin.count();
        // SAFETY: as above.
        size.mark.set(unsafe { bin.link(held / 2) }.get());
        size.below.set(held - held / 2);
        unneeded
    }

    /// Blocks in each bin, with their class. Any thread may ask.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        self.bins.iter().flat_map(|row| row.0.iter().map(|bin| u64::from(bin.count())).enumerate())
    }
}

impl Bin {
    const fn new(class: usize) -> Bin {
        let limit = FIRST[class] as i32;
        Bin { head: Cell::new(ptr::null_mut()), room: AtomicI32::new(limit), full: AtomicI32::new(limit) }
    }

    /// The link behind the `number` newest blocks.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, and there must be as many blocks.
    unsafe fn link(&self, number: u16) -> &Cell<*mut Block> {
        let mut link = &self.head;
        for _ in 0..number {
            // SAFETY: blocks of a bin are unused and begin with their link; a `Cell` is laid out as what is in it.
            link = unsafe { Cell::from_mut(&mut (*link.get()).next) };
        }
        link
    }

    /// Makes `list`, of `count` blocks, what is in the bin, and lets it take `room` more.
    fn set(&self, list: *mut Block, room: u16, count: u16) {
        self.head.set(list);
        self.room.store(i32::from(room), Ordering::Relaxed);
        self.full.store(i32::from(room) + i32::from(count), Ordering::Relaxed);
    }

    /// Read while the owner counts it may be off by what is under way.
    fn count(&self) -> u16 {
        let held = self.full.load(Ordering::Relaxed) - self.room.load(Ordering::Relaxed);
        held.clamp(0, u16::MAX.into()) as u16
    }
}

impl Size {
    const fn new(class: usize) -> Size {
        Size {
            limit: Cell::new(FIRST[class]),
            given: Cell::new(0),
            mark: Cell::new(ptr::null_mut()),
            below: Cell::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The class of 64 B: those up to 128 B are 8 B apart.
    const CLASS: usize = 64 / 8 - 1;
    const _: () = assert!(size_class::size_of_class(CLASS) == 64);

    /// Blocks, in order, that nobody else has.
    fn blocks(count: usize) -> Vec<*mut Block> {
        let memory = vec![[0u64; 8]; count].leak();
        memory.iter_mut().map(|block| ptr::from_mut(block).cast()).collect()
    }

    fn push(bins: &Bins, block: *mut Block) -> bool {
        // SAFETY: the block is the test's own and in no bin; the class is below CLASSES.
        unsafe { bins.push(bin_offset(CLASS), block, block.cast()) }
    }

    fn pop(bins: &Bins) -> *mut Block {
        // SAFETY: the bins are the test's own.
        unsafe { bins.row(Term::Long).pop(CLASS) }.cast()
    }

    /// Gives up and returns what was given up.
    fn give_up(bins: &Bins, all: bool) -> Vec<*mut Block> {
        // SAFETY: the bins are the test's own, and blocks in a list begin with their link.
        unsafe {
            let mut next = bins.give_up(CLASS, all);
            let mut list = Vec::new();
            while !next.is_null() {
                list.push(next);
                next = (*next).next;
            }
            list
        }
    }

    fn count(bins: &Bins) -> u64 {
        bins.counts().filter(|(class, _)| *class == CLASS).map(|(_, blocks)| blocks).sum()
    }

    #[test]
    fn what_was_put_in_last_is_taken_first_and_other_classes_have_none() {
        let (bins, blocks) = (Bins::new(), blocks(3));
        assert!(blocks.iter().all(|block| !push(&bins, *block)));
        assert_eq!(bins.counts().map(|(_, blocks)| blocks).sum::<u64>(), 3);
        assert_eq!(count(&bins), 3);
        for block in blocks.iter().rev() {
            assert_eq!(pop(&bins), *block);
        }
        assert!(pop(&bins).is_null());
        assert_eq!(count(&bins), 0);
    }

    #[test]
    fn the_older_half_is_given_up_and_the_bin_grows_with_what_goes_up_and_down() {
        let bins = Bins::new();
        let mut limit = usize::from(FIRST[CLASS]);
        while limit < usize::from(CAPACITY[CLASS]) {
            let blocks = blocks(limit + 1);
            for block in &blocks[..limit] {
                assert!(!push(&bins, *block));
            }
            assert!(push(&bins, blocks[limit]), "{limit}");
            let mut older = give_up(&bins, false);
            older.reverse();
            assert_eq!(older, blocks[..older.len()]);
            assert_eq!(
                (older.len(), count(&bins)),
                (limit + 1 - limit.div_ceil(2), limit.div_ceil(2) as u64)
            );
            for block in blocks[older.len()..].iter().rev() {
                assert_eq!(pop(&bins), *block);
            }
            bins.fill(CLASS, ptr::null_mut(), 0);
            limit *= 2;
        }
        // Not above a page's.
        let blocks = blocks(limit + 1);
        let full = blocks.iter().position(|block| push(&bins, *block));
        assert_eq!(full, Some(usize::from(CAPACITY[CLASS])));
    }

    #[test]
    fn what_a_bin_was_filled_with_does_not_count_for_its_limit() {
        let bins = Bins::new();
        let list = blocks(1000);
        for pair in list.windows(2) {
            // SAFETY: the blocks are the test's own.
            unsafe { (*pair[0]).next = pair[1] };
        }
        bins.fill(CLASS, list[0], 1000);
        assert_eq!(count(&bins), 1000);
        let freed = blocks(FIRST[CLASS].into());
        assert!(freed.iter().all(|block| !push(&bins, *block)));
        assert_eq!(pop(&bins), freed[freed.len() - 1]);
        assert_eq!(count(&bins), 999 + freed.len() as u64);
        // Everything, and then as small as at first.
        assert_eq!(give_up(&bins, true).len(), 999 + freed.len());
        assert_eq!((count(&bins), pop(&bins)), (0, ptr::null_mut()));
        let full = freed.iter().chain(&list).position(|block| push(&bins, *block));
        assert_eq!(full, Some(FIRST[CLASS].into()));
    }

    #[test]
    fn a_bin_into_which_more_is_freed_than_a_page_has_keeps_as_little_as_at_first() {
        let bins = Bins::new();
        let (first, most) = (usize::from(FIRST[CLASS]), usize::from(CAPACITY[CLASS]));
        bins.sizes[CLASS].limit.set(CAPACITY[CLASS]);
        bins.fill(CLASS, ptr::null_mut(), 0);
        let mut given = 0;
        for block in blocks(8 * most) {
            if push(&bins, block) {
                given += give_up(&bins, false).len();
            }
            // As long as it is no more than the next allocations might need again, nothing changes.
            assert!(given > most || usize::from(bins.sizes[CLASS].limit.get()) == most);
        }
        assert_eq!(usize::from(bins.sizes[CLASS].limit.get()), first);
        assert!(count(&bins) <= first as u64, "{}", count(&bins));
        assert_eq!(given as u64 + count(&bins), 8 * most as u64);
    }

    #[test]
    fn a_slot_is_where_its_offset_says() {
        for number in 0..SLOTS {
            assert_eq!(slot_at(bin_offset(number)), number);
            let (class, term) =
                (class_of_slot(number), if number < CLASSES { Term::Long } else { Term::Short });
            assert_eq!(slot(class, term), number);
            let bins = Bins::new();
            let block = blocks(1)[0];
            // SAFETY: the bins and the block are the test's own.
            unsafe {
                assert!(!bins.push(bin_offset(number), block, block.cast()));
                assert!(bins.row(term.other()).pop(class).is_null());
                assert_eq!(bins.row(term).pop(class).cast(), block);
            }
        }
    }

    /// Ends a period and returns how many blocks nobody had needed.
    fn end_period(bins: &Bins) -> usize {
        let before = count(bins);
        // SAFETY: the bins are the test's own.
        let mut next = unsafe { bins.end_period(CLASS) };
        let mut unneeded = 0;
        while !next.is_null() {
            unneeded += 1;
            // SAFETY: blocks in a list begin with their link.
            next = unsafe { (*next).next };
        }
        assert_eq!(count(bins), before - unneeded as u64);
        unneeded
    }

    #[test]
    fn what_nobody_needs_goes_by_halves() {
        let (bins, blocks) = (Bins::new(), blocks(100));
        assert_eq!(end_period(&bins), 0, "there is nothing");
        blocks.iter().for_each(|block| _ = push(&bins, *block));
        assert_eq!((0..4).map(|_| end_period(&bins)).collect::<Vec<_>>(), [0, 50, 25, 13]);
        // What goes up and down on top keeps nothing below.
        for (used, unneeded) in [(5, 6), (2, 3), (1, 2)] {
            let top: Vec<_> = (0..used).map(|_| pop(&bins)).collect();
            top.iter().for_each(|block| _ = push(&bins, *block));
            assert_eq!(end_period(&bins), unneeded);
        }
        assert_eq!(count(&bins), 1);
        while !pop(&bins).is_null() {}
        assert_eq!(end_period(&bins), 0);
    }

    #[test]
    fn what_was_needed_stays() {
        let (bins, blocks) = (Bins::new(), blocks(100));
        for _ in 0..5 {
            blocks.iter().for_each(|block| _ = push(&bins, *block));
            assert_eq!(end_period(&bins), 0);
            (0..100).for_each(|_| assert!(!pop(&bins).is_null()));
            // The same blocks in another order.
            blocks.iter().rev().for_each(|block| _ = push(&bins, *block));
            (0..100).for_each(|_| assert!(!pop(&bins).is_null()));
            assert_eq!(end_period(&bins), 0);
        }
    }
}
