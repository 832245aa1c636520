//! What an allocator does around one operation of a workload.

use std::marker::PhantomData;

use crate::bench;

#[cfg(feature = "shockwave")]
#[path = "../../benches/modes/pooled.rs"]
mod pooled;
#[cfg(feature = "shockwave")]
use shockwave_alloc::pool::{ArenaPool, SlabPool, StandardPool};

/// What stands around one operation: nothing, a request arena, or the reset of the floor.
///
/// Workloads are generic over it, so that every allocator runs the same code.
pub trait Scope {
    /// The same for the workloads of [`mod@bench`].
    type Requests: bench::Scope;

    /// Runs `operation` and hands its result through.
    ///
    /// # Safety
    ///
    /// No block that `operation` allocates is used, or freed, after it has returned: the floor hands the
    /// memory out again.
    unsafe fn run(operation: impl FnOnce() -> u64) -> u64;

    /// Goes on with a request that is open.
    fn resume<R>(open: &<Self::Requests as bench::Scope>::Open, work: impl FnOnce() -> R) -> R;
}

/// The operation alone, and request objects from pools of the type `P`.
pub struct Plain<P>(PhantomData<P>);

/// For the peers, and for Shockwave in standard mode.
#[cfg(feature = "shockwave")]
pub type NoScope = Plain<StandardPool>;

/// For the peers.
#[cfg(not(feature = "shockwave"))]
pub type NoScope = Plain<NoPool>;

/// For Shockwave in slab mode.
#[cfg(feature = "shockwave")]
pub type SlabScope = Plain<SlabPool>;

impl<P: bench::Pool> Scope for Plain<P> {
    type Requests = Plain<P>;

    #[inline]
    unsafe fn run(operation: impl FnOnce() -> u64) -> u64 {
        operation()
    }

    #[inline]
    fn resume<R>(_open: &(), work: impl FnOnce() -> R) -> R {
        work()
    }
}

/// A fresh request arena for each operation.
#[cfg(feature = "shockwave")]
pub struct RequestScope;

#[cfg(feature = "shockwave")]
impl Scope for RequestScope {
    type Requests = RequestScope;

    #[inline]
    unsafe fn run(operation: impl FnOnce() -> u64) -> u64 {
        shockwave_alloc::with_request_arena(operation)
    }

    #[inline]
    fn resume<R>(open: &shockwave_alloc::RequestArena, work: impl FnOnce() -> R) -> R {
        open.run(work)
    }
}

impl<P: bench::Pool> bench::Scope for Plain<P> {
    type Open = ();
    type Pool = P;

    #[inline]
    fn run<R>(request: impl FnOnce() -> R) -> R {
        request()
    }

    #[inline]
    fn open<R>(request: impl FnOnce() -> R) -> (R, ()) {
        (request(), ())
    }

    #[inline]
    fn outside<R>(make: impl FnOnce() -> R) -> R {
        make()
    }
}

#[cfg(feature = "shockwave")]
impl bench::Scope for RequestScope {
    type Open = shockwave_alloc::RequestArena;
    type Pool = ArenaPool;

    #[inline]
    fn run<R>(request: impl FnOnce() -> R) -> R {
        shockwave_alloc::with_request_arena(request)
    }

    #[inline]
    fn open<R>(request: impl FnOnce() -> R) -> (R, Self::Open) {
        let arena = shockwave_alloc::RequestArena::new();
        (arena.run(request), arena)
    }

    #[inline]
    fn outside<R>(make: impl FnOnce() -> R) -> R {
        shockwave_alloc::outside_arena(make)
    }
}

/// Stands for the pools where they are not built: every object is made anew.
#[cfg(not(feature = "shockwave"))]
pub struct NoPool;

#[cfg(not(feature = "shockwave"))]
impl bench::Pool for NoPool {
    type Object<'pool> = Vec<Vec<u8>>;

    fn new() -> NoPool {
        NoPool
    }

    fn fill(&self, message: &bench::Message) -> Vec<Vec<u8>> {
        let parts =
            message.line().into_iter().chain(message.headers().flat_map(|(name, value)| [name, value]));
        parts.map(str::as_bytes).chain([message.body()]).map(<[u8]>::to_vec).collect()
    }

    fn sum(parts: &Vec<Vec<u8>>) -> u64 {
        parts.iter().map(|part| bench::sum(part)).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Driver, Message, Pool, Workload, sum};

    /// The sum of everything that a message consists of.
    fn sum_of(message: &Message) -> u64 {
        let parts =
            message.line().into_iter().chain(message.headers().flat_map(|(name, value)| [name, value]));
        parts.map(str::as_bytes).chain([message.body()]).map(sum).fold(0, u64::wrapping_add)
    }

    /// Calls an operation some times; the output is what the last call returns.
    struct Last;

    impl Driver for Last {
        type Output = u64;

        fn alone<F: FnMut() -> u64>(self, make: impl FnOnce() -> F) -> u64 {
            let mut operation = make();
            (0..3).map(|_| operation()).last().unwrap()
        }

        fn together<F: FnMut() -> u64>(self, _: usize, make: impl Fn() -> F + Sync) -> u64 {
            self.alone(make)
        }
    }

    fn every_byte_is_copied_and_read<S: bench::Scope>() {
        for (workload, message) in [
            (Workload::TypicalPooled, Message::typical()),
            (Workload::LargePooled, Message::large()),
            (Workload::ManyPooled, Message::many_headers()),
            (Workload::ThroughputPooled, Message::one_header()),
        ] {
            assert_eq!(workload.drive::<S, _>(Last), sum_of(&message), "{}", workload.name());
        }
        // And objects that are in use at the same time do not share memory.
        let pool = S::Pool::new();
        let (one, other) = (pool.fill(&Message::typical()), pool.fill(&Message::many_headers()));
        let sums = [S::Pool::sum(&one), S::Pool::sum(&other)];
        assert_eq!(sums, [sum_of(&Message::typical()), sum_of(&Message::many_headers())]);
        assert_eq!(S::run(|| 7), 7);
    }

    #[test]
    fn every_pool_does_the_whole_work() {
        every_byte_is_copied_and_read::<NoScope>();
        #[cfg(feature = "shockwave")]
        every_byte_is_copied_and_read::<SlabScope>();
        #[cfg(feature = "shockwave")]
        every_byte_is_copied_and_read::<RequestScope>();
    }
}
