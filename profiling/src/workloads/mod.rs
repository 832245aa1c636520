//! What is measured. Setup runs before the clock does; the timed part allocates nothing but what it measures.

pub mod aged;
pub mod boxes;
pub mod burst;
pub mod escape;
pub mod growth;
pub mod http;
pub mod in_flight;
pub mod json;
pub mod live;
pub mod short_threads;
pub mod threads;
pub mod trace;
