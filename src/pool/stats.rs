//! What a pool did and holds, and whether something is missing.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::AddAssign;

/// Counters and gauges of a pool.
///
/// Counters grow from the creation of the pool. They are kept for each thread and summed on reading, so those of running
/// threads may be a few operations old and are not cut at one instant. What was taken is read before what was returned:
/// `in_use` may be too small while threads run, and is never too big.
///
/// ```
/// use shockwave_alloc::pool::{RequestPool, StandardPool};
///
/// let pool = StandardPool::new();
/// for _ in 0..10 {
///     let _request = pool.get();
/// }
/// let stats = pool.stats();
/// assert_eq!((stats.total_requests, stats.total_frees, stats.in_use), (10, 10, 0));
/// assert_eq!((stats.created, stats.reused), (1, 9));
/// assert_eq!(stats.hit_rate(), 0.9);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolStats {
    /// Objects taken from the pool so far.
    pub total_requests: u64,
    /// Objects returned so far.
    pub total_frees: u64,
    /// Objects taken and not returned: held at the moment, or forgotten.
    pub in_use: u64,
    /// Requests for which a pooled object was there.
    pub hits: u64,
    /// Requests for which an object had to be created.
    pub misses: u64,
    /// Objects created so far, by misses and by `warm_up`.
    pub created: u64,
    /// Times an object was handed out again: the same as `hits`.
    pub reused: u64,
    /// Objects that were freed instead of kept: there were enough, or they were too big.
    pub discards: u64,
    /// Bytes of storage allocated so far; those of an object count when it is returned.
    pub bytes_allocated: u64,
    /// Objects in the pool.
    pub retained: u64,
    /// Bytes of memory that objects in the pool keep; for arenas, whole chunks of 64 KiB.
    pub retained_bytes: u64,
}

impl PoolStats {
    pub(super) const NEW: PoolStats = PoolStats {
        total_requests: 0,
        total_frees: 0,
        in_use: 0,
        hits: 0,
        misses: 0,
        created: 0,
        reused: 0,
        discards: 0,
        bytes_allocated: 0,
        retained: 0,
        retained_bytes: 0,
    };

    /// Share of the requests that were hits, from 0 to 1; 0 if there was no request.
    pub fn hit_rate(&self) -> f64 {
        if self.total_requests == 0 { 0.0 } else { self.hits as f64 / self.total_requests as f64 }
    }

    /// Checks that no more than `expected` objects are in use.
    ///
    /// ```
    /// use shockwave_alloc::pool::{RequestPool, SlabPool};
    ///
    /// let pool = SlabPool::new();
    /// let held = pool.get();
    /// assert!(pool.stats().check_leaks(1).is_ok());
    /// assert_eq!(pool.stats().check_leaks(0).unwrap_err().in_use, 1);
    /// # drop(held);
    /// ```
    ///
    /// # Errors
    ///
    /// A [`Leak`] with the numbers if more are in use.
    pub fn check_leaks(&self, expected: u64) -> Result<(), Leak> {
        if self.in_use <= expected {
            return Ok(());
        }
        Err(Leak {
            in_use: self.in_use,
            expected,
            total_requests: self.total_requests,
            total_frees: self.total_frees,
        })
    }
}

impl AddAssign for PoolStats {
    fn add_assign(&mut self, other: PoolStats) {
        self.total_requests += other.total_requests;
        self.total_frees += other.total_frees;
        self.in_use += other.in_use;
        self.hits += other.hits;
        self.misses += other.misses;
        self.created += other.created;
        self.reused += other.reused;
        self.discards += other.discards;
        self.bytes_allocated += other.bytes_allocated;
        self.retained += other.retained;
        self.retained_bytes += other.retained_bytes;
    }
}

impl fmt::Display for PoolStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} frees, {} in use, hit rate {:.2} %, {} created, {} reused, {} discarded, {} KiB allocated, \
             {} retained ({} KiB)",
            self.total_requests,
            self.total_frees,
            self.in_use,
            self.hit_rate() * 100.0,
            self.created,
            self.reused,
            self.discards,
            self.bytes_allocated.div_ceil(1024),
            self.retained,
            self.retained_bytes.div_ceil(1024)
        )
    }
}

/// Counters and gauges of one size class of a [`BufferPool`](super::BufferPool).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClassStats {
    /// Capacity of its buffers in bytes; `None` for those above the greatest class, which are of several sizes.
    pub size: Option<usize>,
    /// The numbers.
    pub stats: PoolStats,
}

/// More objects of a pool are in use than there should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Leak {
    /// Objects taken and not returned.
    pub in_use: u64,
    /// Objects that were expected at most.
    pub expected: u64,
    /// Objects taken from the pool so far.
    pub total_requests: u64,
    /// Objects returned so far.
    pub total_frees: u64,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} pooled objects are in use where at most {} were expected ({} taken, {} returned): {} guards too many are \
             still held, in a collection or in a task that does not end, or were forgotten (mem::forget, a reference cycle)",
            self.in_use,
            self.expected,
            self.total_requests,
            self.total_frees,
            self.in_use - self.expected
        )
    }
}

impl core::error::Error for Leak {}
