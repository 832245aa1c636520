//! What is measured: requests in the shapes that the original's benchmarks are named after.
//!
//! The original is the memory package of the Go library Shockwave. Its benchmarks gave each side different
//! work, and part of that work was optimised away; here every mode runs the same generic code, contents are
//! really copied and really read, and only the allocator behind the code differs.
//!
//! A [`Workload`] is driven by a [`Driver`], within a [`Scope`]. Two programs do that: `cargo bench`, with
//! criterion, and `profiling report`, with a process for each mode and round.

mod counted;
mod figures;
mod in_flight;
mod locality;
mod message;
mod parallel;
mod pooled;
mod pressure;
mod random;
mod rate;
mod resident;

pub use counted::Counted;
pub use figures::{Figures, Reading};
pub use in_flight::Memory;
pub use message::{Message, sum};
pub use parallel::run_together;
pub use pooled::Pool;

use std::hint::black_box;
use std::str::FromStr;
use std::sync::Arc;

use locality::Locality;
use message::serve;
use pooled::pooled;
use pressure::Pressure;

/// What a program puts around each of its requests.
pub trait Scope: 'static {
    /// What a request that is still being served keeps open.
    type Open;

    /// Where its request objects come from, in the workloads that have some.
    type Pool: Pool;

    /// Serves a request from beginning to end.
    fn run<R>(request: impl FnOnce() -> R) -> R;

    /// Begins a request whose memory is needed until the second value is dropped.
    fn open<R>(request: impl FnOnce() -> R) -> (R, Self::Open);

    /// Makes something that outlives the request it is made in.
    fn outside<R>(make: impl FnOnce() -> R) -> R;
}

/// What calls the operations, and how often.
pub trait Driver {
    /// What it finds out.
    type Output;

    /// Calls what `make` returns, in one thread.
    fn alone<F: FnMut() -> u64>(self, make: impl FnOnce() -> F) -> Self::Output;

    /// Calls what `make` returns in each of `threads` threads at once; each thread makes its own.
    fn together<F: FnMut() -> u64>(self, threads: usize, make: impl Fn() -> F + Sync) -> Self::Output;
}

/// One workload. [`operation`](Self::operation) says what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// A small request.
    TypicalRequest,
    /// The same in an object of a pool.
    TypicalPooled,
    /// A request with a large body.
    LargeRequest,
    /// The same in an object of a pool.
    LargePooled,
    /// A request with many headers.
    ManyHeaders,
    /// The same in an object of a pool.
    ManyPooled,
    /// Allocations with little work in between.
    AllocationRate,
    /// Many live requests, made and read.
    LocalityBuild,
    /// Many live requests, only read.
    LocalityRead,
    /// A live heap that requests slowly replace.
    Pressure,
    /// The same by a program that says what outlives a request.
    PressureOutside,
    /// Small requests, one thread.
    ThroughputOne,
    /// Small requests, two threads.
    ThroughputTwo,
    /// Small requests in objects of one pool, two threads.
    ThroughputPooled,
}

impl Workload {
    /// Every workload, in the order of the tables.
    pub const ALL: [Workload; 14] = [
        Workload::TypicalRequest,
        Workload::TypicalPooled,
        Workload::LargeRequest,
        Workload::LargePooled,
        Workload::ManyHeaders,
        Workload::ManyPooled,
        Workload::AllocationRate,
        Workload::LocalityBuild,
        Workload::LocalityRead,
        Workload::Pressure,
        Workload::PressureOutside,
        Workload::ThroughputOne,
        Workload::ThroughputTwo,
        Workload::ThroughputPooled,
    ];

