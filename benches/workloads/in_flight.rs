//! Memory of requests that are being served at the same time.

use std::hint::black_box;

use super::message::Message;
use super::pressure::Pressure;
use super::resident::resident_bytes;
use super::{Pool, Scope, Workload, rate};

/// Operations on the cache before its memory is looked at: each entry has been replaced some three times.
const CHURN: usize = 200_000;

/// Resident memory that a workload takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Memory {
    /// Bytes for each of so many requests that are open at once, their table included.
    PerRequest(f64, usize),
    /// As a multiple of the bytes that the live cache asks for, after it has been replaced several times.
    OverLive(f64),
}

impl Memory {
    /// Measures it; `None` if the system does not tell. Only in a process that has done nothing else: what an
    /// allocator keeps from earlier work would serve these requests and not be counted.
    pub fn measure<S: Scope>(workload: Workload) -> Option<Memory> {
        let requests = |count, message: Message| hold::<S, _>(count, || message.parse());
        match workload {
            Workload::TypicalRequest => requests(5000, Message::typical()),
            Workload::LargeRequest => requests(200, Message::large()),
            Workload::ManyHeaders => requests(2000, Message::many_headers()),
            Workload::AllocationRate => hold::<S, _>(5000, rate::Fields::filled),
            Workload::LocalityBuild | Workload::LocalityRead => requests(5000, Message::small()),
            Workload::ThroughputOne | Workload::ThroughputTwo => requests(5000, Message::one_header()),
            Workload::TypicalPooled => hold_objects::<S::Pool>(5000, Message::typical()),
            Workload::LargePooled => hold_objects::<S::Pool>(200, Message::large()),
            Workload::ManyPooled => hold_objects::<S::Pool>(2000, Message::many_headers()),
            Workload::ThroughputPooled => hold_objects::<S::Pool>(5000, Message::one_header()),
            Workload::Pressure => churn::<S>(false),
            Workload::PressureOutside => churn::<S>(true),
        }
    }
}

/// Keeps `count` requests open.
fn hold<S: Scope, T>(count: usize, begin: impl Fn() -> T) -> Option<Memory> {
    // What the first request of a process sets up is not its own.
    drop(S::open(&begin));
    let before = resident_bytes()?;
    let mut open: Vec<(T, S::Open)> = Vec::with_capacity(count);
    for _ in 0..count {
        open.push(S::open(&begin));
    }
    let after = resident_bytes()?;
    black_box(&open);
    Some(Memory::PerRequest(after.saturating_sub(before) as f64 / count as f64, count))
}

/// Keeps `count` filled objects of a pool.
fn hold_objects<P: Pool>(count: usize, message: Message) -> Option<Memory> {
    let pool = P::new();
    drop(pool.fill(&message));
    let before = resident_bytes()?;
    let mut filled = Vec::with_capacity(count);
    for _ in 0..count {
        filled.push(pool.fill(&message));
    }
    let after = resident_bytes()?;
    black_box(&filled);
    Some(Memory::PerRequest(after.saturating_sub(before) as f64 / count as f64, count))
}

/// Replaces the entries of the cache again and again.
fn churn<S: Scope>(outside: bool) -> Option<Memory> {
    let before = resident_bytes()?;
    let mut pressure = Pressure::new();
    for _ in 0..CHURN {
        black_box(if outside {
            pressure.operate::<S>(|make| S::outside(make))
        } else {
            pressure.operate::<S>(|make| make())
        });
    }
    let after = resident_bytes()?;
    Some(Memory::OverLive(after.saturating_sub(before) as f64 / pressure.live_bytes() as f64))
}
