//! Where pooled items wait: a short stack for each thread, and a bounded list that all threads share.
//!
//! In the steady state a thread takes from its own stack and gives to it. When the stack runs empty or full, half a stack
//! moves from or to the shared list at once. No two locks are ever held together, and nothing is freed under one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lifo::Lifo;
use super::recent::Recent;
use super::shards::{Empty, Shards};
use super::stats::PoolStats;
use crate::outside_arena;

/// Something that is pooled.
pub(super) trait Item: Send {
    /// Bytes of memory that it keeps. Does not change while it is in the pool.
    fn weight(&self) -> usize;
}

/// What a user made of an item, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    /// The most that it held.
    pub peak: usize,
    /// Allocated for it since it was taken.
    pub allocated: u64,
}

/// What was taken from a depot so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    requests: u64,
    /// Of them, those that found nothing.
    misses: u64,
}

/// How much a depot keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes in the stack of a thread.
    pub stack_bytes: usize,
    /// Items in the shared list; warming up may raise it.
    pub shared_items: usize,
    /// Bytes of an item in the shared list.
    pub shared_item_bytes: usize,
}

/// Items that wait, at most `N` of them for each thread.
pub(super) struct Depot<T, const N: usize> {
    stacks: Shards<Stack<T, N>>,
    shared: Mutex<Shared<T>>,
    bounds: Bounds,
}

/// What one shard has.
struct Stack<T, const N: usize> {
    items: Lifo<T, N>,
    /// Sum of their weights.
    bytes: usize,
    recent: Recent,
    requests: u64,
    frees: u64,
    misses: u64,
    warmed: u64,
    allocated: u64,
}

struct Shared<T> {
    items: Vec<T>,
    /// Items it may have if that is more than the depot's bound.
    warmed: usize,
    discards: u64,
}

impl<T, const N: usize> Empty for Stack<T, N> {
    const EMPTY: Stack<T, N> = Stack {
        items: Lifo::NEW,
        bytes: 0,
        recent: Recent::NEW,
        requests: 0,
        frees: 0,
        misses: 0,
        warmed: 0,
        allocated: 0,
    };
}

impl<T: Item, const N: usize> Stack<T, N> {
    #[inline]
    fn pop(&mut self) -> Option<T> {
        let item = self.items.pop()?;
        self.bytes -= item.weight();
        Some(item)
    }

    #[inline]
    fn push(&mut self, item: T, bounds: &Bounds) -> Result<(), T> {
        let bytes = self.bytes + item.weight();
        if bytes > bounds.stack_bytes {
            return Err(item);
        }
        self.items.push(item)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Takes the older half out.
    fn take_older_half(&mut self) -> Lifo<T, N> {
        let mut half = Lifo::NEW;
        for _ in 0..self.items.len().div_ceil(2) {
            let Some(item) = self.items.take_oldest() else { break };
            self.bytes -= item.weight();
            // There is room: both have the same.
            let _ = half.push(item);
        }
        half
    }
}

impl<T: Item, const N: usize> Depot<T, N> {
    pub(super) const fn new(bounds: Bounds) -> Depot<T, N> {
        Depot {
            stacks: Shards::new(),
            shared: Mutex::new(Shared { items: Vec::new(), warmed: 0, discards: 0 }),
            bounds,
        }
    }

    pub(super) const fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub(super) const fn bounds_mut(&mut self) -> &mut Bounds {
        &mut self.bounds
    }

    /// Takes an item, if there is one, and says how big the last ones were: a high percentile in bytes.
    #[inline]
    pub(super) fn take(&self) -> (Option<T>, usize) {
        let mut stack = self.stacks.lock();
        stack.requests += 1;
        let recent = stack.recent.bytes();
        let item = stack.pop();
        drop(stack);
        (item.or_else(|| self.take_slow()), recent)
    }

    #[cold]
    fn take_slow(&self) -> Option<T> {
        let (item, mut more) = self.take_shared();
        let mut stack = self.stacks.lock();
        stack.misses += u64::from(item.is_none());
        while let Some(next) = more.pop() {
            if let Err(next) = stack.push(next, &self.bounds) {
                let _ = more.push(next);
                break;
            }
        }
        drop(stack);
        self.give_shared(more);
        item
    }

    /// Takes half a stack from the shared list: one item, and the others.
    fn take_shared(&self) -> (Option<T>, Lifo<T, N>) {
        let mut more = Lifo::NEW;
        let mut shared = self.shared();
        let item = shared.items.pop();
        for _ in 1..N / 2 {
            let Some(next) = shared.items.pop() else { break };
            let _ = more.push(next);
        }
        (item, more)
    }

    /// Takes an item back. `floor` is the least that counts as a high percentile of the sizes, in bytes.
    #[inline]
    pub(super) fn give(&self, item: T, usage: Use, floor: usize) {
        let mut stack = self.stacks.lock();
        stack.frees += 1;
        stack.allocated += usage.allocated;
        stack.recent.record(usage.peak, floor);
        let kept = stack.push(item, &self.bounds);
        drop(stack);
        if let Err(item) = kept {
            self.give_slow(item);
        }
    }

