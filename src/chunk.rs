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

mod closing;
mod pressure;
mod unused;

pub(crate) use self::pressure::{Pressure, free_remote, pressure};
pub(crate) use self::unused::{lock_for_fork, new_record, retire_record, unlock_after_fork};

use core::cell::Cell;
use core::ptr;

use crate::escape::Recorder;
use crate::header::{Kind, NO_OWNER, PageHeader};
use crate::space::{self, PAGE_SIZE};
use crate::sync::{AtomicU32, AtomicUsize, Ordering};
use crate::tenure::{GRANULE, Tracker};

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
    /// Bytes bumped through in all of them but the newest.
    earlier_bytes: Cell<u64>,
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
    bypassed: Cell<(u64, u64)>,
    /// Bytes of these that have not been freed in the arena's scopes.
    bypassed_now: Cell<u64>,
    /// Small objects that were placed in the slab because of their size ([`tenure`](crate::tenure)) or the limit.
    pub outside: Cell<(u64, u64)>,
    /// Allocations in chunks since the arena was created, and how many of them in lives that have ended.
    pub allocs: Cell<u64>,
    pub past_allocs: Cell<u64>,
    /// Bytes bumped through in chunks that were given up since the arena began.
    pub retired_bytes: Cell<u64>,
    /// Bytes of its earlier lives, ended by `reset`: sum, and most at once.
    pub past_bytes: Cell<(u64, u64)>,
    /// More bytes than this, and it is over its limit.
    pub limit: Cell<u64>,
    diverted: Cell<Diverted>,
    /// Which of what a heap has learned holds for it.
    pub kind: Cell<u8>,
    /// Whether freed blocks are overwritten with zeros.
    wiping: Cell<bool>,
    /// Counts by size if the arena is tracked; else null.
    tracker: Cell<*const Tracker>,
    /// Records call stacks if the arena is traced.
    recorder: Cell<Option<Recorder>>,
    /// Whether everything above but cursor and allocations is as it is in a new arena without options, so that beginning and
    /// ending one need not look at it.
    plain: Cell<bool>,
}

/// Whether what is allocated in an arena's scopes goes to the slab, until it is closed or reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Diverted {
    No,
    /// It has reached its limit.
    ByLimit,
    /// It would keep much more memory than the program uses of it.
    ByWaste,
    /// Too many arenas were open when it began.
    ByCrowd,
}

/// Overwrites a block that is being freed, if its chunk is to be wiped. A wrong size wipes at most to the end of the page.
///
/// # Safety
///
/// `block` must be a block of the chunk `page` that is not used any more.
pub(crate) unsafe fn wipe_freed(page: &PageHeader, block: *mut u8, size: usize) {
    if page.class.load(Ordering::Relaxed) == WIPED {
        let room = PAGE_SIZE - (block.addr() & (PAGE_SIZE - 1));
        // SAFETY: the block has `size` bytes by its layout, which is the program's word, and they end before the page does.
        unsafe { block.write_bytes(0, size.min(room)) };
    }
}

