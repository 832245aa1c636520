//! A `#[global_allocator]` for servers in which every request can have an arena of its own, without a change to the code
//! that handles it.
//!
//! ```
//! use shockwave_alloc::{Shockwave, with_request_arena};
//!
//! #[global_allocator]
//! static GLOBAL: Shockwave = Shockwave::new();
//!
//! let answer = with_request_arena(|| {
//!     // Everything in here that allocates, libraries included, bumps through the request's own memory.
//!     let words: Vec<String> = "one arena per request".split(' ').map(str::to_uppercase).collect();
//!     words.join(" ")
//! });
//! // The answer outlives the scope, and that is fine: what escapes stays valid.
//! assert_eq!(answer, "ONE ARENA PER REQUEST");
//! ```
//!
//! Three modes, switched in code, at run time ([`set_mode`]) or by the environment variable `SHOCKWAVE_MODE`:
//!
//! | mode | what it does |
//! |---|---|
//! | [`Mode::Standard`] | passthrough to the backing allocator: the baseline |
//! | [`Mode::Slab`] | thread-local slab pages of one size class each |
//! | [`Mode::Arena`] | slab pages outside a scope; inside one an arena that is freed as a whole |
//!
//! How it works inside is told in `ARCHITECTURE.md`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod arena;
mod chunk;
mod config;
mod global;
mod header;
mod heap;
mod invariant;
mod large;
mod mid;
mod outbox;
mod page;
mod remote;
mod scope;
mod size_class;
mod snapshot;
mod space;
mod startup;
mod stats;
mod sync;
mod thread;
mod trace;

pub use arena::{ArenaStats, RequestArena, warm_up};
pub use config::{Mode, ParseModeError};
pub use global::Shockwave;
pub use scope::{ArenaGuard, outside_arena, with_request_arena};
pub use snapshot::{purge, stats};
pub use startup::{mode, set_mode};
pub use stats::{Stats, Usage};
