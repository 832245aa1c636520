//! Futures that run in an arena.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::arena::RequestArena;
use crate::scope::outside_arena;
use crate::shared::ArenaHandle;

/// Runs futures in arenas.
pub trait ArenaFutureExt: Future + Sized {
    /// Runs the future in a fresh arena of its own.
    ///
    /// Whatever the future allocates goes there, in whatever thread it is polled, and everything is freed as a whole when it
    /// is dropped. What it returns, stores or sends elsewhere stays valid. Tasks that it spawns do not inherit the arena
    /// (see [`ArenaHandle`]).
    ///
    /// ```
    /// use shockwave_alloc::ArenaFutureExt;
    ///
    /// # #[global_allocator]
    /// # static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let handle = async {
    ///     let words: Vec<String> = "an arena across awaits".split(' ').map(String::from).collect();
    ///     tokio::task::yield_now().await;
    ///     words.concat()
    /// };
    /// assert_eq!(handle.in_request_arena().await, "anarenaacrossawaits");
    /// # });
    /// ```
    fn in_request_arena(self) -> InArena<Self> {
        let arena = RequestArena::builder().kind_for(&self).build();
        self.in_arena(arena)
    }

    /// Runs the future in an arena: a [`RequestArena`], which the future then owns, or an [`ArenaHandle`], which it shares with
    /// others.
    ///
    /// ```
    /// use shockwave_alloc::{ArenaFutureExt, RequestArena};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let arena = RequestArena::builder().soft_limit(1 << 20).build();
    /// assert_eq!(async { "in an arena of at most 1 MiB".to_string() }.in_arena(arena).await.len(), 28);
    /// # });
    /// ```
    fn in_arena<P: Place>(self, arena: P) -> InArena<Self, P> {
        InArena { inner: Some(self), place: arena }
    }

    /// Runs the future outside of any arena: for what fills a cache or opens a pooled connection during a request.
    ///
    /// ```
    /// use shockwave_alloc::{ArenaFutureExt, current_arena_stats};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let request = async {
    ///     async { assert!(current_arena_stats().is_none()) }.outside_arena().await;
    /// };
    /// request.in_request_arena().await;
    /// # });
    /// ```
    fn outside_arena(self) -> InArena<Self, Outside> {
        self.in_arena(Outside)
    }
}

impl<F: Future> ArenaFutureExt for F {}

/// Where a future can run: [`RequestArena`], [`ArenaHandle`] or [`Outside`].
pub trait Place: sealed::Sealed {
    #[doc(hidden)]
    fn run_in<R>(&self, f: impl FnOnce() -> R) -> R;
}

/// Stands for being outside of any arena, as a [`Place`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Outside;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::RequestArena {}
    impl Sealed for super::ArenaHandle {}
    impl Sealed for super::Outside {}
}

impl Place for RequestArena {
    #[inline]
    fn run_in<R>(&self, f: impl FnOnce() -> R) -> R {
        self.run(f)
    }
}

impl Place for ArenaHandle {
    #[inline]
    fn run_in<R>(&self, f: impl FnOnce() -> R) -> R {
        self.run(f)
    }
}

impl Place for Outside {
    #[inline]
    fn run_in<R>(&self, f: impl FnOnce() -> R) -> R {
        outside_arena(f)
    }
}

pin_project! {
    /// A future that runs in an arena. Made by [`ArenaFutureExt`].
    ///
    /// The arena is entered at each poll and while the inner future is dropped, and left in between, also when these panic:
    /// between polls the future may move to another thread. It is `Send` if the inner one is. The arena closes when this is
    /// dropped, after the inner future.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are polled"]
    pub struct InArena<F, P = RequestArena>
    where
        P: Place,
    {
        // `None` while and after it is dropped.
        #[pin]
        inner: Option<F>,
        place: P,
    }

    impl<F, P> PinnedDrop for InArena<F, P>
    where
        P: Place,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            this.place.run_in(|| this.inner.set(None));
        }
    }
}

static_assertions::assert_impl_all!(InArena<core::future::Ready<()>>: Send);
static_assertions::assert_not_impl_any!(InArena<core::future::Ready<*mut ()>>: Send);

impl<F, P: Place> InArena<F, P> {
    /// The arena.
    pub fn arena(&self) -> &P {
        &self.place
    }
}

impl<F: Future, P: Place> Future for InArena<F, P> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let inner = this.inner.as_pin_mut().expect("a future is not polled while it is dropped");
        this.place.run_in(|| inner.poll(context))
    }
}
