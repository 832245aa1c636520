//! Each thread replaces blocks of its own, of all sizes up to 32 KiB.

use std::thread;

use super::cores;
use crate::blocks::{Block, Random, below};
use crate::process::Stopwatch;
use crate::{Clock, Sample};

/// Places of a thread.
const PLACES: usize = 1024;

/// Sizes, in bytes. The original begins with 4 B.
const SIZES: (usize, usize) = (Block::MIN_SIZE, 32 << 10);

/// Sizes drawn before the clock runs.
const DRAWN: usize = 8000;

/// Operations between two looks at the clock.
const OPERATIONS: usize = 1000;

/// One operation: a thread frees the block in a random one of its 1024 places and makes another one there. Sizes are of
/// 8 B to 32 KiB, their likelihood falls with the square. One thread for each core. After bench-malloc-thread of glibc,
/// `glibc-thread N`; the original runs for 2 s.
pub fn glibc_thread(clock: &Clock) -> Sample {
    let mut drawn = Random::new(0);
    let sizes: Vec<u16> = (0..DRAWN).map(|_| size(drawn.bits()) as u16).collect();
    run(clock.warm_up().as_nanos() as u64, &sizes);
    run(clock.time().as_nanos() as u64, &sizes)
}

/// Runs the threads for a time in nanoseconds.
fn run(nanoseconds: u64, sizes: &[u16]) -> Sample {
    let watch = Stopwatch::start();
    let operations = thread::scope(|scope| {
        let running: Vec<_> = (0..cores())
            .map(|thread| {
                let watch = &watch;
                let goes_on = move || (watch.elapsed().as_nanos() as u64) < nanoseconds;
                scope.spawn(move || replace(sizes, Random::new(thread as u64), goes_on))
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    });
    watch.stop(operations)
}

/// One thread; how many operations it did.
fn replace(sizes: &[u16], mut random: Random, goes_on: impl Fn() -> bool) -> u64 {
    let mut places: Vec<Option<Block>> = (0..PLACES).map(|_| None).collect();
    let (mut next, mut operations) = (below(random.bits(), sizes.len()), 0);
    while goes_on() {
        for _ in 0..OPERATIONS {
            let place = &mut places[below(random.bits(), PLACES)];
            // Freed first, as there.
            *place = None;
            *place = Some(Block::new(usize::from(sizes[next])));
            next = if next + 1 == sizes.len() { 0 } else { next + 1 };
        }
        operations += OPERATIONS as u64;
    }
    operations
}

/// A size whose likelihood falls with its square: its inverse is equally likely everywhere.
fn size(bits: u64) -> usize {
    let uniform = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    let (small, large) = (1.0 / SIZES.0 as f64, 1.0 / SIZES.1 as f64);
    (1.0 / (large + uniform * (small - large))) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihood_falls_with_the_square() {
        let mut random = Random::new(1);
        let sizes: Vec<usize> = (0..100_000).map(|_| size(random.bits())).collect();
        assert!(sizes.iter().all(|size| (8..=32 << 10).contains(size)));
        // Twice the size is half as likely to be exceeded.
        let above = |least: usize| sizes.iter().filter(|size| **size >= least).count() as f64;
        assert!((1.8..2.2).contains(&(above(64) / above(128))));
    }

    #[test]
    fn threads_end_with_the_time() {
        assert!(run(1_000_000, &[8, 32_768]).operations.is_multiple_of(OPERATIONS as u64));
    }
}
