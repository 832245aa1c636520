//! Shards: a place for each thread that nobody waits for.
//!
//! A thread takes, when it first needs one, the shard number that the fewest live threads have, and gives it up when it
//! ends. Up to [`SHARDS`] threads so have shards of their own, and their locks cost one uncontended atomic operation. A
//! shard is never lost with its thread: it belongs to the pool, and the next thread with that number finds what is in it.

use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

/// Shards in a pool.
pub(super) const SHARDS: usize = 64;

/// Something that has a constant first value.
pub(super) trait Empty {
    const EMPTY: Self;
}

/// One value for each shard number.
pub(super) struct Shards<S> {
    shards: [Shard<S>; SHARDS],
}

impl<S: Empty> Shards<S> {
    pub(super) const fn new() -> Shards<S> {
        Shards {
            shards: [const { Shard { taken: AtomicBool::new(false), value: UnsafeCell::new(S::EMPTY) } };
                SHARDS],
        }
    }

    /// Locks this thread's shard or, while another thread is in there, one of the others.
    #[inline]
    pub(super) fn lock(&self) -> Locked<'_, S> {
        let own = number();
        match self.shards[own].try_lock() {
            Some(locked) => locked,
            None => self.lock_another(own),
        }
    }

    #[cold]
    fn lock_another(&self, own: usize) -> Locked<'_, S> {
        loop {
            let (before, after) = self.shards.split_at(own);
            if let Some(locked) = after.iter().chain(before).find_map(Shard::try_lock) {
                return locked;
            }
            std::thread::yield_now();
        }
    }

    /// Calls `f` with each shard in turn.
    pub(super) fn for_each(&self, mut f: impl FnMut(&mut S)) {
        for shard in &self.shards {
            let mut locked = loop {
                match shard.try_lock() {
                    Some(locked) => break locked,
                    None => std::thread::yield_now(),
                }
            };
            f(&mut locked);
        }
    }
}

/// A value behind a lock that is only tried. On cache lines of its own (two: processors fetch them in pairs).
#[repr(align(128))]
struct Shard<S> {
    taken: AtomicBool,
    /// Only touched by who changed `taken` from false to true, until it is false again.
    value: UnsafeCell<S>,
}

// SAFETY: the value is reached only by the one thread that has the lock, so sharing the shard is no more than sending the
// value from thread to thread.
unsafe impl<S: Send> Sync for Shard<S> {}

impl<S> Shard<S> {
    #[inline]
    fn try_lock(&self) -> Option<Locked<'_, S>> {
        let free = self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        // Not `then_some`: a guard that is made in vain would unlock when it is dropped.
        free.then(|| Locked { shard: self, value: PhantomData })
    }
}

/// Access to a shard's value until it is dropped.
pub(super) struct Locked<'a, S> {
    shard: &'a Shard<S>,
    /// Whoever shares this shares the value.
    value: PhantomData<&'a mut S>,
}

impl<S> Deref for Locked<'_, S> {
    type Target = S;

    #[inline]
    fn deref(&self) -> &S {
        // SAFETY: there is one `Locked` for each time `taken` became true, and a mutable reference into it borrows it.
        unsafe { &*self.shard.value.get() }
    }
}

impl<S> DerefMut for Locked<'_, S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut S {
        // SAFETY: as in `deref`; this one is borrowed mutably.
        unsafe { &mut *self.shard.value.get() }
    }
}

impl<S> Drop for Locked<'_, S> {
    #[inline]
    fn drop(&mut self) {
        self.shard.taken.store(false, Ordering::Release);
    }
}

/// How many live threads have each number.
static THREADS: [AtomicUsize; SHARDS] = [const { AtomicUsize::new(0) }; SHARDS];

/// Stands for "no number yet".
const NONE: usize = usize::MAX;

thread_local! {
    /// No destructor, so it can be read as long as the thread runs.
    static NUMBER: Cell<usize> = const { Cell::new(NONE) };
    static REGISTERED: Registered = const { Registered };
}

struct Registered;

impl Drop for Registered {
    fn drop(&mut self) {
        // The thread keeps using the number for what its other destructors still do; it only does not count any more.
        THREADS[number()].fetch_sub(1, Ordering::Relaxed);
    }
}

/// The shard number of this thread.
#[inline]
fn number() -> usize {
    match NUMBER.try_with(Cell::get).unwrap_or(0) {
        NONE => take_number(),
        number => number,
    }
}

#[cold]
fn take_number() -> usize {
    let (number, threads) = loop {
        let counts = THREADS.iter().map(|threads| threads.load(Ordering::Relaxed)).enumerate();
        let (number, count) = counts.min_by_key(|&(_, count)| count).unwrap_or((0, 0));
        let threads = &THREADS[number];
        if threads.compare_exchange(count, count + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            break (number, threads);
        }
    };
    let _ = NUMBER.try_with(|own| own.set(number));
    if REGISTERED.try_with(|_| ()).is_err() {
        // The thread is ending already: nothing would take it out of the count.
        threads.fetch_sub(1, Ordering::Relaxed);
    }
    number
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::{Empty, Ordering, SHARDS, Shards, THREADS, number};

    #[derive(Debug, PartialEq)]
    struct Count(u64);

    impl Empty for Count {
        const EMPTY: Count = Count(0);
    }

    #[test]
    fn live_threads_have_different_numbers_and_ended_ones_none() {
        for _ in 0..10 {
            let barrier = Barrier::new(SHARDS / 2);
            let numbers: Vec<usize> = thread::scope(|scope| {
                let threads: Vec<_> = (0..SHARDS / 2)
                    .map(|_| {
                        scope.spawn(|| {
                            let number = number();
                            barrier.wait();
                            number
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            let mut different = numbers.clone();
            different.sort_unstable();
            different.dedup();
            assert_eq!(different.len(), numbers.len(), "{numbers:?}");
        }
        // Those of this test have ended; others of this process run at most one thread for each processor and 32 more.
        let counted: usize = THREADS.iter().map(|threads| threads.load(Ordering::Relaxed)).sum();
        assert!(counted < 100, "{counted} of 320 threads that have ended still count");
    }

    #[test]
    fn a_taken_shard_makes_way_for_another_and_nothing_is_counted_twice() {
        let shards = Shards::<Count>::new();
        let mut first = shards.lock();
        let mut second = shards.lock();
        (first.0, second.0) = (1, 10);
        assert!(!std::ptr::eq(&*first, &*second));
        drop((first, second));

        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| shards.lock().0 += 100));
            }
        });
        let mut sum = 0;
        shards.for_each(|count| sum += count.0);
        assert_eq!(sum, 11 + 4 * 10_000 * 100);
    }
}
