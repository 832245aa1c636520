//! Scopes of a thread and the arenas they enter.

use core::cell::Cell;
use core::ptr;

use super::{
    ARENAS_KEPT, CHUNKS_KEPT, DEPTH_MAX, Entered, Frame, NO_ARENA, STEPPED_OUT, Thread, WATCHED, current,
    no_bins,
};
use crate::bins::Row;
use crate::chunk::{self, Arena, Cursor, Diverted, Pressure};
use crate::config::Mode;
use crate::heap::Heap;
use crate::stats::{Closed, Counter, UNATTACHED};
use crate::tenure::{Start, Term, Tracker};
use crate::{crowd, escape, scavenge, space, startup, trace};

/// A scope with an arena of its own; see [`Thread::open`]. Two words, so that it stays in registers.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    arena: &'static Arena,
    /// That of its frame.
    serial: u64,
}

impl Thread {
    /// Enters an arena, or with `None` steps outside of any.
    pub(crate) fn enter(&self, arena: Option<&'static Arena>) -> Entered {
        // Without the destructor registered an arena could stay entered when the thread ends.
        if self.depth.get() >= DEPTH_MAX || self.attach().is_none() {
            return Entered { index: 0, serial: 0 };
        }
        self.push_frame(arena)
    }

    // Into `open`, too, which is on the way of each request: as a call it costs a sixth more.
    #[inline(always)]
    fn push_frame(&self, arena: Option<&'static Arena>) -> Entered {
        let index = self.depth.get();
        let Some(frame) = self.frames.get(index) else { return Entered { index: 0, serial: 0 } };
        self.park();
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        self.depth.set(index + 1);
        if let Some(arena) = arena {
            arena.enter(self.address());
        }
        frame.set(Frame { arena: arena.map_or(ptr::null(), ptr::from_ref), serial });
        self.load(arena);
        Entered { index, serial }
    }

    /// Opens an arena of a kind and enters it. `None` if there is none, and the scope has no effect.
    pub(crate) fn open(&self, kind: u8) -> Option<Opened> {
        if startup::mode() != Mode::Arena {
            self.begin_without_arena();
            return None;
        }
        if self.depth.get() >= DEPTH_MAX {
            return None;
        }
        let arena = self.new_arena(kind, u64::MAX, false, false)?;
        Some(Opened { arena, serial: self.push_frame(Some(arena)).serial })
    }

    /// A request begins, or goes on, in a mode without arenas: the thread looks at the clock now and then, which it would not if its bins had all
    /// that it needs.
    #[inline]
    pub(crate) fn begin_without_arena(&self) {
        if let Some(heap) = self.attached().filter(|heap| heap.turn()) {
            self.by_the_way(Some(heap));
        }
    }

    /// Ends what [`open`](Self::open) began.
    pub(crate) fn close_opened(&self, opened: Opened) {
        let arena = opened.arena;
        // Only this scope enters the arena, so if that is entered the top frame is this scope's.
        let is_top = self.arena.get() == arena.address();
        let index = self.depth.get().saturating_sub(1);
        let (allocs, frees) = (self.allocs.get(), self.frees.get());
        if is_top
            && let Some(heap) = self.attached()
            && heap.arena_count.get() < CHUNKS_KEPT
            // SAFETY: nobody but the scope that ends here knows the arena, and the thread's cursor is its.
            && let Some(bytes) = unsafe { arena.close_clean(self.cursor(), allocs.wrapping_sub(frees)) }
        {
            arena.leave();
            self.depth.set(index);
            if index == 0 {
                self.load(None);
            } else {
                self.load_outer(index);
            }
            closed_clean(heap, arena, bytes, arena.allocs.get() + u64::from(allocs));
        } else {
            self.close_other(opened);
        }
    }

    /// [`close_opened`](Self::close_opened) where more is to be done.
    #[cold]
    #[inline(never)]
    fn close_other(&self, Opened { arena, serial }: Opened) {
        let index = self.frames[..self.depth.get()].iter().rposition(|frame| frame.get().serial == serial);
        if let Some(index) = index {
            self.leave(Entered { index, serial });
        }
        self.drop_arena(arena);
    }

    /// Ends an arena of whose figures nobody asks any more, and takes its record back.
    pub(crate) fn drop_arena(&self, arena: &'static Arena) {
        if let Some(heap) = self.attached()
            && heap.arena_count.get() < CHUNKS_KEPT
            && !arena.is_entered()
            // SAFETY: the arena is the caller's, nobody has it entered, and leaving has folded its cursor.
            && let Some(bytes) = unsafe { arena.close_clean(arena.cursor.get(), 0) }
        {
            closed_clean(heap, arena, bytes, arena.allocs.get());
        } else {
            self.close_arena(arena);
        }
    }

