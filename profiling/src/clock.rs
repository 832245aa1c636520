//! How long an operation takes.

use std::hint::black_box;
use std::time::Duration;

use crate::Scope;
use crate::bench::{self, run_together};
use crate::process::page_faults;

/// The least time between two looks at the clock, which is a system call, so that looking costs nothing
/// measurable.
const SLICE: Duration = Duration::from_millis(1);

/// The part of the time that warms caches, branch predictors and the allocator before measuring starts.
const WARM_UP_SHARE: u32 = 5;

/// Operations with which threads begin to look for how many fill the time. Few of them may take long only because a
/// thread started late.
const FIRST_ITERATIONS: u64 = 1000;

/// What one process measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Time of all operations, in nanoseconds.
    pub nanoseconds: u64,
    /// How many operations ran in that time.
    pub operations: u64,
    /// Page faults of the process in that time.
    pub faults: u64,
}

impl Sample {
    /// Nanoseconds per operation.
    pub fn per_operation(&self) -> f64 {
        self.nanoseconds as f64 / self.operations as f64
    }
}

/// Runs operations for a given time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    time: Duration,
}

impl Clock {
    /// A clock that measures for `time`, after a warm-up of a fifth of it.
    pub fn new(time: Duration) -> Self {
        Self { time }
    }

    /// How long to measure.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// How long to run before measuring.
    pub fn warm_up(&self) -> Duration {
        self.time / WARM_UP_SHARE
    }

    /// Calls `call` until the time is over; each call counts as `operations`. Allocates nothing itself.
    ///
    /// It is the processor time of this thread, in user and kernel: the same as wall time on a quiet machine,
    /// and on a busy one without the time that other programs take.
    pub fn measure(&self, operations: u64, mut call: impl FnMut() -> u64) -> Sample {
        let mut calls_per_slice = 1;
        let warm_until = processor_time() + self.warm_up();
        loop {
            let slice = timed(calls_per_slice, &mut call);
            if slice < SLICE {
                calls_per_slice *= 2;
            } else if processor_time() >= warm_until {
                break;
            }
        }
        let (mut spent, mut calls) = (Duration::ZERO, 0);
        let faults = page_faults();
        while spent < self.time {
            let slice = timed(calls_per_slice, &mut call);
            spent += slice;
            calls += calls_per_slice;
            // The warm-up may have ended on slow calls, after which slices would be too short.
            if slice < SLICE {
                calls_per_slice *= 2;
            }
        }
        let faults = page_faults() - faults;
        Sample { nanoseconds: spent.as_nanos() as u64, operations: calls * operations, faults }
    }

    /// [`measure`](Self::measure), each call in a scope of its own.
    ///
    /// # Safety
    ///
    /// No block that `call` allocates is used, or freed, after that call has returned.
    pub unsafe fn measure_scoped<S: Scope>(&self, operations: u64, mut call: impl FnMut() -> u64) -> Sample {
        // What is set up once, on first use, stays outside the scopes.
        black_box(call());
        // SAFETY: the caller's promise.
        self.measure(operations, || unsafe { S::run(&mut call) })
    }
}

impl bench::Driver for &Clock {
    type Output = Sample;

    fn alone<F: FnMut() -> u64>(self, make: impl FnOnce() -> F) -> Sample {
        self.measure(1, make())
    }

    /// In wall time, since the slower thread decides. The operations of all threads count.
    fn together<F: FnMut() -> u64>(self, threads: usize, make: impl Fn() -> F + Sync) -> Sample {
        let mut iterations = FIRST_ITERATIONS;
        let mut time = run_together(threads, iterations, &make);
        while time < self.warm_up() {
            iterations *= 2;
            time = run_together(threads, iterations, &make);
        }
        let iterations = (iterations as f64 * self.time.as_secs_f64() / time.as_secs_f64()).ceil() as u64;
        let faults = page_faults();
        let time = run_together(threads, iterations, &make);
        let faults = page_faults() - faults;
        Sample { nanoseconds: time.as_nanos() as u64, operations: iterations * threads as u64, faults }
    }
}

/// Time of `calls` calls.
#[inline]
fn timed(calls: u64, call: &mut impl FnMut() -> u64) -> Duration {
    let start = processor_time();
    for _ in 0..calls {
        black_box(call());
    }
    processor_time() - start
}

/// What this thread has run for since it started.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "every system that has the clock can read it");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoScope;

    #[test]
    fn counts_every_operation() {
        let clock = Clock::new(Duration::from_millis(5));
        let mut calls = 0;
        // SAFETY: allocates nothing.
        let sample = unsafe {
            clock.measure_scoped::<NoScope>(10, || {
                calls += 1;
                calls
            })
        };
        assert!(sample.nanoseconds >= 5_000_000);
        assert_eq!(sample.operations % 10, 0);
        assert!(sample.operations / 10 < calls, "the warm-up is not counted");
    }
}
