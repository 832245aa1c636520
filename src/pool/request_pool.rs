//! The three pools of requests and responses.
#![forbid(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;

use super::memory::Origin;
use super::object::{ObjectPool, Pooled};
use super::request::Request;
use super::response::Response;
use super::stats::{Leak, PoolStats};

/// A [`Request`] taken from a pool, returned when this is dropped.
pub type PooledRequest<'pool> = Pooled<'pool, Request>;

/// A [`Response`] taken from a pool, returned when this is dropped.
pub type PooledResponse<'pool> = Pooled<'pool, Response>;

/// What the three pools can do.
///
/// ```
/// use shockwave_alloc::pool::{ArenaPool, RequestPool, SlabPool, StandardPool};
///
/// fn serve(pool: &dyn RequestPool) -> usize {
///     let mut request = pool.get();
///     request.set_path("/api/v1/users");
///     let mut response = pool.get_response();
///     response.set_body(request.path());
///     response.content_length()
/// }
///
/// let (standard, slab, arena) = (StandardPool::new(), SlabPool::new(), ArenaPool::new());
/// let pools: [&dyn RequestPool; 3] = [&standard, &slab, &arena];
/// assert!(pools.iter().all(|pool| serve(*pool) == 13));
/// ```
pub trait RequestPool: Sync {
    /// Takes an empty request from the pool, or creates one.
    fn get(&self) -> PooledRequest<'_>;

    /// Takes an empty response from the pool, or creates one.
    fn get_response(&self) -> PooledResponse<'_>;

    /// Prepares for `count` requests and as many responses in use at the same time: creates them and touches their memory.
    ///
    /// Afterwards this thread can take that many, and fill each up to the pool's capacity, without an allocation and without
    /// a page fault, as long as other threads do not take them first. The pool keeps them from then on.
    ///
    /// ```
    /// use shockwave_alloc::pool::{RequestPool, SlabPool};
    ///
    /// let pool = SlabPool::new();
    /// pool.warm_up(100);
    /// let held: Vec<_> = (0..100).map(|_| pool.get()).collect();
    /// assert_eq!((pool.stats().hits, pool.stats().created), (100, 100));
    /// # drop(held);
    /// ```
    fn warm_up(&self, count: usize);

    /// Numbers about the requests.
    fn stats(&self) -> PoolStats;

    /// Numbers about the responses.
    fn response_stats(&self) -> PoolStats;

    /// Frees all requests and responses that are in the pool. Returns how many bytes they kept.
    fn purge(&self) -> usize;

    /// Checks that no more than `expected` requests and as many responses are in use.
    ///
    /// ```
    /// use shockwave_alloc::pool::{RequestPool, StandardPool};
    ///
    /// let pool = StandardPool::new();
    /// std::mem::forget(pool.get());
    /// let leak = pool.check_leaks(0).unwrap_err();
    /// assert!(leak.to_string().starts_with("1 pooled objects are in use where at most 0 were expected"));
    /// ```
    ///
    /// # Errors
    ///
    /// A [`Leak`] with the numbers if more are in use.
    fn check_leaks(&self, expected: u64) -> Result<(), Leak> {
        self.stats().check_leaks(expected)?;
        self.response_stats().check_leaks(expected)
    }
}

/// Where a [`MessagePool`] has its memory from: one of [`SystemMemory`], [`SlabMemory`], [`ArenaMemory`].
pub trait Memory: sealed::Origin + 'static {}

mod sealed {
    pub trait Origin: Send + Sync {
        #[doc(hidden)]
        const ORIGIN: super::Origin;
    }
}

/// The system allocator, called directly.
#[derive(Clone, Copy, Debug)]
pub enum SystemMemory {}

/// The global allocator, outside any arena.
#[derive(Clone, Copy, Debug)]
pub enum SlabMemory {}

/// An arena for each object, which is reset when the object is returned.
#[derive(Clone, Copy, Debug)]
pub enum ArenaMemory {}

