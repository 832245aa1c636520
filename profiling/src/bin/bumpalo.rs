//! The workloads on bumpalo: each operation bumps through one `Bump`, which is reset at its end.

#[global_allocator]
static GLOBAL: profiling::Bumpalo = profiling::Bumpalo;

fn main() {
    profiling::run::<profiling::BumpaloScope>();
}
