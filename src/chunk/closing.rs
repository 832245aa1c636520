//! The end of an arena, and the beginning of the next one on its record.

use core::ptr;

use super::{Arena, CHUNK_BYTES, Cursor, Diverted, WIPED, end_of, live_blocks, pressure, start};
use crate::header::{NO_OWNER, PageHeader};
use crate::space::{self, PAGE_SIZE};
use crate::stats::Closed;
use crate::sync::Ordering;

/// A chunk with survivors is bumped further by the next arena if it has at least this many bytes left.
const WORTH_GOING_ON: usize = PAGE_SIZE / 4;

impl Arena {
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
                let room = CHUNK_BYTES.saturating_sub(cursor.passed() as usize);
                let goes_on = keep > 0 && !self.wiping.get() && ptr::eq(cursor.chunk, chunk);
                if goes_on && room >= WORTH_GOING_ON {
                    closed.escaped += live_blocks(chunk);
                    chunk.next.set(ptr::null());
                    chunk.prev.set(ptr::null());
                    chunk.current.store(0, Ordering::Relaxed);
                    next = Cursor { end: end_of(chunk), ..cursor };
                    continue;
                }
                // Before the count is handed over: who frees the last block may use the record again.
                chunk.owner.store(NO_OWNER, Ordering::Relaxed);
                chunk.current.store(0, Ordering::Relaxed);
                pressure::pin();
                let remaining = chunk.remote.live.close(live);
                if remaining != 0 {
                    closed.escaped += remaining as u64;
                    closed.left += 1;
                    continue;
                }
                pressure::unpin();
            }
            overwrite(chunk);
            if self.reserved.get() < keep && live == 0 {
                self.put_reserved(chunk);
            } else {
                closed.left += 1;
                give(chunk);
            }
        }
        let (bytes, blocks) = self.inherited.get();
        closed.bytes = closed.bytes.saturating_sub(bytes) + self.retired_bytes.get();
        closed.escaped = closed.escaped.saturating_sub(blocks);
        while self.reserved.get() > keep {
            let Some(chunk) = self.take_reserved() else { break };
            closed.left += 1;
            give(chunk);
        }
        self.chunks.set(usize::from(!next.chunk.is_null()));
        self.earlier_bytes.set(0);
        if next.chunk.is_null() {
            // Ready to bump at once: entering finds a chunk.
            next = self.take_reserved().map_or(Cursor::NONE, |chunk| self.add_chunk(chunk, ptr::null()));
        }
        self.cursor.set(next);
        self.begin();
        closed
    }

    /// [`close`](Self::close) for the ordinary case: one chunk, of which no block is alive, and nothing else to do. The cursor need not
    /// have been written back: it stands at `cursor`, and `live` blocks are to be added to the chunk's, wrapping. Returns the bytes
    /// bumped through, or `None` if it is not that case; then nothing has changed.
    ///
    /// # Safety
    ///
    /// The caller must have the arena to itself, and no scope may have it entered but one that the caller ends.
    #[inline]
    pub(crate) unsafe fn close_clean(&self, cursor: Cursor, live: u32) -> Option<u64> {
        // SAFETY: chunks are headers of the table.
        let Some(chunk) = (unsafe { cursor.chunk.as_ref() }) else { return self.plain.get().then_some(0) };
        // Without live blocks nobody else knows the chunk; see `LiveCount::close`.
        if self.chunks.get() != 1 || chunk.used().wrapping_add(live) != 0 || !self.plain.get() {
            return None;
        }
        let passed = cursor.passed();
        if cfg!(debug_assertions) {
            chunk.carved.store(passed, Ordering::Relaxed);
            overwrite(chunk);
        }
        chunk.set_used(0);
        chunk.carved.store(0, Ordering::Relaxed);
        self.cursor.set(Cursor { bump: cursor.bump & !(PAGE_SIZE - 1), ..cursor });
        Some(u64::from(passed))
    }

    /// Makes a record that was closed that of a new handle.
    #[inline]
    pub(crate) fn renew(&self, kind: u8, limit: u64, wiping: bool) {
        self.kind.set(kind);
        self.allocs.set(0);
        self.past_allocs.set(0);
        if limit != u64::MAX || wiping || !self.plain.get() {
            self.renew_slow(limit, wiping);
        }
    }

    #[cold]
    fn renew_slow(&self, limit: u64, wiping: bool) {
        self.past_bytes.set((0, 0));
        self.limit.set(limit);
        if self.wiping.replace(wiping) != wiping {
            // SAFETY: chunks are headers of the table.
            if let Some(chunk) = unsafe { self.cursor.get().chunk.as_ref() } {
                chunk.class.store(if wiping { WIPED } else { 0 }, Ordering::Relaxed);
            }
        }
        self.begin();
    }

    /// Begins an arena on a record that was closed: finds out what is left in the chunk it goes on in, and starts over in it if
    /// nothing is.
    pub(crate) fn begin(&self) {
        let cursor = self.cursor.get();
        self.inherited.set((0, 0));
        self.floor.set(0);
        self.bypassed.set((0, 0));
        self.bypassed_now.set(0);
        self.outside.set((0, 0));
        self.retired_bytes.set(0);
        self.diverted.set(Diverted::No);
        let ordinary = self.limit.get() == u64::MAX && !self.wiping.get() && self.past_bytes.get() == (0, 0);
        self.plain.set(ordinary && self.tracker.get().is_null() && self.recorder.get().is_none());
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
            self.plain.set(false);
        }
    }
}

/// Overwrites what a chunk without live blocks holds: with zeros if it is to be wiped, and in debug builds with a pattern, so that
/// a use of it is noticed.
#[inline]
fn overwrite(chunk: &PageHeader) {
    if chunk.class.load(Ordering::Relaxed) == WIPED {
        fill(chunk, 0);
    } else if cfg!(all(debug_assertions, not(miri))) {
        fill(chunk, POISON);
    }
}

#[cold]
fn fill(chunk: &PageHeader, byte: u8) {
    let bytes = chunk.carved.load(Ordering::Relaxed) as usize;
    // SAFETY: the first `carved` bytes of the chunk were bumped through, and nothing in it is used any more.
    unsafe { space::start_of(chunk).write_bytes(byte, bytes.min(CHUNK_BYTES)) };
}

/// What debug builds overwrite the memory of a closed arena with.
const POISON: u8 = 0xA5;
