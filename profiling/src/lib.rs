//! The workloads that Shockwave and its peers are measured with, and the program around them.
//!
//! A binary per allocator sets `#[global_allocator]` and calls [`run`]; the same generic code is thus
//! compiled once for each, and no process holds two allocators. `profiling compare` builds these binaries,
//! runs them in turn and prints the comparison.
//!
//! Layers, each uses only those before it: [`Scope`] (what surrounds one operation), `process`, `blocks` and `clock`,
//! [`workloads`] and [`mod@bench`] (those of `cargo bench`), [`Row`] (a workload's name and meaning), [`run`].

#[path = "../../benches/workloads/mod.rs"]
pub mod bench;
mod blocks;
#[cfg(feature = "bumpalo")]
mod bumpalo;
mod clock;
pub mod command_line;
mod floor;
mod outcome;
pub mod paths;
mod process;
mod row;
mod runner;
mod scope;
pub mod workloads;

#[cfg(feature = "bumpalo")]
pub use bumpalo::{Bumpalo, BumpaloScope};
pub use clock::{Clock, Sample};
pub use floor::{Floor, FloorScope};
pub use outcome::{Outcome, Unit};
pub use row::{Effort, Group, Row};
pub use runner::run;
pub use scope::{NoScope, Scope};
#[cfg(feature = "shockwave")]
pub use scope::{RequestScope, SlabScope};
