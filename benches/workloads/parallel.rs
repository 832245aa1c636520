//! Operations in several threads at once.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Operations of each thread before the clock starts.
const WARM_UP: u64 = 100;

/// Runs `iterations` operations in each of `threads` threads, which start together. Returns the time from the
/// first start to the last end; starting and ending the threads is not part of it.
pub fn run_together<F: FnMut() -> u64>(
    threads: usize,
    iterations: u64,
    make: &(impl Fn() -> F + Sync),
) -> Duration {
    let barrier = Barrier::new(threads);
    let run = || {
        let mut operation = make();
        for _ in 0..WARM_UP {
            black_box(operation());
        }
        barrier.wait();
        let start = Instant::now();
        for _ in 0..iterations {
            black_box(operation());
        }
        (start, Instant::now())
    };
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().expect("operations do not panic")).collect()
    });
    let start = spans.iter().map(|(start, _)| *start).min();
    let end = spans.iter().map(|(_, end)| *end).max();
    start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start)
}
