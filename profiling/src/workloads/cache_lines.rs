//! Whether threads get blocks on the same cache line.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;

use super::cores;
use crate::process::Stopwatch;
use crate::{Clock, Sample};

/// Writes to a block before it is freed. The original's 2,000,000 for all threads together leave too few operations for
/// a fraction of a second, and what a shared cache line costs shows in far fewer.
const WRITES: usize = 20_000;

/// Operations of a thread between two looks at the clock.
const OPERATIONS: usize = 20;

/// One operation: a block of 1 B is made, written 20,000 times and freed, in one thread for each core. Before that each
/// thread frees a block that the thread which started it has made, one next to the other, so an allocator that hands
/// them out again makes the threads write to the same cache line (passive false sharing). After cache-scratch of Hoard
/// (Berger et al., 2000), `cache-scratch N 1000 1 2000000 N`.
pub fn scratch(clock: &Clock) -> Sample {
    run(clock, true)
}

/// The same without the block from outside: an allocator that serves different threads from one cache line fails here
/// (active false sharing). After cache-thrash of Hoard, `cache-thrash N 1000 1 2000000 N`.
pub fn thrash(clock: &Clock) -> Sample {
    run(clock, false)
}

/// Runs threads until the time is over.
fn run(clock: &Clock, with_block_from_outside: bool) -> Sample {
    turn(1, OPERATIONS, with_block_from_outside);
    let threads = cores();
    let watch = Stopwatch::start();
    let mut operations = 0;
    while watch.elapsed() < clock.time() {
        operations += turn(threads, OPERATIONS, with_block_from_outside);
    }
    watch.stop(operations)
}

/// Runs `threads` threads once.
fn turn(threads: usize, operations: usize, with_block_from_outside: bool) -> u64 {
    let outside: Vec<Option<Box<u8>>> =
        (0..threads).map(|_| with_block_from_outside.then(|| Box::new(0))).collect();
    // So that all write at the same time.
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        for block in outside {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                drop(block);
                for _ in 0..operations {
                    operate();
                }
            });
        }
    });
    (threads * operations) as u64
}

/// Makes a block, writes to it, for others that write to its cache line to be in the way, and frees it.
fn operate() {
    let mut block = Box::new(0_u8);
    for _ in 0..WRITES {
        let byte = black_box(&mut *block);
        *byte = byte.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_all_threads_count() {
        assert_eq!(turn(3, 2, true), 6);
        assert_eq!(turn(2, 1, false), 2);
    }
}
