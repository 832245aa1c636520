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
//!
//! # From the Go library to this crate
//!
//! | there | here |
//! |---|---|
//! | `http11.GetRequest()`, `memory.NewGreenTeaRequestPool()` and `GetRequest()`, `memory.NewArenaRequestPool()` and `GetRequestArena()` | [`RequestPool::get`] of a [`StandardPool`], [`SlabPool`], [`ArenaPool`] |
//! | `PutRequest(req)`, `PutRequestArena(arena)` | dropping the [`PooledRequest`]; a second put cannot be written |
//! | `GetBuffer()`, `PutBuffer(buf)` | [`BufferPool::get`], dropping the [`PooledBuffer`] |
//! | `WarmupPools(n)` | [`RequestPool::warm_up`], [`BufferPool::warm_up`], [`warm_up`](crate::warm_up) for arenas |
//! | `req.SetMethod`, `SetPath`, `SetProto`, `AddHeader`, `SetBody`; `arena.AllocateMethod`, `AllocatePath`, `AllocateProto`, `AllocateHeader`, `AllocateBody` | [`Request::set_method`], [`set_path`](Request::set_path), [`set_proto`](Request::set_proto), [`add_header`](Request::add_header), [`set_body`](Request::set_body) |
//! | `req.Free()` | [`Request::clear`], or dropping the guard |
//! | `GreenTeaHTTPResponse` | [`RequestPool::get_response`], [`Response`] |
//! | `GetPoolStats()`, `pool.GetStats()` | [`RequestPool::stats`], [`RequestPool::response_stats`], [`BufferPool::class_stats`] |
//! | `TotalRequests`, `TotalFrees`, `CurrentInUse`, `PoolHits`, `PoolMisses`, `HitRate()`, `BytesAllocated`, `ArenasCreated`, `ArenasReused` | the fields of [`PoolStats`] and [`PoolStats::hit_rate`] (0 to 1) |
//! | `inUse > expectedConcurrency` | [`PoolStats::check_leaks`] |
//! | `memory.NewGreenTeaAllocator(512 * 1024)` | [`Shockwave::with_slab_size`](crate::Shockwave::with_slab_size), `SHOCKWAVE_SLAB_SIZE` |
//! | `allocator.GetStats()`, utilisation | [`stats`](crate::stats()), [`Stats::slab_utilization`](crate::Stats::slab_utilization) |
//! | all allocations happen in the arena | [`with_request_arena`](crate::with_request_arena), for unmodified code |
//! | `runtime.GC()` | [`RequestPool::purge`], [`BufferPool::purge`], then [`purge`](crate::purge) |
//! | `GODEBUG=gctrace=1` | `SHOCKWAVE_TRACE=1` |
//! | `-tags greenteagc`, `GOEXPERIMENT=arenas` | `SHOCKWAVE_MODE=slab`, `SHOCKWAVE_MODE=arena`, [`set_mode`](crate::set_mode) |
//!
//! ```
//! use shockwave_alloc::pool::{BufferPool, RequestPool, SlabPool};
//!
//! # #[global_allocator]
//! # static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new().with_slab_size(512 * 1024);
//! static POOL: SlabPool = SlabPool::new();
//! static BUFFERS: BufferPool = BufferPool::new();
//!
//! POOL.warm_up(10);
//! BUFFERS.warm_up(1);
//! let mut request = POOL.get();
//! request.set_method("POST");
//! request.set_path("/api/v1/users");
//! request.set_proto("HTTP/1.1");
//! request.add_header("Host", "example.com");
//! request.set_body("data");
//! assert_eq!(request.body(), b"data");
//! let mut response = POOL.get_response();
//! response.set_status(200);
//! let mut buffer = BUFFERS.get(4096);
//! buffer.put(b"bytes");
//!
//! let stats = POOL.stats();
//! assert_eq!((stats.total_requests, stats.in_use, stats.misses), (1, 1, 0));
//! assert!(stats.check_leaks(0).is_err());
//! request.clear();
//! drop((request, response, buffer));
//! assert_eq!(POOL.stats().total_frees, 1);
//! assert!(shockwave_alloc::stats().slab_utilization() > 0.0);
//! POOL.purge();
//! BUFFERS.purge();
//! shockwave_alloc::purge();
//! ```

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
