//! The rows of the comparison: a name, a meaning, and the workload behind it.

use std::str::FromStr;
use std::time::Duration;

use crate::workloads::aged::{self, Keeper};
use crate::workloads::burst::{Afterwards, Survivors};
use crate::workloads::{
    alloc_test, boxes, burst, cache_lines, escape, glibc_thread, growth, http, in_flight, json, live,
    mstress, processes, rptest, sh6bench, short_threads, talc_actions, threads, trace, xmalloc,
};
use crate::{Clock, Outcome, Scope, Unit, bench};

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
    /// [`burst::burst`]
    Burst,
    /// [`burst::burst`] without survivors
    BurstNoSurvivors,
    /// [`burst::burst`] with a request now and then in place of silence, and without a scavenger
    BurstTraffic,
    /// [`escape::escape`]
    Escape,
    /// [`in_flight::in_flight`]
    InFlight,
    /// [`aged::aged`]
    Aged,
    /// [`aged::aged`], entries made through `outside_arena`
    AgedOutside,
    /// [`aged::night`]
    AgedNight,
    /// [`aged::night`], entries made through `outside_arena`
    AgedOutsideNight,
    /// [`short_threads::threads`]
    Threads,
    /// [`processes::start`]
    Start,
    /// [`processes::hello`]
    Hello,
    /// [`xmalloc::one_size`]
    XmallocTest,
    /// [`xmalloc::mixed_sizes`]
    XmallocTestMixed,
    /// [`mstress::mstress`]
    Mstress,
    /// [`rptest::rptest`]
    Rptest,
    /// [`sh6bench::sh6bench`]
    Sh6bench,
    /// [`cache_lines::scratch`]
    CacheScratch,
    /// [`cache_lines::thrash`]
    CacheThrash,
    /// [`alloc_test::one_thread`]
    AllocTest,
    /// [`alloc_test::threads`]
    AllocTestThreads,
    /// [`glibc_thread::glibc_thread`]
    GlibcThread,
    /// [`talc_actions::one_thread`]
    TalcActions,
    /// [`talc_actions::threads`]
    TalcActionsThreads,
    /// [`http::typical_fragmented`]
    TypicalFragmented,
    /// [`json::json_fragmented`]
    JsonFragmented,
    /// A workload of `cargo bench`: a row of the report.
    Bench(bench::Workload),
}

/// What a row belongs to; rows can be chosen by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// What is measured if nothing is chosen.
    Usual,
    /// After the benchmarks of other allocators, each named as they are.
    Ported,
    /// On a heap that has been in use for long.
    Fragmented,
}

impl Group {
    /// Every group.
    pub const ALL: [Group; 3] = [Group::Usual, Group::Ported, Group::Fragmented];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Group::Usual => "usual",
            Group::Ported => "ported",
            Group::Fragmented => "fragmented",
        }
    }
}

/// How long a row may take.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// The measuring time of rows that measure time.
    pub clock: Clock,
    /// How long rows wait that look at what goes back to the system.
    pub idle: Duration,
}

/// The part of [`Effort::idle`] that [`Row::AgedNight`] and [`Row::AgedOutsideNight`] wait.
const NIGHT: f64 = 0.3;

