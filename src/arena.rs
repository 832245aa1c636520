//! The handle of an arena.

use core::cell::Cell;
use core::fmt;

use crate::chunk;
use crate::config::Mode;
use crate::handles::Region;
use crate::scope::ArenaGuard;
use crate::startup;
use crate::tenure::{kind_for, kind_of};
use crate::thread::{self, Entered};

/// An arena for the allocations of one request.
///
/// While it is entered, small objects that the thread allocates are bumped through its chunks. Closing it (dropping the
/// handle) frees the chunks as a whole. Objects that are still alive then stay valid: they keep the 64 KiB chunk they
/// are in, until they are freed, from whatever thread.
///
/// The handle may move between threads while it is not entered. Creating one costs nothing; it takes memory when
/// something is allocated in it.
///
/// ```
/// use shockwave_alloc::RequestArena;
///
/// # #[global_allocator]
/// # static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();
/// let mut arena = RequestArena::new();
/// let answer = arena.run(|| {
///     let words: Vec<String> = "per request arenas".split(' ').map(String::from).collect();
///     words.concat()
/// });
/// assert_eq!(answer, "perrequestarenas");
/// arena.reset();
/// assert_eq!(answer, "perrequestarenas"); // it escaped, and stays valid
/// ```
pub struct RequestArena {
    /// The record, taken when the arena is first entered. Belongs to this handle.
    record: Cell<Option<&'static chunk::Arena>>,
    options: ArenaBuilder,
    /// Memory of the handles.
    region: Region,
}

// SAFETY: the region is touched through the handle alone. What is placed in it need not be `Send`: as long as it can be reached, it
// borrows the arena, which then cannot move, and it is never dropped. The record belongs to the handle. It is touched through a handle, which moves as a whole, or by a thread that
// has it entered: a guard keeps the handle where it is, and where one was forgotten the handle leaves the record to that
// thread (`usable_record`).
unsafe impl Send for RequestArena {}

static_assertions::assert_impl_all!(RequestArena: Send);
static_assertions::assert_not_impl_any!(RequestArena: Sync);

/// Options of an arena, made by [`RequestArena::builder`].
///
/// ```
/// use shockwave_alloc::RequestArena;
///
/// let arena = RequestArena::builder().soft_limit(1 << 20).zero_freed(true).build();
/// assert!(!arena.over_limit());
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct ArenaBuilder {
    kind: u8,
    limit: u64,
    wiping: bool,
    in_crowds: bool,
}

impl ArenaBuilder {
    /// The options of [`RequestArena::new`].
    const DEFAULT: ArenaBuilder = ArenaBuilder { kind: 0, limit: u64::MAX, wiping: false, in_crowds: false };

    /// Says what kind of request the arena is for, by a key of the program's choice: the same key for requests that do the same.
    ///
    /// Arenas learn which sizes of blocks outlive them, and leave those to the slab. What they learn holds for arenas of their kind; 16
    /// kinds are told apart. [`with_request_arena`](crate::with_request_arena) takes each closure in the program for a kind of its own,
    /// [`in_request_arena`](crate::ArenaFutureExt::in_request_arena) each type of a future, and the `tower` layer each method and path.
    pub const fn kind(mut self, key: u64) -> Self {
        self.kind = kind_of(key);
        self
    }

    /// Is for arenas of the kind that values of this type have.
    pub(crate) fn kind_for<T>(mut self, value: &T) -> Self {
        self.kind = kind_for(value);
        self
    }

    /// Sets how many bytes the arena may hold, big objects that are allocated in its scopes included; no limit if not set.
    ///
    /// No allocation fails because of it: beyond the limit everything goes to the slab, and
    /// [`over_limit`](RequestArena::over_limit) says so. Small objects count as the bytes that the arena has been bumped
    /// through, freed ones included.
    pub const fn soft_limit(mut self, bytes: usize) -> Self {
        self.limit = bytes as u64;
        self
    }

    /// Overwrites every block of the arena with zeros when it is freed, and what is left when the arena is closed, so that
    /// nothing of a request stays in memory that the next one gets (off if not set).
    ///
    /// Costs the writing, and the fast path: a box of 32 B takes 300 instructions more from allocation to free, some 30 ns. Every object
    /// of at most 16 KiB stays in the arena, so sizes that tend to outlive it are not placed in the slab and keep their chunks.
    /// Not overwritten is what does not go to the arena: bigger objects, and those beyond its [soft limit](Self::soft_limit).
    /// The size of a freed block is believed: in such an arena a wrong layout in a call of `dealloc` does harm.
    pub const fn zero_freed(mut self, on: bool) -> Self {
        self.wiping = on;
        self
    }

