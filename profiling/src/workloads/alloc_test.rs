//! Random places that are filled and emptied, sizes after Pareto.

use std::thread;

use super::cores;
use crate::blocks::{Block, Random, below};
use crate::process::Stopwatch;
use crate::{Clock, Sample};

/// Places of a thread.
const PLACES: usize = 1 << 15;

/// The largest size, in bytes.
const MAX_SIZE: usize = 1024;

/// Sizes drawn before the clock runs; a power of two.
const DRAWN: usize = 1 << 14;

/// Operations between two looks at the clock.
const OPERATIONS: usize = 10_000;

/// Pareto's exponent at which one fifth has four fifths: log 5 over log 4.
const EXPONENT: f64 = 1.160_964;

/// One operation: a random one of 32,768 places is filled if it is empty, else its block is read and freed. Sizes up to
/// 1 KiB follow Pareto's law, so most are small. After alloc-test (OLogN Technologies, 2018), `alloc-test 1`; the
/// original runs 100 million of these.
pub fn one_thread(clock: &Clock) -> Sample {
    measure(clock, 1)
}

/// The same in one thread for each core: `alloc-test N`.
pub fn threads(clock: &Clock) -> Sample {
    measure(clock, cores())
}

fn measure(clock: &Clock, threads: usize) -> Sample {
    if threads == 1 {
        let mut places = Places::new(1);
        return clock.measure(1, || places.operate());
    }
    let mut places: Vec<Places> = (0..threads).map(|thread| Places::new(thread as u64 + 1)).collect();
    let watch = Stopwatch::start();
    let operations = thread::scope(|scope| {
        let running: Vec<_> = places
            .iter_mut()
            .map(|places| {
                let watch = &watch;
                scope.spawn(move || {
                    let mut operations = 0;
                    while watch.elapsed() < clock.time() {
                        (0..OPERATIONS).for_each(|_| _ = places.operate());
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

/// The places of a thread.
struct Places {
    blocks: Vec<Option<Block>>,
    sizes: Vec<u16>,
    next: usize,
    random: Random,
}

impl Places {
    /// Half of them filled, as they are once it has run for long.
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let sizes: Vec<u16> = (0..DRAWN).map(|_| pareto(random.bits()) as u16).collect();
        let blocks = (0..PLACES)
            .map(|place| place.is_multiple_of(2).then(|| Block::new(usize::from(sizes[place % DRAWN]))))
            .collect();
        Self { blocks, sizes, next: 0, random }
    }

    /// One operation.
    #[inline]
    fn operate(&mut self) -> u64 {
        let place = &mut self.blocks[below(self.random.bits(), PLACES)];
        match place.take() {
            Some(block) => block.read_word(),
            None => {
                self.next = (self.next + 1) % DRAWN;
                *place = Some(Block::new(usize::from(self.sizes[self.next])));
                0
            }
        }
    }
}

/// A size of 8 to 1024 B.
fn pareto(bits: u64) -> usize {
    let uniform = ((bits >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    let size = Block::MIN_SIZE as f64 * uniform.powf(-1.0 / EXPONENT);
    (size as usize).clamp(Block::MIN_SIZE, MAX_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_sizes_are_small_and_some_are_not() {
        let mut random = Random::new(1);
        let sizes: Vec<usize> = (0..10_000).map(|_| pareto(random.bits())).collect();
        assert!(sizes.iter().all(|size| (8..=1024).contains(size)));
        assert!(sizes.iter().filter(|size| **size < 32).count() > 7500);
        assert!(sizes.iter().any(|size| *size > 500));
    }

    #[test]
    fn places_stay_half_full() {
        let mut places = Places::new(1);
        (0..3 * PLACES).for_each(|_| _ = places.operate());
        let full = places.blocks.iter().flatten().count();
        assert!((PLACES * 45 / 100..PLACES * 55 / 100).contains(&full), "{full}");
    }
}
