//! Freed mid-size blocks that a thread keeps for its next requests, by size class and last in first out.
//!
//! What is kept is bounded by a share of what the thread has live, and what was not needed for a while goes back to the
//! heaps. Blocks themselves are not touched.

use core::cell::Cell;
use core::ptr;

use super::classes::{CLASSES, size_of_class};
use crate::stats::Counter;
use crate::sync::{AtomicUsize, Ordering};

/// Blocks of one class that are kept, at most.
const DEPTH: usize = 15;

/// Bytes that are kept in any case, and the share of the live bytes that may be kept besides.
const KEPT_MIN: usize = 1 << 20;
const KEPT_SHARE: usize = 2;

/// Classes above the best fitting one whose blocks are taken as well: a block is at most 1.6 times what was asked for, and a unit
/// more.
const ABOVE: u32 = 3;

/// Room that live blocks of a thread may have beyond what was asked for, in bytes: up to that, contents that outgrew another block, and will
/// again, mostly, get whatever has room for more. The buffer of the request before has, and growing inside a block takes no lock.
const SLACK_MAX: usize = 1 << 20;

/// Room beyond what was asked for in blocks that other threads freed than those that allocated them: those have it in their count until
/// they learn of it.
static FREED_ELSEWHERE: AtomicUsize = AtomicUsize::new(0);

/// Blocks taken in before the cache looks which of its blocks were not needed meanwhile.
const TURNS: u32 = 512;

/// Blocks of one thread. It touches them inside its heap's [gate](crate::gate) only, and there a visitor may, too.
pub(crate) struct Cache {
    /// Bit `c` is set if class `c` has blocks.
    nonempty: Cell<u64>,
    /// Bit `c` is set if contents outgrew a block of class `c` lately: more would.
    outgrown: Cell<u64>,
    /// Bytes of all blocks, by their classes.
    bytes: Cell<usize>,
    /// Blocks taken in since [`Cache::decay`] last looked.
    turns: Cell<u32>,
    /// Where the search for a block to give up goes on.
    hand: Cell<u32>,
    /// Blocks and bytes, as requested, that the thread has allocated less those it has freed, wrapping: they may be another
    /// thread's.
    pub(super) live_blocks: Counter,
    pub(super) live_bytes: Counter,
    /// The same by the classes of the blocks.
    pub(super) live_room: Counter,
    stacks: [Stack; CLASSES],
}

/// Blocks of one class.
struct Stack {
    count: Cell<u8>,
    /// Fewest blocks since [`Cache::decay`] last looked.
    low: Cell<u8>,
    /// Oldest first.
    blocks: [Cell<*mut u8>; DEPTH],
}

// A search that finds nothing ends above every class.
const _: () = assert!(CLASSES < u64::BITS as usize);

impl Stack {
    #[inline]
    fn count(&self) -> usize {
        usize::from(self.count.get())
    }
}

