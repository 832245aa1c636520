//! The rows of the comparison: a name, a meaning, and the workload behind it.

use std::str::FromStr;

use crate::workloads::{boxes, growth, http, json, live, threads, trace};
use crate::{Clock, Sample, Scope, bench};

/// One row of the comparison. What an operation is, and where its parameters come from, stands at the
/// workload's function in [`workloads`](crate::workloads).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// [`boxes::pair`]
    Pair,
    /// [`boxes::batch`]
    Batch,
    /// [`trace::trace`]
    Trace,
    /// [`http::typical`]
    Typical,
    /// [`http::headers`]
    Headers,
    /// [`http::large`]
    Large,
    /// [`json::json`]
    Json,
    /// [`live::random`]
    Random,
    /// [`live::mid`]
    Mid,
    /// [`growth::vecgrow`]
    VecGrow,
    /// [`threads::xfree`]
    XFree,
    /// [`threads::larson`]
    Larson,
    /// A workload of `cargo bench`: a row of the report.
    Bench(bench::Workload),
}

impl Row {
    /// Every row of the comparison, in the order in which they are printed.
    pub const ALL: [Row; 12] = [
        Row::Pair,
        Row::Batch,
        Row::Trace,
        Row::Typical,
        Row::Headers,
        Row::Large,
        Row::Json,
        Row::Random,
        Row::Mid,
        Row::VecGrow,
        Row::XFree,
        Row::Larson,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Row::Pair => "pair",
            Row::Batch => "batch",
            Row::Trace => "trace",
            Row::Typical => "typical",
            Row::Headers => "headers",
            Row::Large => "large",
            Row::Json => "json",
            Row::Random => "random",
            Row::Mid => "mid",
            Row::VecGrow => "vecgrow",
            Row::XFree => "xfree",
            Row::Larson => "larson",
            Row::Bench(workload) => workload.name(),
        }
    }

    /// One operation, in words.
    pub fn operation(self) -> &'static str {
        match self {
            Row::Pair => "a box of 32 B, dropped",
            Row::Batch => "1000 boxes of 64 B, then all dropped",
            Row::Trace => "the 60 allocations and 20 grows of a request, without its compute",
            Row::Typical => "parse 4 headers and a body of 512 B, build the answer",
            Row::Headers => "parse 32 headers and a body of 512 B, build the answer",
            Row::Large => "parse 4 headers and a body of 64 KiB, build the answer",
            Row::Json => "serde_json::Value of 50 objects, parsed and printed",
            Row::Random => "one of 20,000 live blocks of 8 B to 2 KiB replaced",
            Row::Mid => "one of 256 live blocks of 4 KiB to 1 MiB replaced",
            Row::VecGrow => "a Vec<u64> pushed to 4 million",
            Row::XFree => "a block of 64 B, freed by another thread",
            Row::Larson => "a block of 8 to 1000 B replaced, slots handed from thread to thread (2 threads)",
            Row::Bench(workload) => workload.operation(),
        }
    }

    /// Whether a bump allocator that frees nothing can run it: each operation drops all it allocated.
    pub fn has_floor(self) -> bool {
        matches!(self, Row::Batch | Row::Trace | Row::Typical | Row::Headers | Row::Json)
    }

    /// Runs the workload, its operations within `S` if they are requests.
    pub fn measure<S: Scope>(self, clock: &Clock) -> Sample {
        match self {
            Row::Pair => boxes::pair::<S>(clock),
            Row::Batch => boxes::batch::<S>(clock),
            Row::Trace => trace::trace::<S>(clock),
            Row::Typical => http::typical::<S>(clock),
            Row::Headers => http::headers::<S>(clock),
            Row::Large => http::large::<S>(clock),
            Row::Json => json::json::<S>(clock),
            Row::Random => live::random(clock),
            Row::Mid => live::mid(clock),
            Row::VecGrow => growth::vecgrow(clock),
            Row::XFree => threads::xfree(clock),
            Row::Larson => threads::larson(clock),
            Row::Bench(workload) => workload.drive::<S::Requests, _>(clock),
        }
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let bench = bench::Workload::ALL.into_iter().map(Row::Bench);
        Row::ALL.into_iter().chain(bench).find(|row| row.name() == name).ok_or_else(|| {
            let names = Row::ALL.map(Row::name).join(", ");
            format!("unknown row '{name}'; accepted: {names}")
        })
    }
}
