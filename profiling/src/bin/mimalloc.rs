//! The workloads on mimalloc.

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    profiling::run::<profiling::NoScope>();
}