impl Cache {
    pub(crate) const fn new() -> Cache {
        Cache {
            nonempty: Cell::new(0),
            outgrown: Cell::new(0),
            bytes: Cell::new(0),
            turns: Cell::new(0),
            hand: Cell::new(0),
            live_blocks: Counter::new(),
            live_bytes: Counter::new(),
            live_room: Counter::new(),
            stacks: [const {
                Stack {
                    count: Cell::new(0),
                    low: Cell::new(0),
                    blocks: [const { Cell::new(ptr::null_mut()) }; DEPTH],
                }
            }; CLASSES],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nonempty.get() == 0
    }

    /// Live blocks and bytes by this thread's count, wrapping.
    pub(crate) fn usage(&self) -> (u64, u64) {
        (self.live_blocks.get(), self.live_bytes.get())
    }

    /// Bytes that may be kept.
    #[inline]
    fn limit(&self) -> usize {
        KEPT_MIN + self.live() / KEPT_SHARE
    }

    /// Live bytes, or 0 if the thread has freed more than it allocated.
    #[inline]
    fn live(&self) -> usize {
        (self.live_bytes.get() as i64).max(0) as usize
    }

    /// Takes the newest block that serves `class`, and says which class it is of.
    #[inline]
    pub(super) fn take(&self, class: usize) -> Option<(*mut u8, usize)> {
        self.take_from(self.nonempty.get(), class, ABOVE)
    }

    /// [`Cache::take`] for `size` bytes of contents that outgrew another block.
    pub(super) fn take_to_grow(&self, class: usize, size: usize) -> Option<(*mut u8, usize)> {
        let roomy = self.nonempty.get() & !self.outgrown.get();
        let fits = |classes: u64| {
            let above = (classes >> class).trailing_zeros();
            let room = size_of_class((class + above as usize).min(CLASSES - 1));
            above < u64::BITS && self.slack() + room - size <= SLACK_MAX
        };
        if fits(roomy) {
            return self.take_from(roomy, class, CLASSES as u32);
        }
        let most = if fits(self.nonempty.get()) { CLASSES as u32 } else { ABOVE };
        self.take_from(self.nonempty.get(), class, most)
    }

    /// Room of the thread's live blocks beyond what was asked for, or 0 if it has freed more of that than it allocated.
    fn slack(&self) -> usize {
        (self.live_room.get().wrapping_sub(self.live_bytes.get()) as i64).max(0) as usize
    }

    /// Settles with other threads what room they have freed of each other's blocks.
    fn settle_slack(&self) {
        let slack = self.live_room.get().wrapping_sub(self.live_bytes.get()) as i64;
        if slack < 0 {
            FREED_ELSEWHERE.fetch_add(slack.unsigned_abs() as usize, Ordering::Relaxed);
            self.live_room.add(slack.unsigned_abs());
        } else if slack > 0 && FREED_ELSEWHERE.load(Ordering::Relaxed) > 0 {
            let mut mine = 0;
            let take = |freed: usize| {
                mine = freed.min(slack as usize);
                Some(freed - mine)
            };
            // Never refused.
            let _ = FREED_ELSEWHERE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
            self.live_room.add((mine as u64).wrapping_neg());
        }
    }

    /// Notes that contents outgrew a block of `class`.
    pub(super) fn outgrew(&self, class: usize) {
        self.outgrown.set(self.outgrown.get() | 1 << class);
    }

    /// Takes the newest block of the first of these classes from `class` on, if that is at most `most` above it.
    #[inline]
    fn take_from(&self, classes: u64, class: usize, most: u32) -> Option<(*mut u8, usize)> {
        let above = (classes >> class).trailing_zeros();
        if above > most {
            return None;
        }
        let class = class + above as usize;
        let stack = &self.stacks[class];
        let left = stack.count() - 1;
        let block = stack.blocks[left].get();
        self.bytes.set(self.bytes.get() - size_of_class(class));
        self.counted(stack, class, left);
        Some((block, class))
    }

    /// Notes that `left` blocks of a class are left.
    #[inline]
    fn counted(&self, stack: &Stack, class: usize, left: usize) {
        stack.count.set(left as u8);
        if left == 0 {
            self.nonempty.set(self.nonempty.get() & !(1 << class));
        }
        stack.low.set(stack.low.get().min(left as u8));
    }

    /// Keeps a freed block of `class`. Blocks for which there is no room, this one perhaps, go to `release`.
    #[inline]
    pub(super) fn put(&self, block: *mut u8, class: usize, mut release: impl FnMut(*mut u8)) {
        let stack = &self.stacks[class];
        if stack.count() == DEPTH {
            self.give_up(class, DEPTH / 2 + 1, &mut release);
        }
        let count = stack.count();
        stack.blocks[count].set(block);
        stack.count.set(count as u8 + 1);
        self.nonempty.set(self.nonempty.get() | 1 << class);
        self.bytes.set(self.bytes.get() + size_of_class(class));
        self.turns.set(self.turns.get() + 1);
        let limit = self.limit();
        if self.bytes.get() > limit || self.turns.get() >= TURNS {
            self.shrink(limit, &mut release);
        }
    }

    /// Gives up what was not needed lately, and old blocks of one class after the other until at most `limit` bytes are left.
    #[cold]
    fn shrink(&self, limit: usize, release: &mut impl FnMut(*mut u8)) {
        if self.turns.get() >= TURNS {
            self.decay(false, release);
        }
        while self.bytes.get() > limit {
            let behind = self.nonempty.get() & (u64::MAX << self.hand.get());
            let class = if behind == 0 { self.nonempty.get() } else { behind }.trailing_zeros();
            self.give_up(class as usize, 1, release);
            self.hand.set((class + 1) % CLASSES as u32);
        }
    }

    /// Gives up half of the blocks that were not needed lately, or `all` of these: the low-water mark of TCMalloc's thread caches (Ghemawat and
    /// Menage, "TCMalloc: Thread-Caching Malloc").
    pub(super) fn decay(&self, all: bool, release: &mut impl FnMut(*mut u8)) {
        for (class, stack) in self.stacks.iter().enumerate() {
            let unneeded = usize::from(stack.low.get());
            if unneeded > 0 {
                self.give_up(class, if all { unneeded } else { unneeded.div_ceil(2) }, release);
            }
            stack.low.set(stack.count.get());
        }
        self.turns.set(0);
        if all {
            self.outgrown.set(0);
            self.settle_slack();
        }
    }

    /// Gives up the oldest `number` blocks of a class, which has as many.
    fn give_up(&self, class: usize, number: usize, release: &mut impl FnMut(*mut u8)) {
        let stack = &self.stacks[class];
        let count = stack.count();
        debug_assert!(number <= count);
        for (index, block) in stack.blocks.iter().take(count).enumerate() {
            if index < number {
                release(block.get());
            } else {
                stack.blocks[index - number].set(block.get());
            }
        }
        self.bytes.set(self.bytes.get() - number * size_of_class(class));
        self.counted(stack, class, count - number);
    }

    /// Gives up everything.
    pub(super) fn clear(&self, mut release: impl FnMut(*mut u8)) {
        while self.nonempty.get() != 0 {
            let class = self.nonempty.get().trailing_zeros() as usize;
            self.give_up(class, self.stacks[class].count(), &mut release);
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
        assert_eq!(cache.take(1), None);
        assert_eq!(cache.take(5), Some((block(3), 5)));
        assert_eq!(cache.take(2), Some((block(2), 5)));
        cache.put(block(4), 4, refuse);
        assert_eq!(cache.take(4), Some((block(4), 4)));
        assert_eq!(cache.take(4), Some((block(1), 5)));
        assert_eq!(cache.take(5), None);
        assert_eq!(cache.bytes.get(), 0);
    }

    #[test]
    fn what_grows_takes_a_block_with_more_room() {
        let cache = Cache::new();
        let (small, big) = (1, 1 + ABOVE as usize + 1);
        let take = |class: usize| cache.take_to_grow(class, size_of_class(class));
        cache.put(block(1), big, refuse);
        assert_eq!(cache.take(small), None);
        assert_eq!(take(big + 1), None);
        assert_eq!(take(small), Some((block(1), big)));
        // One that is too small again is the second choice.
        cache.put(block(1), big, refuse);
        cache.put(block(2), small, refuse);
        cache.outgrew(small);
        assert_eq!(take(small), Some((block(1), big)));
        assert_eq!(take(small), Some((block(2), small)));
        cache.decay(false, &mut refuse);
        assert_ne!(cache.outgrown.get(), 0);
        cache.decay(true, &mut refuse);
        assert_eq!(cache.outgrown.get(), 0);
    }

    #[test]
    fn the_room_of_what_grows_is_bounded_and_settled_between_threads() {
        let (one, other) = (Cache::new(), Cache::new());
        let (small, big) = (1, CLASSES - 1);
        let more = size_of_class(big) - size_of_class(small);
        let take = |cache: &Cache| cache.take_to_grow(small, size_of_class(small));
        // So that it may keep some.
        one.live_bytes.add(64 << 20);
        one.live_room.add((64 << 20) + (SLACK_MAX - more + 1) as u64);
        one.put(block(1), big, refuse);
        assert_eq!(take(&one), None);
        // What fits nearly is taken in any case.
        one.put(block(2), small + ABOVE as usize, refuse);
        assert_eq!(take(&one), Some((block(2), small + ABOVE as usize)));
        // Another thread frees a block of this one's with that room.
        other.live_room.add((SLACK_MAX as u64).wrapping_neg());
        assert_eq!(one.slack(), SLACK_MAX - more + 1);
        other.decay(true, &mut refuse);
        one.decay(true, &mut |_| {});
        assert_eq!((one.slack(), other.slack()), (0, 0));
        // No more than was this one's.
        assert_eq!(FREED_ELSEWHERE.load(Ordering::Relaxed), more - 1);
        one.put(block(3), big, refuse);
        assert_eq!(take(&one), Some((block(3), big)));
    }

    #[test]
    fn what_is_kept_is_bounded_by_what_is_live() {
        let cache = Cache::new();
        let mut given_up = Vec::new();
        let size = size_of_class(31);
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
        let kept: usize = cache.stacks.iter().map(Stack::count).sum();
        assert_eq!(released + kept, 1000);
        cache.clear(|_| {});
        cache.live_bytes.add(16 << 20);
        fill(&cache);
        assert!(cache.bytes.get() > 8 << 20 && cache.bytes.get() <= KEPT_MIN + (8 << 20));
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
            cache.put(block(number), 36, refuse);
        }
        let mut given_up = Vec::new();
        for _ in 0..10 * TURNS {
            cache.put(block(100), 3, |block| given_up.push(block.addr()));
            assert_eq!(cache.take(3), Some((block(100), 3)));
        }
        assert_eq!(given_up, [1, 2, 3, 4, 5, 6, 7, 8], "the oldest first");
    }
}
