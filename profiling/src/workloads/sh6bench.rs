//! Blocks of rising sizes, freed in the order they were made and against it.

use std::thread;

use super::cores;
use crate::blocks::Block;
use crate::process::Stopwatch;
use crate::{Clock, Sample};

/// Sizes, in bytes. The original begins with 1 B.
const SIZES: (usize, usize) = (Block::MIN_SIZE, 1000);

/// Of each size so many bytes are made, so that small ones are more frequent.
const BYTES_PER_SIZE: usize = 4000;

/// Blocks a thread keeps at most before it frees them.
const KEPT: usize = 2500;

/// One operation: a block is made, and later freed. Two threads for each core go through all sizes of 8 to 1000 B and make
/// as many blocks of each as fit into 4000 B. When 2500 are live, the older half is freed in the order it was made and
/// the younger half against it; of every eight each time one stays longer. After sh6bench (MicroQuill, SmartHeap), as
/// mimalloc-bench runs it with `2N` threads.
pub fn sh6bench(clock: &Clock) -> Sample {
    let threads = 2 * cores();
    run(1);
    let watch = Stopwatch::start();
    let mut operations = 0;
    while watch.elapsed() < clock.time() {
        operations += run(threads);
    }
    watch.stop(operations)
}

/// Runs `threads` threads once, and tells how many blocks they made.
fn run(threads: usize) -> u64 {
    let running: Vec<_> = (0..threads).map(|_| thread::spawn(work)).collect();
    running.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
}

/// One thread; how many blocks it made.
fn work() -> u64 {
    let mut live: Vec<Option<Block>> = Vec::with_capacity(KEPT);
    let mut longer = Vec::with_capacity(KEPT);
    let mut made = 0;
    for size in SIZES.0..=SIZES.1 {
        for _ in 0..BYTES_PER_SIZE / size {
            live.push(Some(Block::new(size)));
            made += 1;
            if live.len() == KEPT {
                free(&mut live, &mut longer);
            }
        }
    }
    made
}

/// Frees `live`, and what stayed longer before; one in eight stays longer now.
fn free(live: &mut Vec<Option<Block>>, longer: &mut Vec<Block>) {
    longer.clear();
    longer.extend(live.iter_mut().step_by(8).filter_map(Option::take));
    let half = live.len() / 2;
    let (older, younger) = live.split_at_mut(half);
    older.iter_mut().for_each(|block| *block = None);
    younger.iter_mut().rev().for_each(|block| *block = None);
    live.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_eight_stays_until_the_next_time() {
        let full = || (0..80).map(|_| Some(Block::new(8))).collect::<Vec<_>>();
        let mut longer = Vec::new();
        for _ in 0..2 {
            let mut live = full();
            free(&mut live, &mut longer);
            assert_eq!((live.len(), longer.len()), (0, 10));
        }
        assert_eq!(run(2), 2 * (8..=1000).map(|size| 4000 / size).sum::<u64>());
    }
}
