//! What an allocator does around one operation of a workload.

/// What stands around one operation: nothing, a request arena, or the reset of the floor.
///
/// Workloads are generic over it, so that every allocator runs the same code.
pub trait Scope {
    /// Runs `operation` and hands its result through.
    ///
    /// # Safety
    ///
    /// No block that `operation` allocates is used, or freed, after it has returned: the floor hands the
    /// memory out again.
    unsafe fn run(operation: impl FnOnce() -> u64) -> u64;
}

/// The operation alone: for the peers and for Shockwave without arenas.
pub struct NoScope;

impl Scope for NoScope {
    #[inline]
    unsafe fn run(operation: impl FnOnce() -> u64) -> u64 {
        operation()
    }
}

/// A fresh request arena for each operation.
#[cfg(feature = "shockwave")]
pub struct RequestScope;

#[cfg(feature = "shockwave")]
impl Scope for RequestScope {
    #[inline]
    unsafe fn run(operation: impl FnOnce() -> u64) -> u64 {
        shockwave_alloc::with_request_arena(operation)
    }
}
