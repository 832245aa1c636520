//! Allocations, frees and reallocations in random order.

use std::thread;

use crate::blocks::{Block, Random, below};
use crate::process::Stopwatch;
use crate::{Clock, Sample};

/// Blocks that are live at once, about.
const LIVE: usize = 300;

/// The fewest and the most that they become in between.
const BOUNDS: [usize; 2] = [LIVE * 3 / 4, LIVE * 5 / 4];

/// The largest size, in bytes.
const MAX_SIZE: usize = 200;

/// Threads of the second form.
const THREADS: usize = 4;

/// Operations between two looks at the clock.
const OPERATIONS: usize = 1000;

/// One operation: with some 300 live blocks of 8 to 200 B, a random one is freed, another one is made, or a random one
/// becomes larger or smaller, each as likely as the others. After random actions of talc's benchmarks (Beaumont),
/// where they are counted in 200 ms.
pub fn one_thread(clock: &Clock) -> Sample {
    let mut actions = Actions::new(1);
    clock.measure(1, || actions.act())
}

/// The same in four threads, each with blocks of its own.
pub fn threads(clock: &Clock) -> Sample {
    let mut actions: Vec<Actions> = (1..=THREADS as u64).map(Actions::new).collect();
    let watch = Stopwatch::start();
    let operations = thread::scope(|scope| {
        let running: Vec<_> = actions
            .iter_mut()
            .map(|actions| {
                let watch = &watch;
                scope.spawn(move || {
                    let mut operations = 0;
                    while watch.elapsed() < clock.time() {
                        (0..OPERATIONS).for_each(|_| _ = actions.act());
                        operations += OPERATIONS as u64;
                    }
                    operations
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    });
    watch.stop(operations)
}

/// The blocks of one thread.
struct Actions {
    blocks: Vec<Block>,
    random: Random,
}

impl Actions {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut blocks = Vec::with_capacity(BOUNDS[1]);
        blocks.extend((0..LIVE).map(|_| Block::new(size(random.bits()))));
        Self { blocks, random }
    }

    /// One operation.
    #[inline]
    fn act(&mut self) -> u64 {
        let bits = self.random.bits();
        let place = below(bits, self.blocks.len());
        match bits % 3 {
            // At a bound the third action takes the place of the others.
            0 if self.blocks.len() < BOUNDS[1] => self.blocks.push(Block::new(size(self.random.bits()))),
            1 if self.blocks.len() > BOUNDS[0] => drop(self.blocks.swap_remove(place)),
            _ => self.blocks[place].resize(size(self.random.bits())),
        }
        bits
    }
}

/// 8 to 200 B, all equally likely.
fn size(bits: u64) -> usize {
    Block::MIN_SIZE + below(bits, MAX_SIZE + 1 - Block::MIN_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_blocks_stay_within_bounds() {
        let mut actions = Actions::new(1);
        let mut seen = [LIVE; 2];
        for _ in 0..100_000 {
            actions.act();
            let live = actions.blocks.len();
            seen = [seen[0].min(live), seen[1].max(live)];
        }
        assert_eq!(seen, BOUNDS);
        assert!(actions.blocks.iter().all(|block| (8..=200).contains(&block.size())));
    }
}
