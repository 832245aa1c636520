//! Arena records and the chunks they bump through.
//!
//! ```text
//!  start of page                     bump                end
//!    | blocks, freed or not           | free              |8 B|
//! ```
//!
//! Bumping goes upwards, so that the top block can grow in place. The last 8 B of a chunk are never handed out: the end
//! of a block is then never the start of the next chunk, and comparing a block's end with `bump` is enough to know that
//! the block is the top of the current chunk.

use core::cell::Cell;
use core::ptr;

use crate::header::{Kind, NO_OWNER, PageHeader};
use crate::space::{self, PAGE_SIZE};
use crate::stats::Closed;
use crate::sync::{AtomicU32, AtomicUsize, Lock, Ordering};

/// A chunk with survivors is bumped further by the next arena if it has at least this many bytes left.
const WORTH_GOING_ON: usize = PAGE_SIZE / 4;

/// Bytes of a chunk that can be bumped through.
pub(crate) const CHUNK_BYTES: usize = PAGE_SIZE - 8;

/// Position in a chunk.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    /// Address of the next free byte; 0 if there is no chunk.
    pub bump: usize,
    /// End of the chunk; null if there is none, so that nothing fits. Pointers to blocks derive from it.
    pub end: *mut u8,
    /// The chunk, newest of the arena's list; null if there is none.
    pub chunk: *const PageHeader,
}

impl Cursor {
    /// The cursor of no chunk: nothing fits.
    pub(crate) const NONE: Cursor = Cursor { bump: 0, end: ptr::null_mut(), chunk: ptr::null() };

    /// Bytes between the start of the chunk and the bump pointer.
    fn passed(&self) -> u32 {
        // The chunk starts at a multiple of its size and `bump` never reaches its end.
        (self.bump & (PAGE_SIZE - 1)) as u32
    }

    /// Notes in the chunk's header where the cursor stands and adds `live` blocks.
    ///
    /// # Safety
    ///
    /// The caller must have the arena of the chunk to itself.
    pub(crate) unsafe fn fold(&self, live: u32) {
        // SAFETY: chunks are headers of the table.
        if let Some(chunk) = unsafe { self.chunk.as_ref() } {
            chunk.set_used(chunk.used().wrapping_add(live));
            chunk.carved.store(self.passed(), Ordering::Relaxed);
        }
    }
}

/// An arena's record. Records live for ever and are used again by later arenas.
///
/// Belongs to whoever has the arena entered, else to whoever holds the handle. While the arena is entered `cursor` is
/// out of date: the real one stands in the thread's record.
#[repr(C, align(128))]
pub(crate) struct Arena {
    pub cursor: Cell<Cursor>,
    /// How many scopes of `thread` have it entered. Written by that thread alone; another one that holds the handle (a guard
    /// was forgotten) may read it, and takes everything else over if it reads 0.
    entered: AtomicU32,
    /// Address of the thread record that entered it last.
    thread: AtomicUsize,
    /// Link in a list of unused records.
    pub next: Cell<*const Arena>,
    pub chunks: Cell<usize>,
    /// Empty chunks it takes up again before it asks for a page, and how many.
    reserve: Cell<*const PageHeader>,
    reserved: Cell<usize>,
    /// How many empty chunks it keeps in any case when it is closed: what [`warm`](Self::warm) gave it.
    keep: Cell<usize>,
    /// What the newest chunk held when this arena began: bytes bumped through and live blocks, of earlier arenas that this
    /// record served.
    inherited: Cell<(u64, u64)>,
    /// Address of the cursor then; 0 if nothing was there.
    floor: Cell<usize>,
    /// Objects that were too big and went elsewhere: number and bytes.
    pub bypassed: Cell<(u64, u64)>,
}

/// Unused records that no heap keeps.
static UNUSED: Lock<Unused> = Lock::new(Unused(ptr::null()));

struct Unused(*const Arena);

// SAFETY: unused records belong to whoever holds the lock.
unsafe impl Send for Unused {}

/// A new record, or one that was used before. `None` when there is no memory.
pub(crate) fn new_record() -> Option<&'static Arena> {
    let mut unused = UNUSED.lock();
    // SAFETY: unused records are valid for ever and belong to whoever takes them from the list.
    if let Some(arena) = unsafe { unused.0.as_ref() } {
        unused.0 = arena.next.get();
        return Some(arena);
    }
    drop(unused);
    let record = space::alloc_record(size_of::<Arena>()).cast::<Arena>();
    if record.is_null() {
        return None;
    }
    // SAFETY: the record is big and aligned enough, lives for ever, and nobody else has it.
    unsafe {
        record.write(Arena {
            cursor: Cell::new(Cursor::NONE),
            entered: AtomicU32::new(0),
            thread: AtomicUsize::new(0),
            next: Cell::new(ptr::null()),
            chunks: Cell::new(0),
            reserve: Cell::new(ptr::null()),
            reserved: Cell::new(0),
            keep: Cell::new(0),
            inherited: Cell::new((0, 0)),
            floor: Cell::new(0),
            bypassed: Cell::new((0, 0)),
        });
        Some(&*record)
    }
}

