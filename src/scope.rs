//! Scopes: extents in which allocations go to an arena, or stay out of one.

use core::marker::PhantomData;

use crate::arena::RequestArena;
use crate::tenure::kind_for;
use crate::thread::{self, Entered, Opened};

/// Ends a scope when dropped. Made by [`RequestArena::enter`].
///
/// Forgetting a guard leaves its scope entered until an outer one ends or the thread does; the arena's memory is then
/// kept, nothing becomes invalid. A guard belongs to its thread:
///
/// ```compile_fail
/// let arena = shockwave_alloc::RequestArena::new();
/// let guard = arena.enter();
/// std::thread::spawn(move || drop(guard));
/// ```
#[must_use = "the scope ends when the guard is dropped"]
#[derive(Debug)]
pub struct ArenaGuard<'arena> {
    /// `None` has no effect.
    entered: Option<Entered>,
    /// Keeps the arena where it is, and the guard in its thread.
    arena: PhantomData<(&'arena RequestArena, *mut ())>,
}

static_assertions::assert_not_impl_any!(ArenaGuard<'static>: Send, Sync);

impl ArenaGuard<'_> {
    pub(crate) fn new(entered: Entered) -> Self {
        ArenaGuard { entered: Some(entered), arena: PhantomData }
    }

    pub(crate) fn without_effect() -> Self {
        ArenaGuard { entered: None, arena: PhantomData }
    }
}

impl Drop for ArenaGuard<'_> {
    fn drop(&mut self) {
        if let Some(entered) = self.entered {
            thread::current().leave(entered);
        }
    }
}

/// Runs `f` with a fresh arena for what it allocates, and frees that as a whole afterwards.
///
/// What `f` returns, stores elsewhere or sends to other threads stays valid: whatever is alive at the end keeps the chunk
/// it is in. Big objects (above 16 KiB) never go to the arena. Scopes nest and are left when `f` panics.
///
/// Only [`Mode::Arena`](crate::Mode::Arena) has arenas; in the other modes this only calls `f`. The program must have a
/// [`Shockwave`](crate::Shockwave) as its global allocator.
///
/// ```
/// use shockwave_alloc::with_request_arena;
///
/// # #[global_allocator]
/// # static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();
/// let answer = with_request_arena(|| {
///     let fields: Vec<String> = (0..10).map(|n| format!("field-{n}")).collect();
///     fields.join(",")
/// });
/// assert!(answer.ends_with("field-9"));
/// ```
pub fn with_request_arena<R>(f: impl FnOnce() -> R) -> R {
    let _scope = OwnArena(thread::current().open(kind_for(&f)));
    f()
}

/// Closes the arena of [`with_request_arena`] when dropped.
struct OwnArena(Option<Opened>);

impl Drop for OwnArena {
    #[inline]
    fn drop(&mut self) {
        if let Some(opened) = self.0 {
            thread::current().close_opened(opened);
        }
    }
}

/// Runs `f` with its allocations outside any arena: for caches, pools and lazily built state that outlive the request.
///
/// ```
/// use shockwave_alloc::{outside_arena, with_request_arena};
/// use std::sync::OnceLock;
///
/// static CONFIG: OnceLock<Vec<String>> = OnceLock::new();
///
/// with_request_arena(|| {
///     let config = CONFIG.get_or_init(|| outside_arena(|| vec!["built during a request".to_string()]));
///     assert_eq!(config.len(), 1);
/// });
/// ```
pub fn outside_arena<R>(f: impl FnOnce() -> R) -> R {
    let _guard = ArenaGuard::new(thread::current().enter(None));
    f()
}
