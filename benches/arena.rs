//! The workloads in [`Mode::Arena`]: `cargo bench --bench arena`. How to compare modes stands in `modes`.

mod modes;
mod workloads;

use shockwave_alloc::Mode;

bench_mode!(Mode::Arena);