impl sealed::Origin for SystemMemory {
    const ORIGIN: Origin = Origin::System;
}

impl sealed::Origin for SlabMemory {
    const ORIGIN: Origin = Origin::Slab;
}

impl sealed::Origin for ArenaMemory {
    const ORIGIN: Origin = Origin::Arena;
}

impl Memory for SystemMemory {}
impl Memory for SlabMemory {}
impl Memory for ArenaMemory {}

/// The pool whose objects have their memory from the system allocator: the baseline of comparisons.
pub type StandardPool = MessagePool<SystemMemory>;

/// The pool whose objects have their memory from the global allocator outside any arena; with
/// [`Shockwave`](crate::Shockwave) in slab or arena mode, from slab pages.
pub type SlabPool = MessagePool<SlabMemory>;

/// The pool whose objects have an arena each, which is freed as a whole when the object is returned.
///
/// An object that waits in the pool keeps one chunk of 64 KiB. Blocks above 16 KiB do not go to the arena. Without
/// [`Shockwave`](crate::Shockwave) as the global allocator or outside [`Mode::Arena`](crate::Mode::Arena) there are no
/// arenas; then an object's block is allocated for each use.
pub type ArenaPool = MessagePool<ArenaMemory>;

/// A pool of requests and responses: [`StandardPool`], [`SlabPool`] or [`ArenaPool`].
///
/// It may be a `static`.
///
/// ```
/// use shockwave_alloc::pool::{RequestPool, StandardPool};
///
/// static POOL: StandardPool = StandardPool::new().with_capacity(8 << 10).with_retained(10_000);
/// let request = POOL.get();
/// assert!(request.method().is_empty());
/// ```
pub struct MessagePool<M> {
    requests: ObjectPool<Request>,
    responses: ObjectPool<Response>,
    memory: PhantomData<M>,
}

impl<M: Memory> MessagePool<M> {
    /// A pool without objects.
    pub const fn new() -> MessagePool<M> {
        MessagePool {
            requests: ObjectPool::new(M::ORIGIN),
            responses: ObjectPool::new(M::ORIGIN),
            memory: PhantomData,
        }
    }

    /// Sets how many bytes an object begins with; 2 KiB if not set. A header takes 12 B besides its name and value.
    #[must_use]
    pub const fn with_capacity(mut self, bytes: usize) -> MessagePool<M> {
        let retained = self.requests.retained();
        self.requests.configure(bytes, retained);
        self.responses.configure(bytes, retained);
        self
    }

    /// Sets how many requests, and how many responses, the pool keeps besides those that threads have at hand; 256 if not
    /// set. Warming up raises it where needed.
    #[must_use]
    pub const fn with_retained(mut self, objects: usize) -> MessagePool<M> {
        let capacity = self.requests.capacity();
        self.requests.configure(capacity, objects);
        self.responses.configure(capacity, objects);
        self
    }
}

impl<M: Memory> Default for MessagePool<M> {
    fn default() -> MessagePool<M> {
        MessagePool::new()
    }
}

impl<M: Memory> RequestPool for MessagePool<M> {
    fn get(&self) -> PooledRequest<'_> {
        self.requests.get()
    }

    fn get_response(&self) -> PooledResponse<'_> {
        self.responses.get()
    }

    fn warm_up(&self, count: usize) {
        self.requests.warm_up(count);
        self.responses.warm_up(count);
    }

    fn stats(&self) -> PoolStats {
        self.requests.stats()
    }

    fn response_stats(&self) -> PoolStats {
        self.responses.stats()
    }

    fn purge(&self) -> usize {
        self.requests.purge() + self.responses.purge()
    }
}

impl<M: Memory> fmt::Debug for MessagePool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessagePool")
            .field("memory", &M::ORIGIN)
            .field("requests", &self.stats())
            .field("responses", &self.response_stats())
            .finish()
    }
}
