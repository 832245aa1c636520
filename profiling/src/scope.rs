//! What an allocator does around one operation of a workload.

use crate::bench;

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

/// The operation alone: for the peers and for Shockwave without arenas.
pub struct NoScope;

impl Scope for NoScope {
    type Requests = NoScope;

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

impl bench::Scope for NoScope {
    type Open = ();

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
