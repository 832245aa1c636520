//! The workloads in [`Mode::Slab`]: `cargo bench --bench slab`. How to compare modes stands in `modes`.

mod modes;
mod workloads;

use shockwave_alloc::Mode;
use shockwave_alloc::pool::SlabPool;

bench_mode!(Mode::Slab, SlabPool);
