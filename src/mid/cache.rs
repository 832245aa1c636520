//! Freed mid-size blocks that a thread keeps for its next requests, by size class and last in first out.
//!
//! What is kept is bounded by a share of what the thread has live, and what was not needed for a while goes back to the
//! heaps. Blocks themselves are not touched.

use core::cell::Cell;
use core::ptr;

use super::classes::{CLASSES, size_of_class};
use crate::stats::Counter;

/// Blocks of one class that are kept, at most.
const DEPTH: usize = 16;

/// Bytes that are kept in any case, and the share of the live bytes that may be kept besides.
const KEPT_MIN: usize = 1 << 20;
const KEPT_SHARE: usize = 4;

/// Classes above the best fitting one whose blocks are taken as well: a block is at most 1.41 times what was asked for.
const ABOVE: u32 = 2;

/// Blocks taken in before the cache looks which of its blocks were not needed meanwhile.
const TURNS: u32 = 1024;

/// Blocks of one thread; nobody else touches it but for the counters.
pub(crate) struct Cache {
    /// Bit `c` is set if `counts[c]` is not 0.
    nonempty: Cell<u64>,
    /// Bytes of all blocks, by their classes.
    bytes: Cell<usize>,
    counts: [Cell<u8>; CLASSES],
    /// Fewest blocks of each class since [`Cache::decay`] last looked, and blocks taken in since.
    lows: [Cell<u8>; CLASSES],
    turns: Cell<u32>,
    /// Where the search for a block to give up goes on.
    hand: Cell<u32>,
    /// Oldest first.
    blocks: [[Cell<*mut u8>; DEPTH]; CLASSES],
    /// Blocks and bytes, as requested, that the thread has allocated less those it has freed, wrapping: they may be another
    /// thread's.
    pub(super) live_blocks: Counter,
    pub(super) live_bytes: Counter,
}

const _: () = assert!(CLASSES <= u64::BITS as usize);

