//! The balance of a chunk: an arena closes while other threads free blocks of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::cell::UnsafeCell;
use loom::sync::atomic::Ordering;
use loom::thread;

use crate::explore;
use crate::remote::LiveCount;
use crate::weak::WeakLiveCount;

/// The real balance or a weak copy.
pub(crate) trait Balance: Send + Sync + 'static {
    fn free_remote(&self) -> bool;
    fn close(&self, live: u32) -> usize;
    fn balance(&self) -> isize;
    fn reset(&self);
}

impl Balance for LiveCount {
    fn free_remote(&self) -> bool {
        self.free_remote()
    }

    fn close(&self, live: u32) -> usize {
        self.close(live)
    }

    fn balance(&self) -> isize {
        self.balance()
    }

    fn reset(&self) {
        self.reset();
    }
}

/// A chunk with a word of memory for each block.
struct Chunk<B> {
    balance: B,
    blocks: Vec<UnsafeCell<u32>>,
    recycled: AtomicUsize,
}

impl<B: Balance> Chunk<B> {
    fn new(balance: B, blocks: u32) -> Arc<Self> {
        let blocks = (0..blocks).map(UnsafeCell::new).collect();
        Arc::new(Chunk { balance, blocks, recycled: AtomicUsize::new(0) })
    }

    /// Uses a block for the last time and frees it from outside the arena.
    fn free(&self, block: usize) {
        // SAFETY: loom checks that nobody else uses the block meanwhile.
        self.blocks[block].with_mut(|word| unsafe { *word += 1 });
        if self.balance.free_remote() {
            self.recycle();
        }
    }

    fn close(&self, live: u32) {
        if self.balance.close(live) == 0 {
            self.recycle();
        }
    }

    /// Puts the chunk to another use: all its memory is written, as a heap that makes it a slab page does.
    fn recycle(&self) {
        self.recycled.fetch_add(1, Relaxed);
        self.overwrite();
    }

    fn overwrite(&self) {
        for block in &self.blocks {
            // SAFETY: as in `free`.
            block.with_mut(|word| unsafe { *word = 0 });
        }
    }

    fn recycled(&self) -> usize {
        self.recycled.load(Relaxed)
    }
}

/// An arena closes a chunk. `threads` threads each free one block meanwhile; the owner has freed one itself before, and
/// frees `kept` of them afterwards, which counts as a remote free by then.
fn close_during_frees<B: Balance>(balance: B, threads: usize, kept: usize) {
    let chunk = Chunk::new(balance, (threads + kept + 1) as u32);
    let freers: Vec<_> = (0..threads)
        .map(|block| {
            let chunk = chunk.clone();
            thread::spawn(move || chunk.free(block))
        })
        .collect();
    // Allocations less local frees.
    chunk.close((threads + kept) as u32);
    for block in threads..threads + kept {
        chunk.free(block);
    }
    freers.into_iter().for_each(|freer| freer.join().unwrap());
    assert_eq!(chunk.recycled(), 1, "not exactly one thread recycles the chunk");
}

/// An arena ends with two blocks alive, which two threads free meanwhile, and the next one goes on in its chunk, from the
/// start if it finds them freed. That one ends with a block alive too, which a third thread frees.
fn go_on_in_a_chunk<B: Balance>(balance: B) {
    let chunk = Chunk::new(balance, 3);
    let freer = |block| {
        let chunk = chunk.clone();
        thread::spawn(move || chunk.free(block))
    };
    let mut freers = vec![freer(0), freer(1)];
    let mut live = 2;
    if live + chunk.balance.balance() == 0 {
        chunk.overwrite();
        chunk.balance.reset();
        live = 0;
    }
    // SAFETY: as in `free`.
    chunk.blocks[2].with_mut(|word| unsafe { *word = 7 });
    freers.push(freer(2));
    chunk.close(live as u32 + 1);
    freers.into_iter().for_each(|freer| freer.join().unwrap());
    assert_eq!(chunk.recycled(), 1, "not exactly one thread recycles the chunk");
}

#[test]
fn one_of_two_threads_recycles() {
    explore(None, || close_during_frees(LiveCount::new(), 1, 0));
    explore(None, || close_during_frees(LiveCount::new(), 1, 2));
}

#[test]
fn one_of_three_threads_recycles() {
    explore(None, || close_during_frees(LiveCount::new(), 2, 0));
    explore(None, || close_during_frees(LiveCount::new(), 2, 1));
}

