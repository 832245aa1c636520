//! What is measured. Setup runs before the clock does; the timed part allocates nothing but what it measures.

pub mod aged;
pub mod alloc_test;
pub mod boxes;
pub mod burst;
pub mod cache_lines;
pub mod day;
pub mod escape;
mod fragmented;
pub mod glibc_thread;
pub mod growth;
pub mod http;
pub mod in_flight;
pub mod json;
pub mod live;
pub mod mstress;
pub mod processes;
pub mod rptest;
pub mod sh6bench;
pub mod short_threads;
pub mod tail;
pub mod talc_actions;
pub mod threads;
pub mod trace;
pub mod xmalloc;

/// As many threads as a workload for "all cores" runs: what this process may use, up to 16.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(16))
}
