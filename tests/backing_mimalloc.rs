//! Over mimalloc.

mod backing;
mod child;
mod churn;

use mimalloc::MiMalloc;
use shockwave_alloc::Shockwave;

#[global_allocator]
static GLOBAL: Shockwave<MiMalloc> = Shockwave::with_backing(MiMalloc);

backing_tests!();
