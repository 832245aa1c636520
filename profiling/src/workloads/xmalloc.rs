//! Producers that allocate and consumers that free.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::cores;
use crate::blocks::{Block, Random, below};
use crate::process::Stopwatch;
use crate::{Clock, Sample};

/// Blocks that are handed over at once.
const BATCH: usize = 4096;

/// Batches that may wait at once.
const WAITING: usize = 100;

/// The sizes of `-s -1`, in bytes, all equally likely.
const MIXED: [usize; 17] = [8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048];

/// The size of `-s 64`.
const ONE: [usize; 1] = [64];

/// One operation: a producer allocates a block of 64 B, a consumer frees it. There are as many of each as the machine
/// has cores. Blocks travel in batches of 4096, at most 100 batches wait. After xmalloc-test (Lever and Boreham, 2000)
/// as mimalloc-bench runs it: `-w N -s 64`.
pub fn one_size(clock: &Clock) -> Sample {
    measure(clock, &ONE)
}

/// The same with blocks of 8 B to 2 KiB: `-w N -s -1`.
pub fn mixed_sizes(clock: &Clock) -> Sample {
    measure(clock, &MIXED)
}

fn measure(clock: &Clock, sizes: &[usize]) -> Sample {
    run(clock.warm_up(), cores(), sizes);
    run(clock.time(), cores(), sizes)
}

/// The batches that wait. Its own memory is there before the clock runs.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    full: Vec<Vec<Block>>,
    empty: Vec<Vec<Block>>,
    producers: usize,
    freed: u64,
}

/// Runs `pairs` producers and as many consumers for `time`.
fn run(time: Duration, pairs: usize, sizes: &[usize]) -> Sample {
    // Beside those that wait each thread holds one.
    let empty = (0..WAITING + 2 * pairs).map(|_| Vec::with_capacity(BATCH)).collect();
    let state = State { full: Vec::with_capacity(WAITING), empty, producers: pairs, freed: 0 };
    let queue = Queue { state: Mutex::new(state), changed: Condvar::new() };
    let watch = Stopwatch::start();
    thread::scope(|scope| {
        for pair in 0..pairs {
            let (queue, watch) = (&queue, &watch);
            scope.spawn(move || produce(queue, sizes, Random::new(pair as u64), || watch.elapsed() < time));
            scope.spawn(move || consume(queue));
        }
    });
    let state = queue.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    watch.stop(state.freed)
}

/// Hands batches over while `goes_on`, and one at least.
fn produce(queue: &Queue, sizes: &[usize], mut random: Random, goes_on: impl Fn() -> bool) {
    loop {
        let mut state = queue.lock();
        while state.full.len() >= WAITING {
            state = queue.wait(state);
        }
        let mut batch = state.empty.pop().expect("there is one for each that can be in use");
        drop(state);
        batch.extend((0..BATCH).map(|_| Block::new(sizes[below(random.bits(), sizes.len())])));
        queue.lock().full.push(batch);
        queue.changed.notify_all();
        if !goes_on() {
            break;
        }
    }
    queue.lock().producers -= 1;
    queue.changed.notify_all();
}

/// Frees batches until none can come any more.
fn consume(queue: &Queue) {
    let mut state = queue.lock();
    loop {
        if let Some(mut batch) = state.full.pop() {
            drop(state);
            queue.changed.notify_all();
            batch.clear();
            state = queue.lock();
            state.freed += BATCH as u64;
            state.empty.push(batch);
        } else if state.producers == 0 {
            return;
        } else {
            state = queue.wait(state);
        }
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    fn wait<'a>(&self, state: std::sync::MutexGuard<'a, State>) -> std::sync::MutexGuard<'a, State> {
        self.changed.wait(state).expect("no thread panics with the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_is_freed() {
        for sizes in [&ONE[..], &MIXED[..]] {
            let sample = run(Duration::from_millis(20), 2, sizes);
            assert!(sample.operations > 0 && sample.operations.is_multiple_of(BATCH as u64));
        }
    }
}
