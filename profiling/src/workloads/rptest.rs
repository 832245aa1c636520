//! Blocks of 8 B to 16 KB, in part freed by another thread.

use std::sync::Mutex;
use std::thread;

use super::cores;
use crate::blocks::{Block, Random, below};
use crate::process::Stopwatch;
use crate::{Clock, Sample};

/// Live blocks of a thread.
const BLOCKS: usize = 1000;

/// Of those a loop replaces so many.
const OPERATIONS: usize = 100;

/// Sizes, in bytes.
const SIZES: (usize, usize) = (8, 16_000);

/// Every so many loops a thread hands its replaced blocks to another one.
const CROSS: usize = 2;

/// Loops of a thread before it ends.
const LOOPS: usize = 500;

/// Blocks that wait for a thread: those of a loop, from each other thread.
type Mailbox = Mutex<Vec<Block>>;

/// One operation: a block is freed and another one takes its place. Each thread, one for each core, has 1000 live blocks
/// of 8 to 16,000 B, smaller ones linearly more likely. In each of its 500 loops it replaces 100 of them; in every
/// second loop another thread frees the old ones. After rpmalloc's benchmark (Jansson), as mimalloc-bench runs it:
/// `rptest N 0 1 2 500 1000 100 8 16000`.
pub fn rptest(clock: &Clock) -> Sample {
    run(cores(), LOOPS / 10);
    let watch = Stopwatch::start();
    let mut operations = 0;
    while watch.elapsed() < clock.time() {
        operations += run(cores(), LOOPS);
    }
    watch.stop(operations)
}

/// Runs `threads` threads of `loops` loops, and tells how many operations that were.
fn run(threads: usize, loops: usize) -> u64 {
    let mailboxes: Vec<Mailbox> = (0..threads).map(|_| Mutex::new(Vec::new())).collect();
    thread::scope(|scope| {
        for thread in 0..threads {
            let mailboxes = &mailboxes;
            scope.spawn(move || work(thread, mailboxes, loops));
        }
    });
    (threads * loops * OPERATIONS) as u64
}

/// One thread.
fn work(thread: usize, mailboxes: &[Mailbox], loops: usize) {
    let mut random = Random::new(thread as u64);
    let mut blocks: Vec<Block> = (0..BLOCKS).map(|_| Block::new(size(&mut random))).collect();
    // An odd step, so that all places have their turn.
    let (mut place, step) = (below(random.bits(), BLOCKS), 2 * below(random.bits(), BLOCKS / 2) + 1);
    for turn in 0..loops {
        let crosses = turn.is_multiple_of(CROSS) && mailboxes.len() > 1;
        let mut leaving = Vec::with_capacity(if crosses { OPERATIONS } else { 0 });
        for _ in 0..OPERATIONS {
            place = (place + step) % BLOCKS;
            let old = std::mem::replace(&mut blocks[place], Block::new(size(&mut random)));
            if crosses {
                leaving.push(old);
            }
        }
        if crosses {
            let receiver = &mailboxes[(thread + 1 + turn / CROSS % (mailboxes.len() - 1)) % mailboxes.len()];
            receiver.lock().expect("no thread panics with the lock").append(&mut leaving);
        }
        let arrived = std::mem::take(&mut *mailboxes[thread].lock().expect("no thread panics with the lock"));
        drop(arrived);
    }
}

/// A size whose likelihood falls linearly from the smallest to the largest: the smaller of two.
fn size(random: &mut Random) -> usize {
    let span = SIZES.1 - SIZES.0 + 1;
    SIZES.0 + below(random.bits(), span).min(below(random.bits(), span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sizes_are_more_likely() {
        let mut random = Random::new(3);
        let sizes: Vec<usize> = (0..10_000).map(|_| size(&mut random)).collect();
        assert!(sizes.iter().all(|size| (8..=16_000).contains(size)));
        let small = sizes.iter().filter(|size| **size < 8000).count();
        // Three quarters of the area under the line.
        assert!((7200..7800).contains(&small), "{small}");
    }

    #[test]
    fn threads_replace_what_they_should() {
        assert_eq!(run(3, 4), 1200);
    }
}
