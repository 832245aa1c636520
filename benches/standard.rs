//! The workloads in [`Mode::Standard`]: `cargo bench --bench standard`. How to compare modes stands in `modes`.

mod modes;
mod workloads;

use shockwave_alloc::Mode;
use shockwave_alloc::pool::StandardPool;

bench_mode!(Mode::Standard, StandardPool);
