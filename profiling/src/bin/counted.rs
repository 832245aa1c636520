//! The workloads on the system allocator with counters: what the program asks for.

use profiling::bench::Counted;

#[global_allocator]
static GLOBAL: Counted = Counted;

fn main() {
    profiling::run::<profiling::NoScope>();
}
