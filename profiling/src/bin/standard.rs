//! The workloads on Shockwave, every call passed to the system allocator.

use shockwave_alloc::{Mode, Shockwave};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_mode(Mode::Standard);

fn main() {
    profiling::run::<profiling::NoScope>();
}