    /// Has chunks of its own also if it is first used while very many arenas are open. For arenas that are used again and again.
    pub(crate) const fn in_crowds(mut self) -> Self {
        self.in_crowds = true;
        self
    }

    /// An arena with these options, without memory.
    pub const fn build(self) -> RequestArena {
        RequestArena { record: Cell::new(None), options: self, region: Region::new(self.wiping) }
    }
}

/// What an arena holds and has done, made by [`RequestArena::stats`] and [`RequestArena::close`].
///
/// Bytes are those its chunks have been bumped through: sizes rounded up to 8 B, freed blocks included, except those that
/// were freed last in, first out, whose memory is used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ArenaStats {
    /// Bytes at the moment.
    pub bytes: u64,
    /// Most bytes since it was created; resets start `bytes` over, not this.
    pub peak_bytes: u64,
    /// All bytes since it was created.
    pub total_bytes: u64,
    /// Live blocks.
    pub blocks: u64,
    /// Allocations that it has served since it was created.
    pub allocations: u64,
    /// Chunks of 64 KiB.
    pub chunks: u64,
    /// Objects that were too big for it and went elsewhere, since it was created or reset.
    pub bypassed_blocks: u64,
    /// Bytes of these.
    pub bypassed_bytes: u64,
    /// Small objects that went to the slab, because blocks of their size tend to outlive arenas, since it was created or
    /// reset.
    pub pretenured_blocks: u64,
    /// Bytes of these.
    pub pretenured_bytes: u64,
    /// Blocks that were alive when it was closed, which [`RequestArena::close`] alone can tell; 0 before.
    pub escaped_blocks: u64,
    /// Whether it has reached its [soft limit](ArenaBuilder::soft_limit).
    pub over_limit: bool,
}

impl Default for RequestArena {
    fn default() -> Self {
        RequestArena::new()
    }
}

impl RequestArena {
    /// An arena without memory.
    pub const fn new() -> RequestArena {
        ArenaBuilder::DEFAULT.build()
    }

    /// Options for an arena that [`new`](Self::new) does not offer.
    pub const fn builder() -> ArenaBuilder {
        ArenaBuilder::DEFAULT
    }

    /// Directs this thread's small allocations into the arena until the guard is dropped.
    ///
    /// Scopes nest: the arena entered last is the one that is used, and dropping its guard restores the previous one.
    /// An arena may be entered while it is entered. Dropping a guard also ends the scopes entered after it. Outside
    /// [`Mode::Arena`], in a thread that is ending and below 32 nested scopes the guard has no effect.
    ///
    /// ```
    /// # use shockwave_alloc::RequestArena;
    /// let arena = RequestArena::new();
    /// {
    ///     let _guard = arena.enter();
    ///     let _words = vec![String::from("in the arena")];
    /// }
    /// ```
    pub fn enter(&self) -> ArenaGuard<'_> {
        self.enter_record().map_or_else(ArenaGuard::without_effect, ArenaGuard::new)
    }

    /// [`enter`](Self::enter) without a guard: to be ended by [`Thread::leave`](thread::Thread::leave) in this thread, while the arena is
    /// where it is. `None` has no effect.
    #[inline]
    pub(crate) fn enter_record(&self) -> Option<Entered> {
        let thread = thread::current();
        if startup::mode() != Mode::Arena {
            thread.begin_without_arena();
            return None;
        }
        self.usable_record(thread).map(|record| thread.enter(Some(record)))
    }

    /// Runs `f` with the arena entered.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        let _guard = self.enter();
        f()
    }

    /// Frees everything in the arena at once, as dropping it would, but keeps a chunk for what comes next.
    ///
    /// Objects that are still alive stay valid and keep their chunk; [handles](Self::alloc) cannot be: they borrow the arena.
    pub fn reset(&mut self) {
        self.region.reset();
        let thread = thread::current();
        if let Some(record) = self.record.get() {
            if thread.may_enter(record) {
                thread.reset_arena(record, self.options.in_crowds);
            } else {
                self.record.set(None);
            }
        }
    }

    /// What the arena holds and has done.
    pub fn stats(&self) -> ArenaStats {
        let thread = thread::current();
        match self.record.get().filter(|record| thread.may_enter(record)) {
            Some(record) => {
                thread.sync_entered();
                stats_of(record)
            }
            None => ArenaStats::default(),
        }
    }

    /// Whether the arena has reached its [soft limit](ArenaBuilder::soft_limit); false if it has none.
    ///
    /// ```
    /// # use shockwave_alloc::RequestArena;
    /// # #[global_allocator]
    /// # static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();
    /// let arena = RequestArena::builder().soft_limit(1000).build();
    /// let words: Vec<String> = arena.run(|| (0..100).map(|n| format!("word {n}")).collect());
    /// assert!(arena.over_limit());
    /// assert_eq!(words.len(), 100); // an allocation never fails because of a limit
    /// ```
    pub fn over_limit(&self) -> bool {
        self.options.limit != u64::MAX && self.stats().over_limit
    }

    /// Closes the arena, as dropping it does, and tells what it did and how many blocks outlive it.
    ///
    /// ```
    /// # use shockwave_alloc::RequestArena;
    /// # #[global_allocator]
    /// # static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();
    /// let arena = RequestArena::new();
    /// let kept = arena.run(|| Box::new([0u8; 100]));
    /// let stats = arena.close();
    /// assert_eq!((stats.allocations, stats.escaped_blocks), (1, 1));
    /// drop(kept);
    /// ```
    pub fn close(self) -> ArenaStats {
        let mut stats = self.stats();
        if let Some(record) = self.record.take() {
            stats.escaped_blocks = thread::current().close_arena(record).escaped;
        }
        stats
    }

    /// Memory of the handles.
    #[inline]
    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    /// The record, unless another thread has it entered for ever; then it is left to that thread and replaced.
    fn usable_record(&self, thread: &thread::Thread) -> Option<&'static chunk::Arena> {
        let record = self.record.get().filter(|record| thread.may_enter(record)).or_else(|| {
            thread.new_arena(
                self.options.kind,
                self.options.limit,
                self.options.wiping,
                self.options.in_crowds,
            )
        });
        self.record.set(record);
        record
    }
}