#[test]
fn one_of_four_threads_recycles() {
    explore(None, || close_during_frees(LiveCount::new(), 3, 0));
}

#[test]
fn all_frees_before_the_close_leave_it_to_the_close() {
    explore(None, || {
        let chunk = Chunk::new(LiveCount::new(), 3);
        let freers: Vec<_> = (0..2)
            .map(|block| {
                let chunk = chunk.clone();
                thread::spawn(move || chunk.free(block))
            })
            .collect();
        freers.into_iter().for_each(|freer| freer.join().unwrap());
        assert_eq!(chunk.recycled(), 0, "the arena is open");
        chunk.close(2);
        assert_eq!(chunk.recycled(), 1);
    });
}

#[test]
fn all_frees_after_the_close_leave_it_to_the_last() {
    explore(None, || {
        let chunk = Chunk::new(LiveCount::new(), 3);
        chunk.close(3);
        assert_eq!(chunk.recycled(), 0, "blocks are alive");
        let freers: Vec<_> = (0..3)
            .map(|block| {
                let chunk = chunk.clone();
                thread::spawn(move || chunk.free(block))
            })
            .collect();
        freers.into_iter().for_each(|freer| freer.join().unwrap());
        assert_eq!(chunk.recycled(), 1);
    });
}

#[test]
fn a_recycled_chunk_starts_over() {
    explore(None, || {
        let chunk = Chunk::new(LiveCount::new(), 1);
        // Whoever recycles the chunk gives it to an arena of its own at once, with one block that a third thread frees.
        let live_again = |chunk: &Arc<Chunk<LiveCount>>| {
            chunk.balance.reset();
            let freer = thread::spawn({
                let chunk = chunk.clone();
                move || chunk.free(0)
            });
            chunk.close(1);
            freer.join().unwrap();
        };
        let freer = thread::spawn({
            let chunk = chunk.clone();
            move || {
                chunk.blocks[0].with(|_| ());
                if chunk.balance.free_remote() {
                    chunk.recycle();
                    live_again(&chunk);
                }
            }
        });
        if chunk.balance.close(1) == 0 {
            chunk.recycle();
            live_again(&chunk);
        }
        freer.join().unwrap();
        assert_eq!(chunk.recycled(), 2);
    });
}

#[test]
fn an_arena_goes_on_in_a_chunk_with_survivors() {
    explore(None, || go_on_in_a_chunk(LiveCount::new()));
}

#[test]
fn the_copy_with_nothing_weakened_passes() {
    explore(None, || close_during_frees(WeakLiveCount::faithful(), 2, 1));
    explore(None, || go_on_in_a_chunk(WeakLiveCount::faithful()));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_free_that_does_not_release_is_refused() {
    explore(None, || {
        let balance = WeakLiveCount { free: Ordering::Acquire, ..WeakLiveCount::faithful() };
        close_during_frees(balance, 1, 0);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_last_free_that_does_not_acquire_is_refused() {
    explore(None, || {
        let balance = WeakLiveCount { free: Ordering::Release, ..WeakLiveCount::faithful() };
        close_during_frees(balance, 2, 0);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_close_that_does_not_acquire_is_refused() {
    explore(None, || {
        let balance = WeakLiveCount { close: Ordering::Release, ..WeakLiveCount::faithful() };
        close_during_frees(balance, 1, 0);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_close_that_does_not_release_is_refused() {
    explore(None, || {
        let balance = WeakLiveCount { close: Ordering::Acquire, ..WeakLiveCount::faithful() };
        let chunk = Chunk::new(balance, 2);
        let freer = thread::spawn({
            let chunk = chunk.clone();
            move || chunk.free(0)
        });
        // The arena's own last use of the memory comes before the close.
        chunk.blocks[1].with_mut(|_| ());
        chunk.close(1);
        freer.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "not exactly one thread recycles the chunk")]
fn a_close_in_two_steps_is_refused() {
    explore(None, || {
        let balance = WeakLiveCount { close_in_two_steps: true, ..WeakLiveCount::faithful() };
        close_during_frees(balance, 1, 0);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_close_that_looks_twice_is_refused() {
    explore(None, || {
        let balance = WeakLiveCount { close_looks_again: true, ..WeakLiveCount::faithful() };
        close_during_frees(balance, 1, 0);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn starting_over_in_a_chunk_without_acquiring_is_refused() {
    explore(None, || {
        go_on_in_a_chunk(WeakLiveCount { look: Ordering::Relaxed, ..WeakLiveCount::faithful() });
    });
}
