//! The workloads on the floor: a bump allocator that frees nothing.

#[global_allocator]
static GLOBAL: profiling::Floor = profiling::Floor;

fn main() {
    profiling::run::<profiling::FloorScope>();
}
