//! What the server tells about its heap while it runs; the two programs share this file.

use serde::{Deserialize, Serialize};

/// Where the server answers [`Counters`].
pub const PATH: &str = "/heap.json";
/// What the line that tells the server's address starts with.
pub const READY: &str = "listening on ";

/// Counters from the start of the process: dhat's for the heap of the system, Shockwave's for its own memory.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Blocks that the system heap was asked for; a reallocation is one.
    pub total_blocks: u64,
    /// Bytes of these.
    pub total_bytes: u64,
    /// Bytes committed in Shockwave's reservation, its own tables included.
    pub committed_bytes: u64,
    /// Bytes of live blocks in Shockwave's own memory.
    pub live_bytes: u64,
    /// Bytes of the chunks that blocks keep which outlived their arena.
    pub pinned_bytes: u64,
    /// Resident bytes of the process.
    pub resident_bytes: u64,
    /// Bytes bumped in arenas that are closed.
    pub arena_bytes: u64,
    /// Bytes of small objects allocated in an arena's scope that went to the slab instead.
    pub outside_bytes: u64,
    /// Arenas closed.
    pub arenas_closed: u64,
}
