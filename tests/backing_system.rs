//! Over the system's allocator, which is the default.

mod backing;
mod child;
mod churn;

use shockwave_alloc::Shockwave;
use std::alloc::System;

#[global_allocator]
static GLOBAL: Shockwave<System> = Shockwave::with_backing(System);

backing_tests!();
