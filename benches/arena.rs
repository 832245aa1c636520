//! The workloads in [`Mode::Arena`]: `cargo bench --bench arena`. How to compare modes stands in `modes`.

mod modes;
mod workloads;

use shockwave_alloc::Mode;
use shockwave_alloc::pool::ArenaPool;

bench_mode!(Mode::Arena, ArenaPool);