/// What the arena holds and has done that this thread has entered; `None` outside of arenas.
///
/// ```
/// use shockwave_alloc::{current_arena_stats, with_request_arena};
///
/// # #[global_allocator]
/// # static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();
/// assert!(current_arena_stats().is_none());
/// with_request_arena(|| {
///     let _words = vec![String::from("one"), String::from("two")];
///     assert_eq!(current_arena_stats().unwrap().blocks, 3);
/// });
/// ```
pub fn current_arena_stats() -> Option<ArenaStats> {
    let thread = thread::current();
    thread.sync_entered();
    thread.entered_arena().map(stats_of)
}

/// The statistics of an arena whose cursor is folded.
fn stats_of(record: &chunk::Arena) -> ArenaStats {
    let (bytes, blocks) = (record.bytes(), record.blocks());
    let begun = bytes + record.retired_bytes.get();
    let (past, peak) = record.past_bytes.get();
    let (bypassed_blocks, bypassed_bytes) = record.bypassed();
    let (pretenured_blocks, pretenured_bytes) = record.outside.get();
    ArenaStats {
        bytes,
        peak_bytes: peak.max(bytes),
        total_bytes: past + begun,
        blocks,
        allocations: record.allocs.get(),
        chunks: record.chunks.get() as u64,
        bypassed_blocks,
        bypassed_bytes,
        pretenured_blocks,
        pretenured_bytes,
        escaped_blocks: 0,
        over_limit: record.over_limit(),
    }
}

/// Prepares for `arenas` arenas in use at the same time with `bytes_each` bytes in each: makes them, touches their memory and
/// keeps it for them for the rest of the process.
///
/// Afterwards that many arenas, in whatever threads, cause no call to the backing allocator or the OS and no page fault as long as
/// they stay within that size. Returns how many are ready; fewer than `arenas` if there was no memory, none outside
/// [`Mode::Arena`].
///
/// ```
/// use shockwave_alloc::warm_up;
///
/// # #[global_allocator]
/// # static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();
/// assert_eq!(warm_up(64, 16 << 10), 64);
/// ```
pub fn warm_up(arenas: usize, bytes_each: usize) -> usize {
    if startup::mode() == Mode::Arena { thread::current().warm_up(arenas, bytes_each) } else { 0 }
}

impl Drop for RequestArena {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            thread::current().drop_arena(record);
        }
    }
}

impl fmt::Debug for RequestArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestArena").field("stats", &self.stats()).finish()
    }
}