    /// Leaves a scope and every scope inside it that is still entered.
    #[inline]
    pub(crate) fn leave(&self, entered: Entered) {
        if entered.serial != 0 {
            self.leave_slow(entered);
        }
    }

    #[inline(never)]
    fn leave_slow(&self, entered: Entered) {
        let Entered { index, serial } = entered;
        let depth = self.depth.get();
        let Some(frame) = self.frames.get(index).map(Cell::get) else { return };
        // Scopes that an outer one has ended already have nothing left to do.
        if index >= depth || frame.serial != serial {
            return;
        }
        if index + 1 < depth {
            return self.leave_down_to(index);
        }
        self.park();
        // SAFETY: records live for ever.
        if let Some(arena) = unsafe { frame.arena.as_ref() } {
            arena.leave();
        }
        self.depth.set(index);
        self.load_outer(index);
    }

    #[cold]
    pub(super) fn leave_down_to(&self, depth: usize) {
        self.park();
        for frame in &self.frames[depth..self.depth.get()] {
            // SAFETY: records live for ever.
            if let Some(arena) = unsafe { frame.get().arena.as_ref() } {
                arena.leave();
            }
        }
        self.depth.set(depth);
        self.load_outer(depth);
    }

    /// Takes up the scope that is the innermost when `depth` are left.
    #[inline]
    fn load_outer(&self, depth: usize) {
        let outer = depth.checked_sub(1).and_then(|outer| self.frames.get(outer));
        // SAFETY: records live for ever.
        self.load(outer.and_then(|frame| unsafe { frame.get().arena.as_ref() }));
    }

    /// Makes every scope of this thread that has `arena` entered one outside of any: its guard was forgotten.
    fn evict(&self, arena: &'static Arena) {
        self.park();
        for frame in &self.frames[..self.depth.get()] {
            if ptr::eq(frame.get().arena, arena) {
                frame.set(Frame { arena: ptr::null(), serial: 0 });
            }
        }
        // No guard ends these frames any more; those on top need not wait for an outer one.
        while self.depth.get() > 0 && self.frames[self.depth.get() - 1].get().serial == 0 {
            self.depth.set(self.depth.get() - 1);
        }
        arena.leave_all();
        let top = self.depth.get().checked_sub(1).map_or(ptr::null(), |top| self.frames[top].get().arena);
        // SAFETY: records live for ever.
        self.load(unsafe { top.as_ref() });
    }

    /// Whether this thread may enter an arena that is perhaps entered already: not if that is so in another thread,
    /// where a guard was forgotten.
    pub(crate) fn may_enter(&self, arena: &Arena) -> bool {
        !arena.is_entered() || arena.thread() == self.address()
    }

