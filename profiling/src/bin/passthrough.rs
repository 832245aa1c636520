//! The workloads on Shockwave in standard mode, on the floor: what passing calls through costs.

use profiling::{Floor, NoScope};
use shockwave_alloc::{Mode, Shockwave};

#[global_allocator]
static GLOBAL: Shockwave<Floor> = Shockwave::with_backing(Floor).with_mode(Mode::Standard);

fn main() {
    profiling::run::<NoScope>();
}