/// In `class` of a chunk's header: freed blocks are overwritten.
const WIPED: u8 = 1;

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
        page.prev.set(ptr::null());
        // SAFETY: chunks are headers of the table.
        if let Some(newest) = unsafe { newest.as_ref() } {
            newest.prev.set(page);
            let bytes = u64::from(newest.carved.load(Ordering::Relaxed));
            self.earlier_bytes.set(self.earlier_bytes.get() + bytes);
        }
        page.class.store(if self.wiping.get() { WIPED } else { 0 }, Ordering::Relaxed);
        page.owner.store(self.address(), Ordering::Relaxed);
        page.current.store(1, Ordering::Relaxed);
        page.set_kind(Kind::Chunk);
        self.chunks.set(self.chunks.get() + 1);
        start(page)
    }

    /// A cursor like `cursor`, whose end is where the arena's limit is reached, if that comes before the chunk's end.
    pub(crate) fn within_limit(&self, cursor: Cursor) -> Cursor {
        let limit = self.limit.get();
        // SAFETY: chunks are headers of the table.
        let Some(chunk) = (unsafe { cursor.chunk.as_ref() }).filter(|_| limit != u64::MAX) else {
            return cursor;
        };
        let room = usize::try_from(limit.saturating_sub(self.limited_bytes())).unwrap_or(usize::MAX);
        // Not from where the cursor's end is: there may be more room now than when that was set.
        let end = end_of(chunk);
        let limited = cursor.bump.saturating_add(room & !(GRANULE - 1)).min(end.addr());
        Cursor { end: end.with_addr(limited), ..cursor }
    }

    /// Bytes that count for the limit. The cursor must be folded.
    fn limited_bytes(&self) -> u64 {
        self.bytes() + self.bypassed_now.get() + self.outside.get().1
    }

    /// Whether its bytes, big objects included, have reached the limit. The cursor must be folded.
    pub(crate) fn over_limit(&self) -> bool {
        let limit = self.limit.get();
        self.diverted.get() == Diverted::ByLimit || limit != u64::MAX && self.limited_bytes() >= limit
    }

    /// Whether it is the limit and not the chunk that ends the room for allocations. The cursor must be folded.
    pub(crate) fn ends_at_limit(&self) -> bool {
        let cursor = self.cursor.get();
        // SAFETY: chunks are headers of the table.
        let chunk = unsafe { cursor.chunk.as_ref() };
        chunk.is_some_and(|chunk| self.within_limit(cursor).end < end_of(chunk))
    }

    /// Whether it is neither diverted nor watched nor limited, and more; see the field.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.plain.get()
    }

    /// Whether freed blocks are overwritten, which the slab does not do.
    #[inline]
    pub(crate) fn is_wiping(&self) -> bool {
        self.wiping.get()
    }

    #[inline]
    pub(crate) fn is_diverted(&self) -> bool {
        self.diverted.get() != Diverted::No
    }

    /// Starts over in the newest chunk if no block of it is alive any more. The cursor must be folded.
    pub(crate) fn restart_chunk(&self) -> bool {
        // SAFETY: chunks are headers of the table.
        let Some(chunk) = (unsafe { self.cursor.get().chunk.as_ref() }) else { return false };
        if live_blocks(chunk) != 0 {
            return false;
        }
        self.retire_bytes(chunk);
        chunk.set_used(0);
        chunk.carved.store(0, Ordering::Relaxed);
        chunk.remote.live.reset();
        self.cursor.set(start(chunk));
        true
    }

    /// Takes out an earlier chunk, in which no block is alive any more: the caller has it then. The newest one stays.
    pub(crate) fn remove_chunk(&self, chunk: &'static PageHeader) -> bool {
        // SAFETY: list members are headers of chunks of this arena.
        let Some(newer) = (unsafe { chunk.prev.get().as_ref() }) else { return false };
        let older = chunk.next.get();
        newer.next.set(older);
        // SAFETY: as above.
        if let Some(older) = unsafe { older.as_ref() } {
            older.prev.set(newer);
        }
        self.retire_bytes(chunk);
        let bytes = u64::from(chunk.carved.load(Ordering::Relaxed));
        self.earlier_bytes.set(self.earlier_bytes.get().saturating_sub(bytes));
        self.chunks.set(self.chunks.get().saturating_sub(1));
        true
    }

    /// Adds what was bumped through in a chunk that loses its contents to the sum.
    fn retire_bytes(&self, chunk: &PageHeader) {
        let (sum, peak) = self.past_bytes.get();
        self.past_bytes.set((sum, peak.max(self.bytes())));
        let mut bytes = u64::from(chunk.carved.load(Ordering::Relaxed));
        if self.floor.get() != 0 && self.floor.get() & !(PAGE_SIZE - 1) == space::start_of(chunk).addr() {
            bytes = bytes.saturating_sub(self.inherited.get().0);
            self.inherited.set((0, 0));
            self.floor.set(0);
        }
        self.retired_bytes.set(self.retired_bytes.get() + bytes);
        self.plain.set(false);
    }

    /// Whether most of its memory is garbage: it holds four times what the live blocks need, if they are of the
    /// average size. The cursor must be folded.
    pub(crate) fn is_mostly_garbage(&self) -> bool {
        let bumped = self.past_bytes.get().0 + self.retired_bytes.get() + self.bytes();
        let average = bumped / self.allocs.get().max(1);
        self.blocks().saturating_mul(average) < (self.chunks.get() * CHUNK_BYTES) as u64 / 4
    }

    /// Bumps in the record's own cursor, for a thread that watches every call. Null if it does not fit.
    pub(crate) fn bump_watched(&self, size: usize, align: usize) -> *mut u8 {
        let cursor = self.within_limit(self.cursor.get());
        if cursor.chunk.is_null() {
            return ptr::null_mut();
        }
        // No sum overflows, as in `Thread::bump_from`.
        let align = align.max(GRANULE);
        let start = (cursor.bump + (align - 1)) & !(align - 1);
        let new = start + ((size + (GRANULE - 1)) & !(GRANULE - 1));
        if new > cursor.end.addr() {
            return ptr::null_mut();
        }
        let cursor = Cursor { bump: new, ..cursor };
        self.cursor.set(cursor);
        // SAFETY: the arena is entered by the caller's thread.
        unsafe { cursor.fold(1) };
        self.allocs.set(self.allocs.get() + 1);
        cursor.end.with_addr(start)
    }

    /// Counts a small object that goes to the slab instead.
    pub(crate) fn count_outside(&self, size: usize) {
        let (blocks, bytes) = self.outside.get();
        self.outside.set((blocks + 1, bytes + size as u64));
        self.plain.set(false);
    }

    /// Counts allocations by size from now on.
    pub(crate) fn track(&self, recheck: bool) {
        if let Some(tracker) = unused::new_tracker() {
            tracker.begin(recheck);
            self.tracker.set(tracker);
            self.plain.set(false);
        }
    }

    /// The tracker, if the arena is tracked.
    #[inline]
    pub(crate) fn tracker(&self) -> Option<&'static Tracker> {
        // SAFETY: trackers live for ever; this one belongs to the arena.
        unsafe { self.tracker.get().as_ref() }
    }

    /// Ends the counting, if there is any. Returns the counts.
    pub(crate) fn end_tracking(&self, look: impl FnOnce(&Tracker)) {
        let Some(tracker) = self.tracker() else { return };
        self.tracker.set(ptr::null());
        look(tracker);
        unused::retire_tracker(tracker);
    }

    /// Whether the thread that has it entered takes the slow path for every allocation and free.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        !self.tracker.get().is_null() || self.wiping.get() || self.recorder.get().is_some()
    }

    /// Records call stacks from now on.
    pub(crate) fn record(&self, recorder: Recorder) {
        self.recorder.set(Some(recorder));
        self.plain.set(false);
    }

    /// What records call stacks, if the arena is traced.
    #[inline]
    pub(crate) fn recorder(&self) -> Option<Recorder> {
        self.recorder.get()
    }

    /// Where it began in a chunk with survivors of others, and how many; 0 if it did not.
    pub(crate) fn began(&self) -> (usize, u64) {
        (self.floor.get(), self.inherited.get().1)
    }

    /// Ends the recording, if there is any.
    pub(crate) fn take_recorder(&self) -> Option<Recorder> {
        self.recorder.take()
    }

    /// A chunk of the reserve, for [`add_chunk`](Self::add_chunk).
    pub(crate) fn take_reserved(&self) -> Option<&'static PageHeader> {
        // SAFETY: the reserve consists of headers of pages that belong to this arena.
        let page = unsafe { self.reserve.get().as_ref() }?;
        self.reserve.set(page.next.get());
        self.reserved.set(self.reserved.get() - 1);
        Some(page)
    }

    pub(crate) fn put_reserved(&self, page: &'static PageHeader) {
        page.next.set(self.reserve.get());
        self.reserve.set(page);
        self.reserved.set(self.reserved.get() + 1);
    }

    /// Makes a closed arena ready for `bytes` bytes: it gets chunks from `take`, their memory is touched, and it keeps that
    /// many from now on. Returns whether there was enough.
    pub(crate) fn warm(&self, bytes: usize, mut take: impl FnMut() -> Option<&'static PageHeader>) -> bool {
        let wanted = bytes.div_ceil(CHUNK_BYTES).max(1);
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
        self.keep.set(self.keep.get().max(wanted));
        true
    }

    /// Whether it has a chunk already, without asking for a page.
    pub(crate) fn has_room(&self) -> bool {
        !self.cursor.get().chunk.is_null() || self.reserved.get() > 0
    }

    /// How many empty chunks it has put aside.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved.get()
    }

    /// How many empty chunks it keeps in any case.
    pub(crate) fn keep(&self) -> usize {
        self.keep.get()
    }

    /// Counts an object that is too big and goes elsewhere.
    pub(crate) fn count_bypassed(&self, size: usize) {
        let (blocks, bytes) = self.bypassed.get();
        self.bypassed.set((blocks + 1, bytes + size as u64));
        self.bypassed_now.set(self.bypassed_now.get() + size as u64);
        self.plain.set(false);
    }

    /// Counts the free of such an object.
    pub(crate) fn count_bypassed_free(&self, size: usize) {
        self.bypassed_now.set(self.bypassed_now.get().saturating_sub(size as u64));
    }

    /// Counts that such an object has another size now.
    pub(crate) fn count_bypassed_resize(&self, old_size: usize, new_size: usize) {
        self.bypassed_now.set((self.bypassed_now.get() + new_size as u64).saturating_sub(old_size as u64));
    }

    /// Bytes and blocks of objects that were too big.
    pub(crate) fn bypassed(&self) -> (u64, u64) {
        self.bypassed.get()
    }

    /// Sends what is allocated from now on to the slab.
    pub(crate) fn divert(&self, reason: Diverted) {
        self.diverted.set(reason);
        self.plain.set(false);
    }

    /// Adds the bytes of a life that `reset` has ended, of which `retired` were in chunks given up before.
    pub(crate) fn add_past(&self, bytes: u64, retired: u64) {
        let (sum, peak) = self.past_bytes.get();
        self.past_bytes.set((sum + bytes, peak.max(bytes - retired)));
        self.plain.set(false);
    }

    /// Whether a block of this record's chunks was there when the arena began. Such a block is treated like one of another
    /// arena: it may not grow in this one.
    #[inline]
    pub(crate) fn is_inherited(&self, ptr: *const u8) -> bool {
        let floor = self.floor.get();
        ptr.addr() < floor && ptr.addr() ^ floor < PAGE_SIZE
    }

    /// Bytes bumped through. The cursor must be folded.
    pub(crate) fn bytes(&self) -> u64 {
        // SAFETY: chunks are headers of the table.
        let newest = unsafe { self.cursor.get().chunk.as_ref() };
        let bytes = newest.map_or(0, |chunk| u64::from(chunk.carved.load(Ordering::Relaxed)));
        (self.earlier_bytes.get() + bytes).saturating_sub(self.inherited.get().0)
    }

    /// Live blocks, for which every chunk is visited. The cursor must be folded.
    pub(crate) fn blocks(&self) -> u64 {
        let mut blocks = 0u64;
        let mut list = self.cursor.get().chunk;
        // SAFETY: the list consists of headers of chunks of this arena.
        while let Some(chunk) = unsafe { list.as_ref() } {
            list = chunk.next.get();
            blocks += live_blocks(chunk);
        }
        blocks.saturating_sub(self.inherited.get().1)
    }
}

/// Live blocks of a chunk, folded or closed.
pub(crate) fn live_blocks(chunk: &PageHeader) -> u64 {
    let local = if chunk.owner.load(Ordering::Relaxed) == NO_OWNER { 0 } else { chunk.used() as i32 as i64 };
    (local + chunk.remote.live.balance() as i64).max(0) as u64
}

/// A cursor at the start of a chunk.
fn start(page: &PageHeader) -> Cursor {
    Cursor { bump: space::start_of(page).addr(), end: end_of(page), chunk: page }
}

/// Where bumping ends in a chunk.
fn end_of(page: &PageHeader) -> *mut u8 {
    space::start_of(page).wrapping_add(CHUNK_BYTES)
}
