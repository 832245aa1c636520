//! The workloads on rallocator.

rallocator::rallocator!();

fn main() {
    profiling::run::<profiling::NoScope>();
}