/// Keeps a record, which must be closed, for any thread.
pub(crate) fn retire_record(arena: &'static Arena) {
    let mut unused = UNUSED.lock();
    arena.next.set(unused.0);
    unused.0 = arena;
}

impl Arena {
    /// Address of this record, as `owner` words hold it.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Counts a scope of the thread at address `thread`, which must be allowed to enter.
    #[inline]
    pub(crate) fn enter(&self, thread: usize) {
        self.thread.store(thread, Ordering::Relaxed);
        // SAFETY: chunks are headers of the table.
        if let Some(chunk) = unsafe { self.cursor.get().chunk.as_ref() } {
            chunk.current.store(1, Ordering::Relaxed);
        }
        self.entered.store(self.entered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Ends one scope. The cursor must have been written back.
    #[inline]
    pub(crate) fn leave(&self) {
        // Release: what the thread did with the arena comes before another one's use of it.
        self.entered.store(self.entered.load(Ordering::Relaxed).saturating_sub(1), Ordering::Release);
    }

    /// Ends all scopes. The cursor must have been written back.
    pub(crate) fn leave_all(&self) {
        self.entered.store(0, Ordering::Release);
    }

    /// Whether a thread has it entered.
    #[inline]
    pub(crate) fn is_entered(&self) -> bool {
        self.entered.load(Ordering::Acquire) != 0
    }

    /// Address of the thread record that entered it last.
    #[inline]
    pub(crate) fn thread(&self) -> usize {
        self.thread.load(Ordering::Relaxed)
    }

    /// Makes an empty page the arena's newest chunk and returns a cursor at its start. The previous chunk must have been
    /// folded.
    pub(crate) fn add_chunk(&self, page: &'static PageHeader, newest: *const PageHeader) -> Cursor {
        page.set_used(0);
        page.carved.store(0, Ordering::Relaxed);
        page.remote.live.reset();
        page.next.set(newest);
        page.owner.store(self.address(), Ordering::Relaxed);
        page.current.store(1, Ordering::Relaxed);
        page.set_kind(Kind::Chunk);
        self.chunks.set(self.chunks.get() + 1);
        start(page)
    }

    /// A chunk of the reserve, for [`add_chunk`](Self::add_chunk).
    pub(crate) fn take_reserved(&self) -> Option<&'static PageHeader> {
        // SAFETY: the reserve consists of headers of pages that belong to this arena.
        let page = unsafe { self.reserve.get().as_ref() }?;
        self.reserve.set(page.next.get());
        self.reserved.set(self.reserved.get() - 1);
        Some(page)
    }

    fn put_reserved(&self, page: &'static PageHeader) {
        page.next.set(self.reserve.get());
        self.reserve.set(page);
        self.reserved.set(self.reserved.get() + 1);
    }

    /// Makes a closed arena ready for `bytes` bytes: it gets chunks from `take`, their memory is touched, and it keeps that
    /// many from now on. Returns whether there was enough.
    pub(crate) fn warm(&self, bytes: usize, mut take: impl FnMut() -> Option<&'static PageHeader>) -> bool {
        let wanted = bytes.div_ceil(CHUNK_BYTES).max(1);
        self.keep.set(self.keep.get().max(wanted));
        // A chunk with survivors does not count: it is partly used.
        let whole = if self.inherited.get().1 == 0 { self.chunks.get() } else { 0 };
        let cursor = self.cursor.get();
        for addr in (cursor.bump..cursor.end.addr()).step_by(4096) {
            // SAFETY: between the cursor and the end of a chunk of this arena nothing is allocated.
            unsafe { cursor.end.with_addr(addr).write_volatile(0) };
        }
        while self.reserved.get() + whole < wanted {
            let Some(page) = take() else { return false };
            page.owner.store(self.address(), Ordering::Relaxed);
            page.set_used(0);
            page.carved.store(0, Ordering::Relaxed);
            page.current.store(0, Ordering::Relaxed);
            page.set_kind(Kind::Chunk);
            // The chunk that is put aside first is used last, and perhaps not to its end.
            let last = self.reserved.get() + whole == 0;
            let touched = if last { bytes - (wanted - 1) * CHUNK_BYTES.min(bytes) } else { CHUNK_BYTES };
            for offset in (0..touched).step_by(4096) {
                // SAFETY: inside the page, which is empty and belongs to this arena. Volatile: touching is the point.
                unsafe { space::start_of(page).add(offset).write_volatile(0) };
            }
            self.put_reserved(page);
        }
        true
    }

    /// How many empty chunks it keeps in any case.
    pub(crate) fn keep(&self) -> usize {
        self.keep.get()
    }

    /// Ends the arena's use of its chunks. Up to `keep` empty ones stay, the others go to `give`; those with live blocks are
    /// left to their last free. But if any stays and the newest chunk has survivors and much room, the next arena goes on
    /// in it: a few survivors per request then share a chunk, and the next request finds its memory warm.
    ///
    /// # Safety
    ///
    /// The caller must have the arena to itself, its cursor must be up to date and folded, and no thread may have it
    /// entered.
    pub(crate) unsafe fn close(&self, keep: usize, mut give: impl FnMut(&'static PageHeader)) -> Closed {
        let mut closed = Closed::default();
        let mut next = Cursor::NONE;
        let mut list = self.cursor.get().chunk;
        // SAFETY: the list consists of headers of chunks of this arena.
        while let Some(chunk) = unsafe { list.as_ref() } {
            list = chunk.next.get();
            closed.bytes += u64::from(chunk.carved.load(Ordering::Relaxed));
            let live = chunk.used();
            if live != 0 {
                let cursor = self.cursor.get();
                let room = cursor.end.addr().saturating_sub(cursor.bump);
                if keep > 0 && ptr::eq(cursor.chunk, chunk) && room >= WORTH_GOING_ON {
                    closed.escaped += live_blocks(chunk);
                    chunk.next.set(ptr::null());
                    chunk.current.store(0, Ordering::Relaxed);
                    next = cursor;
                    continue;
                }
                // Before the count is handed over: who frees the last block may use the record again.
                chunk.owner.store(NO_OWNER, Ordering::Relaxed);
                chunk.current.store(0, Ordering::Relaxed);
                let remaining = chunk.remote.live.close(live);
                if remaining != 0 {
                    closed.escaped += remaining as u64;
                    continue;
                }
            }
            if self.reserved.get() < keep && live == 0 {
                self.put_reserved(chunk);
            } else {
                give(chunk);
            }
        }
        let (bytes, blocks) = self.inherited.get();
        closed.bytes = closed.bytes.saturating_sub(bytes);
        closed.escaped = closed.escaped.saturating_sub(blocks);
        while self.reserved.get() > keep {
            let Some(chunk) = self.take_reserved() else { break };
            give(chunk);
        }
        self.chunks.set(usize::from(!next.chunk.is_null()));
        if next.chunk.is_null() {
            // Ready to bump at once: entering finds a chunk.
            next = self.take_reserved().map_or(Cursor::NONE, |chunk| self.add_chunk(chunk, ptr::null()));
        }
        self.cursor.set(next);
        self.bypassed.set((0, 0));
        self.begin();
        closed
    }

    /// Begins an arena on a record that was closed: finds out what is left in the chunk it goes on in, and starts over in it if
    /// nothing is.
    pub(crate) fn begin(&self) {
        let cursor = self.cursor.get();
        self.inherited.set((0, 0));
        self.floor.set(0);
        // SAFETY: chunks are headers of the table.
        let Some(chunk) = (unsafe { cursor.chunk.as_ref() }).filter(|chunk| chunk.used() != 0) else {
            return;
        };
        let live = live_blocks(chunk);
        if live == 0 {
            // Every block of it has been freed, by other threads or outside the scope. Nobody knows the chunk any more.
            chunk.set_used(0);
            chunk.carved.store(0, Ordering::Relaxed);
            chunk.remote.live.reset();
            self.cursor.set(start(chunk));
        } else {
            self.inherited.set((u64::from(chunk.carved.load(Ordering::Relaxed)), live));
            self.floor.set(cursor.bump);
        }
    }

    /// Whether a block of this record's chunks was there when the arena began. Such a block is treated like one of another
    /// arena: it may not grow in this one.
    #[inline]
    pub(crate) fn is_inherited(&self, ptr: *const u8) -> bool {
        let floor = self.floor.get();
        ptr.addr() < floor && ptr.addr() ^ floor < PAGE_SIZE
    }

    /// Bytes bumped through and live blocks, for statistics. The cursor must be folded.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let (mut bytes, mut blocks) = (0u64, 0u64);
        let mut list = self.cursor.get().chunk;
        // SAFETY: the list consists of headers of chunks of this arena.
        while let Some(chunk) = unsafe { list.as_ref() } {
            list = chunk.next.get();
            bytes += u64::from(chunk.carved.load(Ordering::Relaxed));
            blocks += live_blocks(chunk);
        }
        let inherited = self.inherited.get();
        (bytes.saturating_sub(inherited.0), blocks.saturating_sub(inherited.1))
    }
}

/// Live blocks of a chunk, folded or closed.
pub(crate) fn live_blocks(chunk: &PageHeader) -> u64 {
    let local = if chunk.owner.load(Ordering::Relaxed) == NO_OWNER { 0 } else { chunk.used() as i32 as i64 };
    (local + chunk.remote.live.balance() as i64).max(0) as u64
}

/// A cursor at the start of a chunk.
fn start(page: &PageHeader) -> Cursor {
    let start = space::start_of(page);
    Cursor { bump: start.addr(), end: start.wrapping_add(CHUNK_BYTES), chunk: page }
}