    /// Address of this record: what an arena knows its thread by.
    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// A record for a new arena of a kind, with a soft limit in bytes; `wiping` if freed blocks are to be overwritten, `in_crowds` if it may take
    /// chunks however many arenas are open.
    #[inline]
    pub(crate) fn new_arena(
        &self,
        kind: u8,
        limit: u64,
        wiping: bool,
        in_crowds: bool,
    ) -> Option<&'static Arena> {
        let heap = self.attach()?;
        // SAFETY: records live for ever; those in the list belong to this heap.
        let arena = match unsafe { heap.arenas.get().as_ref() } {
            Some(arena) => {
                heap.arenas.set(arena.next.get());
                heap.arena_count.set(heap.arena_count.get() - 1);
                arena
            }
            None => chunk::new_record()?,
        };
        arena.renew(kind, limit, wiping);
        self.prepare(arena, heap, wiping, in_crowds);
        heap.counters.arenas_opened.add(1);
        Some(arena)
    }

    /// Decides how an arena begins.
    #[inline]
    fn prepare(&self, arena: &'static Arena, heap: &Heap, wiping: bool, in_crowds: bool) {
        // Mostly nothing has escaped so far, nothing is traced and there is no crowd.
        if escape::may_record() || crowd::crowded() || heap.learned(arena.kind.get()).is_some() {
            self.prepare_slow(arena, heap, wiping, in_crowds);
        }
    }

    #[cold]
    #[inline(never)]
    fn prepare_slow(&self, arena: &'static Arena, heap: &Heap, wiping: bool, in_crowds: bool) {
        if !self.tracing.get()
            && let Some(recorder) = escape::recorder_for_next_arena(self)
        {
            arena.record(recorder);
            return;
        }
        // What is to be overwritten does not go to the slab, where that is not done.
        if !startup::pretenures() || wiping {
            return;
        }
        if crowd::crowded() && !in_crowds && !arena.has_room() {
            arena.divert(Diverted::ByCrowd);
            return;
        }
        let Some(tenure) = heap.learned(arena.kind.get()) else { return };
        let start = if chunk::pressure() < Pressure::Full {
            tenure.start()
        } else if let Some(start) = tenure.start_pressed() {
            start
        } else {
            arena.divert(Diverted::ByWaste);
            return;
        };
        match start {
            Start::Ordinary => {}
            Start::Tracked => arena.track(false),
            Start::Recheck => arena.track(true),
        }
    }

    /// Makes `arenas` unused records ready for `bytes_each` bytes. Returns how many it could.
    pub(crate) fn warm_up(&self, arenas: usize, bytes_each: usize) -> usize {
        let Some(heap) = self.attach() else { return 0 };
        // The records that this thread keeps would be used first: they are warmed too.
        let mut kept = heap.arenas.replace(ptr::null());
        heap.arena_count.set(0);
        // SAFETY: records live for ever; those in the list belonged to this heap.
        while let Some(arena) = unsafe { kept.as_ref() } {
            kept = arena.next.get();
            chunk::retire_record(arena);
        }
        let mut list: *const Arena = ptr::null();
        let mut warmed = 0;
        while warmed < arenas {
            let Some(arena) = chunk::new_record() else { break };
            arena.next.set(list);
            list = arena;
            let take = || heap.take_page().inspect(|_| crowd::taken(&heap.counters));
            if !arena.warm(bytes_each, take) {
                // SAFETY: the record is this call's, and was closed.
                let closed = unsafe { arena.close(arena.keep(), |page| heap.give_page(page)) };
                crowd::left(&heap.counters, closed.left);
                break;
            }
            warmed += 1;
        }
        // SAFETY: the list consists of records that this call took.
        while let Some(arena) = unsafe { list.as_ref() } {
            list = arena.next.get();
            chunk::retire_record(arena);
        }
        warmed
    }

    /// Ends what an arena holds; the record stays the caller's.
    ///
    /// `in_crowds` as for [`new_arena`](Self::new_arena).
    pub(crate) fn reset_arena(&self, arena: &'static Arena, in_crowds: bool) -> Closed {
        let retired = arena.retired_bytes.get();
        let closed = self.close(arena, arena.keep().max(1));
        arena.add_past(closed.bytes, retired.min(closed.bytes));
        if let Some(heap) = self.attached() {
            self.prepare(arena, heap, arena.is_wiping(), in_crowds);
        }
        closed
    }

    /// Ends an arena and takes its record back.
    pub(crate) fn close_arena(&self, arena: &'static Arena) -> Closed {
        if !self.may_enter(arena) {
            // Another thread still has it entered and will for ever: only a leak is safe.
            return Closed::default();
        }
        let heap = self.attached();
        let hot = heap.is_some_and(|heap| heap.arena_count.get() < CHUNKS_KEPT);
        let closed = self.close(arena, arena.keep().max(usize::from(hot)));
        match heap {
            Some(heap) => heap.counters.arenas_released.add(1),
            None => UNATTACHED.arenas_released.add_shared(1),
        }
        match heap {
            Some(heap) if heap.arena_count.get() < ARENAS_KEPT => keep_record(heap, arena),
            _ => chunk::retire_record(arena),
        }
        closed
    }

    fn close(&self, arena: &'static Arena, keep: usize) -> Closed {
        if arena.is_entered() {
            self.evict(arena);
        }
        let (bypassed, outside) = (arena.bypassed(), arena.outside.get());
        let allocs = arena.allocs.get() - arena.past_allocs.replace(arena.allocs.get());
        let (begin, inherited) = arena.began();
        // SAFETY: the caller holds the arena, nobody has it entered, and leaving has folded its cursor.
        let closed = unsafe { arena.close(keep, |page| self.give_page(page)) };
        if let Some(recorder) = arena.take_recorder() {
            escape::closed(recorder, self, closed.escaped, begin, inherited);
        }
        // What escapes while everything is tried inside again was to be expected.
        let trial = arena.tracker().is_some_and(Tracker::is_recheck);
        arena.end_tracking(|tracker| {
            if let Some(heap) = self.attached() {
                let pressure = chunk::pressure();
                let (pressed, full) = (pressure > Pressure::Low, pressure == Pressure::Full);
                if let Some(tenure) = heap.to_teach(arena.kind.get()) {
                    tenure.learn(tracker, closed.escaped > 0, pressed, full);
                }
            }
        });
        match self.attached() {
            Some(heap) => {
                if closed.escaped > 0
                    && !trial
                    && let Some(tenure) = heap.to_teach(arena.kind.get())
                {
                    tenure.note_escapes(chunk::pressure() == Pressure::Full);
                }
                heap.counters.arena_allocs.add(allocs);
                heap.counters.arena(closed, bypassed, outside, Counter::add);
                if closed.left > 0 {
                    crowd::left(&heap.counters, closed.left);
                }
                trace::arena_closed(heap.index, &heap.counters);
            }
            None => {
                UNATTACHED.arena(closed, bypassed, outside, Counter::add_shared);
                UNATTACHED.chunks_left.add_shared(closed.left);
            }
        }
        closed
    }

    /// Brings the record of the entered arena up to date, for statistics.
    pub(crate) fn sync_entered(&self) {
        // Outside of an arena its record is up to date.
        if let Some(arena) = self.entered_arena() {
            self.park();
            self.load(Some(arena));
        }
    }

    /// Steps outside of the arena, if one is entered, for a call to code that may allocate for itself and open scopes of its
    /// own, as the backing allocator may. To be ended by [`Thread::leave`].
    #[inline]
    pub(crate) fn suspend(&self) -> Entered {
        if self.arena.get() == NO_ARENA {
            return Entered { index: 0, serial: 0 };
        }
        self.suspend_slow()
    }

    #[cold]
    #[inline(never)]
    fn suspend_slow(&self) -> Entered {
        // There is a place: `enter` leaves one for this, and no second one is needed before another arena is entered.
        self.push_frame(None)
    }

    /// Steps outside of the arena, if one is entered, without a scope of its own. To be ended by [`Thread::step_in`].
    #[inline(never)]
    pub(crate) fn step_out(&self) {
        self.park();
        self.load(None);
        // Not as if there were none: the backing allocator must not find the way back in (`suspend`).
        self.arena.set(STEPPED_OUT);
    }

    /// Takes up the innermost scope, whatever it is by now.
    #[inline(never)]
    pub(crate) fn step_in(&self) {
        self.park();
        self.load_outer(self.depth.get());
    }

    #[inline]
    pub(crate) fn entered_arena(&self) -> Option<&'static Arena> {
        // SAFETY: the address is that of a record, which lives for ever.
        (self.arena.get() & !WATCHED != NO_ARENA)
            .then(|| unsafe { &*space::at(self.arena.get() & !WATCHED).cast::<Arena>() })
    }

    /// Whether a block of the entered arena's record was there before the arena began.
    #[inline]
    pub(super) fn is_inherited(&self, ptr: *const u8) -> bool {
        self.entered_arena().is_some_and(|arena| arena.is_inherited(ptr))
    }

    fn cursor(&self) -> Cursor {
        Cursor { bump: self.bump.get(), end: self.end.get(), chunk: self.chunk.get() }
    }

    #[inline]
    fn set_cursor(&self, arena: usize, cursor: Cursor, alloc_bins: *const Row) {
        self.arena.set(arena);
        self.bump.set(cursor.bump);
        self.end.set(cursor.end);
        self.chunk.set(cursor.chunk);
        self.allocs.set(0);
        self.frees.set(0);
        self.alloc_bins.set(alloc_bins);
    }

    /// The bins of the thread's heap for a term; empty ones if it has none.
    #[inline]
    fn row(&self, term: Term) -> &'static Row {
        // SAFETY: never null; heaps live for ever.
        unsafe { (*self.heap.get()).row(term) }
    }

    /// Writes the cursor back to the record of the entered arena, if there is one.
    #[inline]
    fn park(&self) {
        if let Some(arena) = self.entered_arena().filter(|_| !self.chunk.get().is_null()) {
            let cursor = self.cursor();
            let (allocs, frees) = (self.allocs.replace(0), self.frees.replace(0));
            // SAFETY: an entered arena is this thread's.
            unsafe { cursor.fold(allocs.wrapping_sub(frees)) };
            arena.allocs.set(arena.allocs.get() + u64::from(allocs));
            arena.cursor.set(cursor);
        }
    }

    /// Takes the cursor from an arena's record.
    #[inline]
    fn load(&self, arena: Option<&'static Arena>) {
        if let Some(arena) = arena {
            // SAFETY: never null; heaps live for ever.
            self.tenure.set(unsafe { (*self.heap.get()).tenure(arena.kind.get()) });
        }
        match arena {
            None => self.set_cursor(NO_ARENA, Cursor::NONE, self.row(Term::Long)),
            Some(arena) if arena.is_plain() => {
                self.set_cursor(arena.address(), arena.cursor.get(), no_bins());
            }
            Some(arena) => self.load_other(arena),
        }
    }

    /// [`Thread::load`] for an arena that is diverted, watched or limited, perhaps.
    #[cold]
    fn load_other(&self, arena: &'static Arena) {
        if arena.is_diverted() {
            // A limit counts what goes to the slab, too.
            let unlimited = arena.limit.get() == u64::MAX || arena.over_limit();
            let bins = if unlimited { self.row(self.tenure().term()) } else { no_bins() };
            // What it holds already is freed the watched way, if it is watched.
            let watched = if arena.is_watched() { WATCHED } else { 0 };
            self.set_cursor(arena.address() | watched, Cursor::NONE, bins);
        } else if arena.is_watched() {
            self.set_cursor(arena.address() | WATCHED, Cursor::NONE, no_bins());
        } else {
            let cursor = arena.within_limit(arena.cursor.get());
            self.set_cursor(arena.address(), cursor, no_bins());
        }
    }

    /// Has the fast path allocate for `term`, as the slow path does, if it leaves small blocks of the entered arena to the slab. What is known of
    /// the arena's kind may have changed since it was entered.
    pub(super) fn divert_to(&self, term: Term) {
        if !ptr::eq(self.alloc_bins.get(), no_bins()) {
            self.alloc_bins.set(self.row(term));
        }
    }

    /// Whether the fast path allocates from the bins for `term`.
    #[inline]
    pub(super) fn allocates_for(&self, term: Term) -> bool {
        ptr::eq(self.alloc_bins.get(), self.row(term))
    }

    /// Makes room in the entered arena: in its newest chunk, if that holds nothing any more, or in another. Returns whether there is
    /// room; if not the arena may be diverted now.
    pub(super) fn refill(&self) -> bool {
        let (Some(arena), Some(heap)) = (self.entered_arena(), self.attach()) else { return false };
        self.park();
        let chunks = arena.chunks.get();
        let room = if arena.over_limit() || arena.ends_at_limit() {
            arena.divert(Diverted::ByLimit);
            false
        } else if chunks >= GARBAGE_CHUNKS
            && chunks.is_power_of_two()
            && !arena.is_wiping()
            && arena.is_mostly_garbage()
        {
            arena.divert(Diverted::ByWaste);
            false
        } else if arena.restart_chunk() {
            true
        } else if let Some(page) =
            arena.take_reserved().or_else(|| heap.take_page().inspect(|_| crowd::taken(&heap.counters)))
        {
            let newest = arena.cursor.get().chunk;
            arena.cursor.set(arena.add_chunk(page, newest));
            true
        } else {
            false
        };
        self.load(Some(arena));
        room
    }
}

