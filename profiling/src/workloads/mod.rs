//! What is measured. Setup runs before the clock does; the timed part allocates nothing but what it measures.

pub mod boxes;
pub mod growth;
pub mod http;
pub mod json;
pub mod live;
pub mod threads;
pub mod trace;
