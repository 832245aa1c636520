//! Over jemalloc.

mod backing;
mod child;
mod churn;

use shockwave_alloc::Shockwave;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: Shockwave<Jemalloc> = Shockwave::with_backing(Jemalloc);

backing_tests!();
