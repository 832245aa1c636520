//! Pools of requests, responses and buffers.
//!
//! A request and its headers are copied into one block of memory that is used again for the next request. Three pools run
//! the same code and differ only in where that block comes from:
//!
//! | pool | memory | between uses |
//! |---|---|---|
//! | [`StandardPool`] | the system allocator, called directly | an object keeps its block |
//! | [`SlabPool`] | the global allocator, outside any arena | an object keeps its block |
//! | [`ArenaPool`] | an arena of the object's own | the arena is freed as a whole and keeps a chunk of 64 KiB |
//!
//! ```
//! use shockwave_alloc::pool::{ArenaPool, RequestPool};
//!
//! static POOL: ArenaPool = ArenaPool::new();
//!
//! POOL.warm_up(100); // before the server accepts
//!
//! let mut request = POOL.get();
//! request.set_method("GET");
//! request.add_header("Host", "example.com");
//! assert_eq!(request.method(), b"GET");
//! drop(request); // cleared and back in the pool
//!
//! assert_eq!(POOL.stats().hit_rate(), 1.0);
//! assert!(POOL.stats().check_leaks(0).is_ok());
//! ```
//!
//! What a pool keeps is bounded. Each thread has up to 32 objects with together 4 MiB at hand; 256 more (see
//! [`MessagePool::with_retained`]), of at most 64 KiB each, are shared. An object whose block is bigger than twice what 95
//! in 100 of the last uses needed loses it, so that one body of 10 MiB is not kept. [`RequestPool::purge`] frees the rest.
//!
//! [`BufferPool`] has buffers in classes of size.
#![doc = include_str!("from_go.md")]

mod buffer;
mod buffer_pool;
mod depot;
#[cfg(feature = "http")]
mod http;
mod lifo;
mod memory;
mod message;
mod object;
mod recent;
mod request;
mod request_pool;
mod response;
mod shards;
mod stats;
mod wipe;

pub use buffer::PooledBuffer;
pub use buffer_pool::BufferPool;
#[cfg(feature = "http")]
pub use http::PartsError;
pub use object::Pooled;
pub use request::Request;
pub use request_pool::{
    ArenaMemory, ArenaPool, Memory, MessagePool, PooledRequest, PooledResponse, RequestPool, SlabMemory,
    SlabPool, StandardPool, SystemMemory,
};
pub use response::Response;
pub use stats::{ClassStats, Leak, PoolStats};
