//! A handle of an arena that several owners hold.

use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::ptr;
use std::sync::Arc;

use crate::arena::{ArenaStats, RequestArena};
use crate::scope::outside_arena;
use crate::sync::{AtomicUsize, Ordering};
use crate::thread::{self, Entered};

/// An arena with several owners: a request, its response body, the tasks that join it on purpose.
///
/// Clones stand for the same arena, which closes when the last of them is dropped. An arena can be entered by one thread
/// at a time: [`run`](Self::run) that finds another thread in it runs outside of any arena instead, because waiting for a
/// thread would cost more than the arena gains. The same thread may enter it again within itself.
///
/// Spawned tasks do not inherit an arena. One that is to use it gets a clone:
///
/// ```
/// use shockwave_alloc::{ArenaFutureExt, ArenaHandle, RequestArena};
///
/// # #[global_allocator]
/// # static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();
/// # tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(async {
/// let arena = ArenaHandle::from(RequestArena::new());
/// let joined = arena.clone();
/// let request = async move {
///     let part = tokio::spawn(async { vec![String::from("in the same arena")] }.in_arena(joined));
///     part.await.unwrap().concat()
/// };
/// assert_eq!(request.in_arena(arena).await, "in the same arena");
/// # });
/// ```
#[derive(Clone, Default)]
pub struct ArenaHandle {
    /// `None` stands for no arena.
    shared: Option<Arc<Shared>>,
}

/// What is called when the last owner is gone.
pub(crate) trait Closing: Send + Sync {
    /// The arena is closed.
    fn closed(&self, stats: &ArenaStats);
}

struct Shared {
    /// Address of the record of the thread that has the turn; 0 if none has.
    turn: AtomicUsize,
    /// How many times the thread with the turn has taken it. Belongs to that thread.
    depth: Cell<usize>,
    /// Belongs to the thread with the turn.
    arena: UnsafeCell<RequestArena>,
    closing: Option<Arc<dyn Closing>>,
}

// SAFETY: what is not `Sync` is touched by the thread with the turn alone, or by the last owner. `RequestArena` is `Send`,
// and the turn is handed over with release and acquire.
unsafe impl Sync for Shared {}
// SAFETY: `RequestArena` is `Send`, and a thread that still has the turn would hold a reference (see `Turn`).
unsafe impl Send for Shared {}

static_assertions::assert_impl_all!(ArenaHandle: Send, Sync, Unpin);

/// The right of one thread to use the arena, while it exists.
struct Turn<'shared> {
    shared: &'shared Shared,
    /// Keeps it in its thread.
    thread: core::marker::PhantomData<*mut ()>,
}

impl Shared {
    /// The turn, unless another thread has it.
    #[inline]
    fn turn(&self) -> Option<Turn<'_>> {
        let me = ptr::from_ref(thread::current()).addr();
        // No other thread writes this one's address, so a stale value cannot equal it.
        if self.turn.load(Ordering::Relaxed) != me {
            self.turn.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).ok()?;
        }
        self.depth.set(self.depth.get() + 1);
        Some(Turn { shared: self, thread: core::marker::PhantomData })
    }
}

impl Turn<'_> {
    #[inline]
    fn arena(&self) -> &RequestArena {
        // SAFETY: this thread has the turn as long as `self` exists; nobody makes an exclusive reference.
        unsafe { &*self.shared.arena.get() }
    }
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        let depth = self.shared.depth.get() - 1;
        self.shared.depth.set(depth);
        if depth == 0 {
            self.shared.turn.store(0, Ordering::Release);
        }
    }
}

/// While it exists the arena of a handle is entered, or the thread is outside of any.
struct Inside<'shared> {
    entered: Option<Entered>,
    turn: Option<Turn<'shared>>,
}

impl<'shared> Inside<'shared> {
    // Not inlined, nor is the end: each request comes here several times, and code that is in the cache already costs least.
    #[inline(never)]
    fn new(shared: Option<&'shared Shared>) -> Inside<'shared> {
        let turn = shared.and_then(Shared::turn);
        let entered = match &turn {
            Some(turn) => turn.arena().enter_record(),
            None => Some(thread::current().enter(None)),
        };
        Inside { entered, turn }
    }
}

impl Drop for Inside<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        if let Some(entered) = self.entered {
            thread::current().leave(entered);
        }
        self.turn = None;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(closing) = self.closing.take() else { return };
        let arena = core::mem::take(self.arena.get_mut());
        let stats = arena.close();
        outside_arena(move || closing.closed(&stats));
    }
}

/// Runs `f` outside of arenas. Costs less than [`outside_arena`], next to nothing where none is entered, but is no scope: if `f` opens
/// one, then what it allocates after that goes to the arena again.
pub(crate) fn made_outside<R>(f: impl FnOnce() -> R) -> R {
    /// Steps in again, also if `f` panics.
    struct Outside;

    impl Drop for Outside {
        fn drop(&mut self) {
            thread::current().step_in();
        }
    }

    let thread = thread::current();
    if thread.entered_arena().is_none() {
        return f();
    }
    thread.step_out();
    let _outside = Outside;
    f()
}

impl ArenaHandle {
    /// A handle of no arena: what runs in it runs outside of any.
    pub const fn none() -> ArenaHandle {
        ArenaHandle { shared: None }
    }

    pub(crate) fn with_closing(arena: RequestArena, closing: Option<Arc<dyn Closing>>) -> ArenaHandle {
        let shared =
            Shared { turn: AtomicUsize::new(0), depth: Cell::new(0), arena: UnsafeCell::new(arena), closing };
        // It outlives what an arena that is entered now serves.
        ArenaHandle { shared: Some(made_outside(|| Arc::new(shared))) }
    }

    /// Runs `f` with the arena entered, or outside of any arena if another thread has it entered.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        let _inside = Inside::new(self.shared.as_deref());
        f()
    }

    /// What the arena holds and has done; `None` if another thread has it entered at the moment, or there is none.
    pub fn stats(&self) -> Option<ArenaStats> {
        self.shared.as_deref().and_then(Shared::turn).map(|turn| turn.arena().stats())
    }

    /// Whether the arena has reached its [soft limit](crate::ArenaBuilder::soft_limit); false also if another thread has it
    /// entered at the moment.
    pub fn over_limit(&self) -> bool {
        self.shared.as_deref().and_then(Shared::turn).is_some_and(|turn| turn.arena().over_limit())
    }

    /// Whether it stands for an arena.
    pub fn is_some(&self) -> bool {
        self.shared.is_some()
    }
}

impl From<RequestArena> for ArenaHandle {
    fn from(arena: RequestArena) -> ArenaHandle {
        ArenaHandle::with_closing(arena, None)
    }
}

impl fmt::Debug for ArenaHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArenaHandle").field("stats", &self.stats()).finish()
    }
}