impl Cache {
    pub(crate) const fn new() -> Cache {
        Cache {
            nonempty: Cell::new(0),
            bytes: Cell::new(0),
            counts: [const { Cell::new(0) }; CLASSES],
            lows: [const { Cell::new(0) }; CLASSES],
            turns: Cell::new(0),
            hand: Cell::new(0),
            blocks: [const { [const { Cell::new(ptr::null_mut()) }; DEPTH] }; CLASSES],
            live_blocks: Counter::new(),
            live_bytes: Counter::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nonempty.get() == 0
    }

    /// Live blocks and bytes by this thread's count, wrapping.
    pub(crate) fn usage(&self) -> (u64, u64) {
        (self.live_blocks.get(), self.live_bytes.get())
    }

    /// Bytes that may be kept.
    fn limit(&self) -> usize {
        // Below 0 if the thread has freed more than it allocated.
        let live = (self.live_bytes.get() as i64).max(0) as usize;
        KEPT_MIN + live / KEPT_SHARE
    }

    /// Takes the newest block that serves `class`, and says which class it is of.
    #[inline]
    pub(super) fn take(&self, class: usize) -> Option<(*mut u8, usize)> {
        let candidates = self.nonempty.get() >> class;
        let above = candidates.trailing_zeros();
        if above > ABOVE {
            return None;
        }
        let class = class + above as usize;
        Some((self.pop(class), class))
    }

    fn pop(&self, class: usize) -> *mut u8 {
        let left = self.counts[class].get() - 1;
        self.counted(class, left);
        self.lows[class].set(self.lows[class].get().min(left));
        self.blocks[class][usize::from(left)].get()
    }

    fn counted(&self, class: usize, count: u8) {
        let before = self.counts[class].replace(count);
        let size = size_of_class(class);
        self.bytes.set(self.bytes.get() + usize::from(count) * size - usize::from(before) * size);
        let bit = 1 << class;
        self.nonempty.set(if count == 0 { self.nonempty.get() & !bit } else { self.nonempty.get() | bit });
    }

    /// Keeps a freed block of `class`. Blocks for which there is no room, this one perhaps, go to `release`.
    #[inline]
    pub(super) fn put(&self, block: *mut u8, class: usize, mut release: impl FnMut(*mut u8)) {
        let size = size_of_class(class);
        let limit = self.limit();
        if size > limit {
            return release(block);
        }
        if usize::from(self.counts[class].get()) == DEPTH {
            self.give_up(class, DEPTH / 2, &mut release);
        }
        let count = self.counts[class].get();
        self.blocks[class][usize::from(count)].set(block);
        self.counted(class, count + 1);
        self.turns.set(self.turns.get() + 1);
        if self.bytes.get() > limit {
            self.shrink(limit, &mut release);
        } else if self.turns.get() >= TURNS {
            self.decay(&mut release);
        }
    }

    /// Gives up old blocks of one class after the other until at most `limit` bytes are left.
    #[cold]
    fn shrink(&self, limit: usize, release: &mut impl FnMut(*mut u8)) {
        while self.bytes.get() > limit {
            let behind = self.nonempty.get() & (u64::MAX << self.hand.get());
            let class = if behind == 0 { self.nonempty.get() } else { behind }.trailing_zeros();
            self.give_up(class as usize, 1, release);
            self.hand.set((class + 1) % CLASSES as u32);
        }
    }

    /// Gives up half of the blocks that were not needed lately.
    #[cold]
    fn decay(&self, release: &mut impl FnMut(*mut u8)) {
        for class in 0..CLASSES {
            let unneeded = self.lows[class].get();
            self.give_up(class, usize::from(unneeded.div_ceil(2)), release);
            self.lows[class].set(self.counts[class].get());
        }
        self.turns.set(0);
    }

    /// Gives up the oldest `number` blocks of a class.
    fn give_up(&self, class: usize, number: usize, release: &mut impl FnMut(*mut u8)) {
        let blocks = &self.blocks[class];
        let count = usize::from(self.counts[class].get());
        debug_assert!(number <= count);
        for (index, block) in blocks.iter().take(count).enumerate() {
            if index < number {
                release(block.get());
            } else {
                blocks[index - number].set(block.get());
            }
        }
        self.counted(class, (count - number) as u8);
        self.lows[class].set(self.lows[class].get().min((count - number) as u8));
    }

    /// Gives up everything.
    pub(super) fn clear(&self, mut release: impl FnMut(*mut u8)) {
        while self.nonempty.get() != 0 {
            let class = self.nonempty.get().trailing_zeros() as usize;
            self.give_up(class, usize::from(self.counts[class].get()), &mut release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks that are never touched.
    fn block(number: usize) -> *mut u8 {
        ptr::without_provenance_mut(number)
    }

    fn refuse(block: *mut u8) {
        panic!("{block:?} was given up");
    }

    #[test]
    fn the_newest_block_of_a_class_or_of_one_little_above_is_taken() {
        let cache = Cache::new();
        for number in 1..=3 {
            cache.put(block(number), 5, refuse);
        }
        assert_eq!(cache.take(6), None);
        assert_eq!(cache.take(2), None);
        assert_eq!(cache.take(5), Some((block(3), 5)));
        assert_eq!(cache.take(3), Some((block(2), 5)));
        cache.put(block(4), 4, refuse);
        assert_eq!(cache.take(4), Some((block(4), 4)));
        assert_eq!(cache.take(4), Some((block(1), 5)));
        assert_eq!(cache.take(5), None);
        assert_eq!(cache.bytes.get(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded_by_what_is_live() {
        let cache = Cache::new();
        let mut given_up = Vec::new();
        let size = size_of_class(24);
        let mut fill = |cache: &Cache| {
            given_up.clear();
            for number in 1..=1000 {
                cache.put(block(number), 24 + number % 8, |block| given_up.push(block.addr()));
            }
            given_up.sort_unstable();
            given_up.dedup();
            given_up.len()
        };
        let released = fill(&cache);
        assert!(cache.bytes.get() <= KEPT_MIN && cache.bytes.get() + 2 * size > KEPT_MIN);
        let kept: usize = cache.counts.iter().map(|count| usize::from(count.get())).sum();
        assert_eq!(released + kept, 1000);
        cache.clear(|_| {});
        cache.live_bytes.add(16 << 20);
        fill(&cache);
        assert!(cache.bytes.get() > 4 << 20 && cache.bytes.get() <= KEPT_MIN + (4 << 20));
        // Freeing what another thread allocated.
        cache.live_bytes.add((32u64 << 20).wrapping_neg());
        assert_eq!(cache.limit(), KEPT_MIN);
        let mut freed = 0;
        cache.put(block(1001), 0, |_| freed += 1);
        assert!(freed > 0 && cache.bytes.get() <= KEPT_MIN);
        cache.clear(|_| freed += 1);
        assert_eq!((cache.bytes.get(), cache.nonempty.get()), (0, 0));
    }

    #[test]
    fn blocks_that_nobody_needs_go_back() {
        let cache = Cache::new();
        cache.live_bytes.add(64 << 20);
        for number in 1..=8 {
            cache.put(block(number), 40, refuse);
        }
        let mut given_up = Vec::new();
        for _ in 0..10 * TURNS {
            cache.put(block(100), 3, |block| given_up.push(block.addr()));
            assert_eq!(cache.take(3), Some((block(100), 3)));
        }
        assert_eq!(given_up, [1, 2, 3, 4, 5, 6, 7, 8], "the oldest first");
    }
}