impl Row {
    /// Every row of the comparison, in the order in which they are printed.
    pub const ALL: [Row; 38] = [
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
        Row::Burst,
        Row::BurstNoSurvivors,
        Row::BurstTraffic,
        Row::Escape,
        Row::InFlight,
        Row::Aged,
        Row::AgedOutside,
        Row::AgedNight,
        Row::AgedOutsideNight,
        Row::Threads,
        Row::Start,
        Row::Hello,
        Row::XmallocTest,
        Row::XmallocTestMixed,
        Row::Mstress,
        Row::Rptest,
        Row::Sh6bench,
        Row::CacheScratch,
        Row::CacheThrash,
        Row::AllocTest,
        Row::AllocTestThreads,
        Row::GlibcThread,
        Row::TalcActions,
        Row::TalcActionsThreads,
        Row::TypicalFragmented,
        Row::JsonFragmented,
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
            Row::Burst => "burst",
            Row::BurstNoSurvivors => "burst-no-survivors",
            Row::BurstTraffic => "burst-traffic",
            Row::Escape => "escape",
            Row::InFlight => "in-flight",
            Row::Aged => "aged",
            Row::AgedOutside => "aged-outside",
            Row::AgedNight => "aged-night",
            Row::AgedOutsideNight => "aged-outside-night",
            Row::Threads => "threads",
            Row::Start => "start",
            Row::Hello => "hello",
            Row::XmallocTest => "xmalloc-test",
            Row::XmallocTestMixed => "xmalloc-test-mixed",
            Row::Mstress => "mstress",
            Row::Rptest => "rptest",
            Row::Sh6bench => "sh6bench",
            Row::CacheScratch => "cache-scratch",
            Row::CacheThrash => "cache-thrash",
            Row::AllocTest => "alloc-test",
            Row::AllocTestThreads => "alloc-test-threads",
            Row::GlibcThread => "glibc-thread",
            Row::TalcActions => "talc-actions",
            Row::TalcActionsThreads => "talc-actions-threads",
            Row::TypicalFragmented => "typical-fragmented",
            Row::JsonFragmented => "json-fragmented",
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
            Row::Burst => {
                "part of the peak returned after a spike of 5000 requests (281 MB) and silence, 1 block in 20 survives"
            }
            Row::BurstNoSurvivors => "the same, and no block survives",
            Row::BurstTraffic => {
                "as burst, but with 100 small requests a second in place of silence, and without a scavenger"
            }
            Row::Escape => {
                "memory over kept bytes, 100,000 requests of 4 KiB of which each leaves 100 B in a cache"
            }
            Row::InFlight => "memory of each of 10,000 requests of 2 KiB at once",
            Row::Aged => {
                "a request of 20 to 80 objects among 2000 at once, 3 in 10 leave an entry in a cache of 50,000"
            }
            Row::AgedOutside => "the same, the entry made through `outside_arena`",
            Row::AgedNight => "memory over live cache after aged, nothing in flight and silence",
            Row::AgedOutsideNight => "the same after aged-outside",
            Row::Threads => "growth over 4000 short threads",
            Row::Start => "a process that begins, serves one request and ends",
            Row::Hello => "memory of a process that has just begun",
            Row::XmallocTest => "a block of 64 B from a producer to a consumer, after xmalloc-test -s 64",
            Row::XmallocTestMixed => "the same with 8 B to 2 KiB, after xmalloc-test -s -1",
            Row::Mstress => {
                "a block of mixed lifetime, some exchanged between threads, after mstress N 50 25"
            }
            Row::Rptest => "a block of 8 to 16,000 B replaced, half of them across threads, after rptest",
            Row::Sh6bench => "a block of 8 to 1000 B, freed in order and against it, after sh6bench 2N",
            Row::CacheScratch => {
                "a block of 1 B written 20,000 times after one from another thread, after cache-scratch N"
            }
            Row::CacheThrash => "a block of 1 B written 20,000 times, after cache-thrash N",
            Row::AllocTest => "a random place filled or emptied, sizes after Pareto, after alloc-test 1",
            Row::AllocTestThreads => "the same in a thread for each core, after alloc-test N",
            Row::GlibcThread => {
                "a block of 8 B to 32 KiB replaced, a thread for each core, after glibc-thread N"
            }
            Row::TalcActions => {
                "a random allocation, free or reallocation of 8 to 200 B, after talc's random actions"
            }
            Row::TalcActionsThreads => "the same in four threads",
            Row::TypicalFragmented => "typical on a heap that has been in use for long",
            Row::JsonFragmented => "json on a heap that has been in use for long",
            Row::Bench(workload) => workload.operation(),
        }
    }

    /// What its number counts.
    pub fn unit(self) -> Unit {
        match self {
            Row::Burst | Row::BurstNoSurvivors | Row::BurstTraffic => Unit::PercentReturned,
            Row::Escape | Row::AgedNight | Row::AgedOutsideNight => Unit::OverKept,
            Row::InFlight => Unit::KibPerRequest,
            Row::Threads => Unit::KibGrown,
            Row::Hello => Unit::Kib,
            _ => Unit::Nanoseconds,
        }
    }

    /// What it belongs to.
    pub fn group(self) -> Group {
        match self {
            Row::TypicalFragmented | Row::JsonFragmented => Group::Fragmented,
            Row::XmallocTest
            | Row::XmallocTestMixed
            | Row::Mstress
            | Row::Rptest
            | Row::Sh6bench
            | Row::CacheScratch
            | Row::CacheThrash
            | Row::AllocTest
            | Row::AllocTestThreads
            | Row::GlibcThread
            | Row::TalcActions
            | Row::TalcActionsThreads => Group::Ported,
            _ => Group::Usual,
        }
    }

    /// How often it is measured where rows that are short are measured `rounds` times: less often if it takes long or
    /// its number, about memory, hardly changes from one run to the next.
    pub fn rounds(self, rounds: u32) -> u32 {
        match self {
            _ if self.waits() => rounds.div_ceil(4),
            Row::Aged | Row::AgedOutside => rounds.div_ceil(3),
            Row::Escape | Row::InFlight | Row::Threads => rounds.div_ceil(2),
            Row::TypicalFragmented | Row::JsonFragmented => rounds.div_ceil(2),
            _ => rounds,
        }
    }

    /// Whether it mostly waits and looks at memory only, so that several processes may run at once.
    pub fn waits(self) -> bool {
        matches!(
            self,
            Row::Burst | Row::BurstNoSurvivors | Row::BurstTraffic | Row::AgedNight | Row::AgedOutsideNight
        )
    }

    /// Whether Shockwave's scavenger looks after memory meanwhile, as in a server that minds it.
    pub fn has_scavenger(self) -> bool {
        self.waits() && self != Row::BurstTraffic
    }

    /// Whether a bump allocator that frees nothing can run it: each operation drops all it allocated.
    pub fn has_floor(self) -> bool {
        matches!(self, Row::Batch | Row::Trace | Row::Typical | Row::Headers | Row::Json)
    }

    /// Runs the workload, its operations within `S` if they are requests. The error is one line.
    pub fn measure<S: Scope>(self, effort: &Effort) -> Result<Outcome, String> {
        let Effort { clock, idle } = effort;
        let sample = match self {
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
            Row::Burst => return memory(burst::burst::<S>(*idle, Survivors::Some, Afterwards::Silence)),
            Row::BurstNoSurvivors => {
                return memory(burst::burst::<S>(*idle, Survivors::None, Afterwards::Silence));
            }
            Row::BurstTraffic => {
                return memory(burst::burst::<S>(*idle, Survivors::Some, Afterwards::Traffic));
            }
            Row::Escape => return memory(escape::escape::<S>()),
            Row::InFlight => return memory(in_flight::in_flight::<S>()),
            Row::Aged => aged::aged::<S>(clock, Keeper::Unmodified),
            Row::AgedOutside => aged::aged::<S>(clock, Keeper::Outside),
            Row::AgedNight => return memory(aged::night::<S>(idle.mul_f64(NIGHT), Keeper::Unmodified)),
            Row::AgedOutsideNight => return memory(aged::night::<S>(idle.mul_f64(NIGHT), Keeper::Outside)),
            Row::Threads => return memory(short_threads::threads::<S>()),
            Row::Start => processes::start(clock)?,
            Row::Hello => return memory(processes::hello()),
            Row::XmallocTest => xmalloc::one_size(clock),
            Row::XmallocTestMixed => xmalloc::mixed_sizes(clock),
            Row::Mstress => mstress::mstress(clock),
            Row::Rptest => rptest::rptest(clock),
            Row::Sh6bench => sh6bench::sh6bench(clock),
            Row::CacheScratch => cache_lines::scratch(clock),
            Row::CacheThrash => cache_lines::thrash(clock),
            Row::AllocTest => alloc_test::one_thread(clock),
            Row::AllocTestThreads => alloc_test::threads(clock),
            Row::GlibcThread => glibc_thread::glibc_thread(clock),
            Row::TalcActions => talc_actions::one_thread(clock),
            Row::TalcActionsThreads => talc_actions::threads(clock),
            Row::TypicalFragmented => http::typical_fragmented::<S>(clock),
            Row::JsonFragmented => json::json_fragmented::<S>(clock),
            Row::Bench(workload) => workload.drive::<S::Requests, _>(clock),
        };
        Ok(sample.into())
    }
}

/// The outcome of a row about memory.
fn memory(value: Option<f64>) -> Result<Outcome, String> {
    value.map(Outcome::of_memory).ok_or_else(|| "the system does not tell the resident memory".to_owned())
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
