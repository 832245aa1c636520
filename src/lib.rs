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
//!
//! # The trace
//!
//! `SHOCKWAVE_TRACE=1` writes lines to standard error, without allocating. Each begins with `shockwave:` and an event, then
//! fields `name=value` in a fixed order; bytes are plain numbers.
//!
//! | event | when | fields |
//! |---|---|---|
//! | `arenas` | a thread has closed 10,000 more arenas (`SHOCKWAVE_TRACE=N`: `N`) | `heap`: index of the thread's heap; `closed`: arenas it has closed so far; of the last ones: `bytes` bumped through, blocks that `escaped`, objects that `bypassed` the arena because they are too big |
//! | `warning` | more than 5 % of what the last arenas of a thread allocated has escaped | `heap`; `escaped_percent`: how much, if escaped blocks are of average size |
//! | `purge` | free pages went back to the OS | `bytes` given back; `kept`: free bytes that stay |
//! | `exit` | the process ends | over all threads: `closed`, `bytes`, `escaped`, `bypassed` as above; `pinned`: bytes of chunks that escaped blocks keep; `committed`; `resident`; `backing`: calls to the backing allocator |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod aligned;
mod arena;
mod bell;
mod bins;
mod chunk;
mod config;
#[cfg(feature = "contention")]
#[cfg_attr(docsrs, doc(cfg(feature = "contention")))]
pub mod contention;
mod crowd;
#[cfg(feature = "escape-trace")]
mod escape;
#[cfg(not(feature = "escape-trace"))]
#[path = "escape_off.rs"]
mod escape;
mod fork;
mod future;
mod gate;
mod global;
mod handles;
mod header;
mod heap;
mod invariant;
mod large;
mod mid;
mod outbox;
mod page;
pub mod pool;
#[cfg(feature = "escape-trace")]
mod pprof;
mod remote;
mod round;
mod scavenge;
mod scavenger;
mod scope;
mod shared;
mod size_class;
mod snapshot;
mod space;
mod startup;
mod stats;
mod sync;
mod tenure;
mod thread;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;
mod trace;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use arena::{ArenaBuilder, ArenaStats, RequestArena, current_arena_stats, warm_up};
pub use config::{Mode, ParseModeError};
#[cfg(feature = "escape-trace")]
pub use escape::{EscapeFrame, EscapeReport, EscapeSite, clear_escape_report, escape_report, trace_escapes};
pub use future::{ArenaFutureExt, InArena, Outside, Place};
pub use global::Shockwave;
pub use handles::{ArenaScope, Checkpoint};
pub use scavenger::{Scavenger, ScavengerConfig, start_scavenger};
pub use scope::{ArenaGuard, outside_arena, with_request_arena};
pub use shared::ArenaHandle;
pub use snapshot::{on_thread_park, purge, stats};
pub use startup::{mode, set_mode};
pub use stats::{Stats, Usage};
