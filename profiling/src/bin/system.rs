//! The workloads on the system allocator.

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() {
    profiling::run::<profiling::NoScope>();
}
