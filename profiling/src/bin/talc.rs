//! The workloads on talc: one heap behind the spin lock that its guide takes, memory from the system allocator.

use std::alloc::System;

use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::GlobalAllocSource;

#[global_allocator]
static GLOBAL: TalcLock<RawSpinlock, GlobalAllocSource<System>> =
    TalcLock::new(GlobalAllocSource::new(System));

fn main() {
    profiling::run::<profiling::NoScope>();
}
