//! The handle of an arena.

use core::cell::Cell;
use core::fmt;

use crate::chunk;
use crate::config::Mode;
use crate::scope::ArenaGuard;
use crate::{startup, thread};

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
#[derive(Default)]
pub struct RequestArena {
    /// The record, taken when the arena is first entered. Belongs to this handle.
    record: Cell<Option<&'static chunk::Arena>>,
}

// SAFETY: the record belongs to the handle. It is touched through a handle, which moves as a whole, or by a thread that
// has it entered: a guard keeps the handle where it is, and where one was forgotten the handle leaves the record to that
// thread (`usable_record`).
unsafe impl Send for RequestArena {}

static_assertions::assert_impl_all!(RequestArena: Send);
static_assertions::assert_not_impl_any!(RequestArena: Sync);

/// What an arena holds, made by [`RequestArena::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArenaStats {
    /// Bytes its chunks have been bumped through, freed blocks included.
    pub bytes: u64,
    /// Live blocks.
    pub blocks: u64,
    /// Chunks of 64 KiB.
    pub chunks: u64,
    /// Objects that were too big for it and went elsewhere, since it was created or reset.
    pub bypassed_blocks: u64,
    /// Bytes of these.
    pub bypassed_bytes: u64,
}

impl RequestArena {
    /// An arena without memory.
    pub const fn new() -> RequestArena {
        RequestArena { record: Cell::new(None) }
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
        if startup::mode() != Mode::Arena {
            return ArenaGuard::without_effect();
        }
        let thread = thread::current();
        match self.usable_record(thread) {
            Some(record) => ArenaGuard::new(thread.enter(Some(record))),
            None => ArenaGuard::without_effect(),
        }
    }

    /// Runs `f` with the arena entered.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        let _guard = self.enter();
        f()
    }

    /// Frees everything in the arena at once, as dropping it would, but keeps a chunk for what comes next.
    ///
    /// Objects that are still alive stay valid and keep their chunk.
    pub fn reset(&mut self) {
        let thread = thread::current();
        if let Some(record) = self.record.get() {
            if thread.may_enter(record) {
                thread.reset_arena(record);
            } else {
                self.record.set(None);
            }
        }
    }

    /// What the arena holds.
    pub fn stats(&self) -> ArenaStats {
        let thread = thread::current();
        let Some(record) = self.record.get().filter(|record| thread.may_enter(record)) else {
            return ArenaStats::default();
        };
        thread.sync_entered();
        let (bytes, blocks) = record.usage();
        let (bypassed_blocks, bypassed_bytes) = record.bypassed.get();
        ArenaStats { bytes, blocks, chunks: record.chunks.get() as u64, bypassed_blocks, bypassed_bytes }
    }

    /// The record, unless another thread has it entered for ever; then it is left to that thread and replaced.
    fn usable_record(&self, thread: &thread::Thread) -> Option<&'static chunk::Arena> {
        let record =
            self.record.get().filter(|record| thread.may_enter(record)).or_else(|| thread.new_arena());
        self.record.set(record);
        record
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
            thread::current().close_arena(record);
        }
    }
}

impl fmt::Debug for RequestArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestArena").field("stats", &self.stats()).finish()
    }
}
