//! The workloads on Shockwave, each operation in an arena of its own.

use shockwave_alloc::{Mode, Shockwave};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_mode(Mode::Arena);

fn main() {
    profiling::run::<profiling::RequestScope>();
}