    /// Its name: group and function, the same in every mode, so that saved baselines find their partner.
    pub fn name(self) -> &'static str {
        match self {
            Workload::TypicalRequest => "typical_request/serve",
            Workload::TypicalPooled => "typical_request/pooled",
            Workload::LargeRequest => "large_request/serve",
            Workload::LargePooled => "large_request/pooled",
            Workload::ManyHeaders => "many_headers/serve",
            Workload::ManyPooled => "many_headers/pooled",
            Workload::AllocationRate => "allocation_rate/map_and_body",
            Workload::LocalityBuild => "cache_locality/build_and_read",
            Workload::LocalityRead => "cache_locality/read",
            Workload::Pressure => "pressure/unmodified",
            Workload::PressureOutside => "pressure/outside_arena",
            Workload::ThroughputOne => "throughput/1_thread",
            Workload::ThroughputTwo => "throughput/2_threads",
            Workload::ThroughputPooled => "throughput/2_threads_pooled",
        }
    }

    /// The parts of its name.
    pub fn group_and_function(self) -> (&'static str, &'static str) {
        self.name().split_once('/').expect("every name has both")
    }

    /// One operation, in words.
    pub fn operation(self) -> &'static str {
        match self {
            Workload::TypicalRequest => "a request with 4 headers and a body of 512 B is parsed and answered",
            Workload::TypicalPooled => {
                "such a request is copied into an object of the mode's pool, read, and the object returned"
            }
            Workload::LargeRequest => "a request with 4 headers and a body of 64 KiB is parsed and answered",
            Workload::LargePooled => "such a request is copied into an object of the mode's pool",
            Workload::ManyHeaders => "a request with 32 headers and a body of 512 B is parsed and answered",
            Workload::ManyPooled => "such a request is copied into an object of the mode's pool",
            Workload::AllocationRate => "a map with one entry and a body of 1 KiB, filled and dropped",
            Workload::LocalityBuild => "100 requests are parsed, all are live, all bytes are read, all end",
            Workload::LocalityRead => "all bytes of 100 live requests are read; nothing is allocated",
            Workload::Pressure => {
                "a request with a body of 1 KiB beside a live cache of 20,000 entries, 3 in 10 requests replace one"
            }
            Workload::PressureOutside => "the same, the entry made through `outside_arena`",
            Workload::ThroughputOne => "a request with 1 header and a body of 512 B, one thread (wall time)",
            Workload::ThroughputTwo => {
                "the same on two threads at once (wall time over the requests of both)"
            }
            Workload::ThroughputPooled => {
                "such a request is copied into an object of the mode's pool, which two threads share (likewise)"
            }
        }
    }

    /// How many threads it keeps busy.
    pub fn threads(self) -> usize {
        if matches!(self, Workload::ThroughputTwo | Workload::ThroughputPooled) { 2 } else { 1 }
    }

    /// Has `driver` call the operations.
    pub fn drive<S: Scope, D: Driver>(self, driver: D) -> D::Output {
        match self {
            Workload::TypicalRequest => driver.alone(|| served::<S>(Message::typical())),
            Workload::TypicalPooled => driver.alone(|| pooled(Arc::new(S::Pool::new()), Message::typical())),
            Workload::LargeRequest => driver.alone(|| served::<S>(Message::large())),
            Workload::LargePooled => driver.alone(|| pooled(Arc::new(S::Pool::new()), Message::large())),
            Workload::ManyHeaders => driver.alone(|| served::<S>(Message::many_headers())),
            Workload::ManyPooled => {
                driver.alone(|| pooled(Arc::new(S::Pool::new()), Message::many_headers()))
            }
            Workload::AllocationRate => driver.alone(|| || S::run(|| rate::Fields::filled().sum())),
            Workload::LocalityBuild => driver.alone(|| {
                let message = Message::small();
                move || Locality::<S>::build(black_box(&message)).read()
            }),
            Workload::LocalityRead => driver.alone(|| {
                let live = Locality::<S>::build_aged(&Message::small());
                move || black_box(&live).read()
            }),
            Workload::Pressure => driver.alone(|| {
                let mut pressure = Pressure::new();
                move || pressure.operate::<S>(|make| make())
            }),
            Workload::PressureOutside => driver.alone(|| {
                let mut pressure = Pressure::new();
                move || pressure.operate::<S>(|make| S::outside(make))
            }),
            Workload::ThroughputOne | Workload::ThroughputTwo => {
                driver.together(self.threads(), || served::<S>(Message::one_header()))
            }
            Workload::ThroughputPooled => {
                let pool = Arc::new(S::Pool::new());
                driver.together(self.threads(), || pooled(Arc::clone(&pool), Message::one_header()))
            }
        }
    }
}

impl FromStr for Workload {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Workload::ALL.into_iter().find(|workload| workload.name() == name).ok_or(())
    }
}

/// The operation that parses and answers `message`.
fn served<S: Scope>(message: Message) -> impl FnMut() -> u64 {
    move || S::run(|| serve(black_box(&message)))
}
