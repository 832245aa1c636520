//! The workloads on Shockwave, small blocks in thread-local slabs.

use shockwave_alloc::{Mode, Shockwave};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_mode(Mode::Slab);

fn main() {
    profiling::run::<profiling::SlabScope>();
}
