//! Has criterion call the operations.

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;

use crate::workloads::{Driver, run_together};

/// One function of a group. The output is whether it has run, or was left out by the filter.
pub struct Bench<'group, 'criterion> {
    /// The group.
    pub group: &'group mut BenchmarkGroup<'criterion, WallTime>,
    /// The function's name.
    pub function: &'static str,
}

impl Driver for Bench<'_, '_> {
    type Output = bool;

    fn alone<F: FnMut() -> u64>(self, make: impl FnOnce() -> F) -> bool {
        // Criterion calls the closure once per sample. What an operation works on is made once, and only if
        // the function runs, so that a live heap ages over the samples.
        let (mut make, mut operation) = (Some(make), None);
        self.group.bench_function(self.function, |bencher| {
            if let Some(make) = make.take() {
                operation = Some(make());
            }
            if let Some(operation) = &mut operation {
                bencher.iter(operation);
            }
        });
        operation.is_some()
    }

    fn together<F: FnMut() -> u64>(self, threads: usize, make: impl Fn() -> F + Sync) -> bool {
        let mut has_run = false;
        self.group.bench_function(self.function, |bencher| {
            has_run = true;
            // Criterion would count the time to start the threads.
            bencher.iter_custom(|iterations| run_together(threads, iterations, &make));
        });
        has_run
    }
}