    #[cold]
    fn give_slow(&self, item: T) {
        let mut stack = self.stacks.lock();
        let mut older = stack.take_older_half();
        if let Err(item) = stack.push(item, &self.bounds) {
            // Too big for any stack. There is room: this is at most half of one.
            let _ = older.push(item);
        }
        drop(stack);
        self.give_shared(older);
    }

    /// Puts items into the shared list, the oldest first, and frees what is too much.
    fn give_shared(&self, mut items: Lifo<T, N>) {
        let mut excess = Lifo::<T, N>::NEW;
        let mut shared = self.shared();
        let most = self.bounds.shared_items.max(shared.warmed);
        while let Some(item) = items.take_oldest() {
            if shared.items.len() < most && item.weight() <= self.bounds.shared_item_bytes {
                outside_arena(|| shared.items.push(item));
            } else {
                shared.discards += 1;
                let _ = excess.push(item);
            }
        }
        drop(shared);
        drop(excess);
    }

    /// Makes sure that this thread can take `count` items that were made ready, without creating any.
    pub(super) fn warm_up(&self, count: usize, create: impl Fn() -> T, make_ready: impl Fn(&mut T)) {
        outside_arena(|| {
            let mut ready = Vec::with_capacity(count);
            while ready.len() < count {
                let mut item = self.take_uncounted().unwrap_or_else(|| {
                    self.stacks.lock().warmed += 1;
                    create()
                });
                make_ready(&mut item);
                ready.push(item);
            }
            let mut shared = self.shared();
            shared.warmed = shared.warmed.max(count);
            drop(shared);
            for item in ready {
                let kept = self.stacks.lock().push(item, &self.bounds);
                if let Err(item) = kept {
                    self.give_slow(item);
                }
            }
        });
    }

    fn take_uncounted(&self) -> Option<T> {
        let own = self.stacks.lock().pop();
        own.or_else(|| self.shared().items.pop())
    }

    /// Frees everything that waits. Returns how many bytes that was.
    pub(super) fn purge(&self) -> usize {
        outside_arena(|| {
            let mut all = core::mem::take(&mut self.shared().items);
            self.stacks.for_each(|stack| all.extend(core::iter::from_fn(|| stack.pop())));
            all.iter().map(Item::weight).sum()
        })
    }

    /// The first half of the numbers; [`Depot::stats`] is to be called after it.
    pub(super) fn taken(&self) -> Taken {
        let mut taken = Taken::default();
        self.stacks.for_each(|stack| {
            taken.requests += stack.requests;
            taken.misses += stack.misses;
        });
        taken
    }

    /// All numbers. What was returned is read after what was taken, so that an item that goes round in between is not
    /// counted as in use: `in_use` may be too small while threads run, and is never too big.
    pub(super) fn stats(&self, taken: Taken) -> PoolStats {
        let mut stats =
            PoolStats { total_requests: taken.requests, misses: taken.misses, ..PoolStats::default() };
        let mut warmed = 0;
        {
            let shared = self.shared();
            stats.discards = shared.discards;
            stats.retained = shared.items.len() as u64;
            stats.retained_bytes = shared.items.iter().map(|item| item.weight() as u64).sum();
        }
        self.stacks.for_each(|stack| {
            stats.total_frees += stack.frees;
            stats.bytes_allocated += stack.allocated;
            stats.retained += stack.items.len() as u64;
            stats.retained_bytes += stack.bytes as u64;
            warmed += stack.warmed;
        });
        stats.in_use = stats.total_requests.saturating_sub(stats.total_frees);
        stats.hits = stats.total_requests.saturating_sub(stats.misses);
        stats.reused = stats.hits;
        stats.created = stats.misses + warmed;
        stats
    }

    fn shared(&self) -> MutexGuard<'_, Shared<T>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Depot, Item, PoolStats, Use};

    impl Item for u64 {
        fn weight(&self) -> usize {
            10
        }
    }

    const USE: Use = Use { peak: 1, allocated: 3 };

    fn depot(stack_bytes: usize, shared_items: usize) -> Depot<u64, 4> {
        Depot::new(Bounds { stack_bytes, shared_items, shared_item_bytes: 10 })
    }

    fn stats(depot: &Depot<u64, 4>) -> PoolStats {
        depot.stats(depot.taken())
    }

    #[test]
    fn what_no_stack_has_room_for_stays_in_the_shared_list() {
        let depot = depot(0, 100);
        (0..10).for_each(|item| depot.give(item, USE, 1));
        assert_eq!(stats(&depot).retained, 10);
        for left in (0..10).rev() {
            assert!(depot.take().0.is_some());
            assert_eq!((stats(&depot).retained, stats(&depot).retained_bytes), (left, left * 10));
        }
        assert_eq!((depot.take().0, stats(&depot).misses, stats(&depot).discards), (None, 1, 0));
    }

    #[test]
    fn the_hottest_items_stay_at_hand_and_the_oldest_are_shared() {
        let depot = depot(1000, 2);
        (0..9).for_each(|item| depot.give(item, USE, 1));
        // 4 fill the stack; then the oldest 2 go to the shared list, which has room for 2, each time it is full.
        let now = stats(&depot);
        assert_eq!((now.retained, now.discards, now.bytes_allocated), (5, 4, 27));
        let taken: Vec<_> = (0..5).filter_map(|_| depot.take().0).collect();
        assert_eq!(taken, [8, 7, 6, 1, 0]);
    }
}
