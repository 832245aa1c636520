//! What stands beside the time: calls, bytes and memory of a workload.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use super::{Counted, Driver, Memory, Scope, Workload};

/// Operations before counting starts, so that what is set up once is not counted.
const WARM_UP: u64 = 200;

/// Operations that are counted.
const COUNTED: u64 = 1000;

/// Counters of the allocator at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// Calls to the backing allocator.
    pub backing_calls: u64,
    /// Bytes that closed arenas were bumped through.
    pub arena_bytes: u64,
    /// Bytes of what was too big for an arena.
    pub bypassed_bytes: u64,
}

/// What one workload takes in one mode. Where something could not be measured there is no number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Calls to the allocator that the program makes per operation, and the bytes it asks for: the same in
    /// every mode. Only where [`Counted`] is installed.
    pub asked: Option<(f64, f64)>,
    /// Calls that reach the backing heap, per operation.
    pub backing_calls: Option<f64>,
    /// Bytes taken from arenas, and bytes too big for one, per operation.
    pub arena_bytes: Option<(f64, f64)>,
    /// Resident memory.
    pub memory: Option<Memory>,
}

impl Figures {
    /// Measures them, in a process that has done nothing else. `pass_all` makes every call reach the backing
    /// allocator from then on.
    pub fn measure<S: Scope>(workload: Workload, read: fn() -> Reading, pass_all: fn()) -> Figures {
        let memory = Memory::measure::<S>(workload);
        let (before, after) = workload.drive::<S, _>(Count(read));
        let per_operation = |from: u64, to: u64| to.wrapping_sub(from) as f64 / COUNTED as f64;
        pass_all();
        Counted::count(true);
        let ((calls, bytes), (calls_after, bytes_after)) = workload.drive::<S, _>(Count(Counted::totals));
        Counted::count(false);
        let asked = (per_operation(calls, calls_after), per_operation(bytes, bytes_after));
        Figures {
            asked: (calls_after > 0).then_some(asked),
            backing_calls: Some(per_operation(before.backing_calls, after.backing_calls)),
            arena_bytes: Some((
                per_operation(before.arena_bytes, after.arena_bytes),
                per_operation(before.bypassed_bytes, after.bypassed_bytes),
            )),
            memory,
        }
    }
}

/// Reads counters before and after a number of operations.
struct Count<R>(fn() -> R);

impl<R> Driver for Count<R> {
    type Output = (R, R);

    fn alone<F: FnMut() -> u64>(self, make: impl FnOnce() -> F) -> (R, R) {
        let mut operation = make();
        for _ in 0..WARM_UP {
            black_box(operation());
        }
        let before = self.0();
        for _ in 0..COUNTED {
            black_box(operation());
        }
        (before, self.0())
    }

    /// In one thread: the calls of an operation do not depend on how many run.
    fn together<F: FnMut() -> u64>(self, _: usize, make: impl Fn() -> F + Sync) -> (R, R) {
        self.alone(make)
    }
}

/// On one line, for a program that reads it back.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((calls, bytes)) = self.asked {
            write!(f, "asked {calls} {bytes} ")?;
        }
        if let Some(calls) = self.backing_calls {
            write!(f, "backing {calls} 0 ")?;
        }
        if let Some((bumped, bypassed)) = self.arena_bytes {
            write!(f, "arena {bumped} {bypassed} ")?;
        }
        match self.memory {
            Some(Memory::PerRequest(bytes, count)) => write!(f, "request {bytes} {count}"),
            Some(Memory::OverLive(ratio)) => write!(f, "live {ratio} 0"),
            None => Ok(()),
        }
    }
}

impl FromStr for Figures {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let mut figures = Figures::default();
        let mut words = line.split_whitespace();
        while let Some(name) = words.next() {
            let mut number = || words.next().and_then(|word| word.parse::<f64>().ok()).ok_or(());
            let (first, second) = (number()?, number()?);
            match name {
                "asked" => figures.asked = Some((first, second)),
                "backing" => figures.backing_calls = Some(first),
                "arena" => figures.arena_bytes = Some((first, second)),
                "request" => figures.memory = Some(Memory::PerRequest(first, second as usize)),
                "live" => figures.memory = Some(Memory::OverLive(first)),
                _ => return Err(()),
            }
        }
        Ok(figures)
    }
}
