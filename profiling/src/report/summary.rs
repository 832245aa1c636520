//! The original's comparison table, row by row, with what is measured here.

use profiling::bench::Workload;

use super::page::winner;
use super::results::{Contest, Results};
use super::text::{bytes, digits, table, time};

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;

/// The section.
pub fn section(results: &Results) -> String {
    let timed = |name: &str, workload: Workload| line(name, &results.row(workload).time(), time);
    let mut rows = vec![
        timed("Typical request", Workload::TypicalRequest),
        timed("Typical request, pooled object", Workload::TypicalPooled),
        timed("Large request (64 KiB)", Workload::LargeRequest),
        timed("Large request, pooled object", Workload::LargePooled),
        timed("Many headers (32)", Workload::ManyHeaders),
        timed("Many headers, pooled object", Workload::ManyPooled),
        line("Throughput (2 threads)", &results.row(Workload::ThroughputTwo).time(), per_second),
        line("Throughput, pooled objects", &results.row(Workload::ThroughputPooled).time(), per_second),
        timed("Allocation rate", Workload::AllocationRate),
        timed("Cache locality", Workload::LocalityBuild),
        timed("Pressure of a live heap", Workload::Pressure),
    ];
    let typical = results.row(Workload::TypicalRequest);
    let calls = typical.calls().map(|calls| line("Calls to the heap (typical)", &calls, digits));
    let memory = typical.memory().map(|memory| line("Memory in flight (typical)", &memory, bytes));
    rows.extend([calls, memory].into_iter().flatten());
    format!("## In short\n\n{}", table(["workload", "standard", "slab", "arena", "winner"], rows))
}

fn line(name: &str, contest: &Contest, show: fn(f64) -> String) -> [String; 5] {
    let [standard, slab, arena] = contest.values.map(show);
    [name.to_owned(), standard, slab, arena, winner(contest)]
}

fn per_second(nanoseconds: f64) -> String {
    format!("{:.0} k/s", SECOND / nanoseconds / 1e3)
}