/// Counts an arena that [`Arena::close_clean`] has closed, and keeps its record.
#[inline]
fn closed_clean(heap: &Heap, arena: &'static Arena, bytes: u64, allocs: u64) {
    heap.counters.arenas_closed.add(1);
    heap.counters.arena_bytes.add(bytes);
    heap.counters.arena_allocs.add(allocs);
    heap.counters.arenas_released.add(1);
    trace::arena_closed(heap.index, &heap.counters);
    keep_record(heap, arena);
}

/// Keeps the record of a closed arena for the next one of the thread. Now and then a look at the clock, too.
#[inline]
fn keep_record(heap: &Heap, arena: &'static Arena) {
    if heap.counters.arenas_closed.get().is_multiple_of(CLOSED_PER_LOOK) || scavenge::has_left() {
        look_at_clock(heap);
    }
    arena.next.set(heap.arenas.get());
    heap.arenas.set(arena);
    heap.arena_count.set(heap.arena_count.get() + 1);
}

#[cold]
#[inline(never)]
fn look_at_clock(heap: &Heap) {
    current().by_the_way(Some(heap));
}

/// Arenas closed between two looks at the clock.
const CLOSED_PER_LOOK: u64 = 32;

/// From this many chunks on an arena is asked whether it holds mostly garbage: 1 MiB.
const GARBAGE_CHUNKS: usize = 16;
