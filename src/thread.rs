//! The thread record: the only thread-local state, and the fast paths over it.
//!
//! The record is `const`-initialised and has no destructor, so reaching it is address arithmetic at any time, teardown
//! included. A second thread-local with a destructor is registered when the thread gets a heap or has blocks of others
//! to send; when it runs, the heap is abandoned and the record says so.

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr;

use crate::chunk::{self, Arena, Cursor};
use crate::config::Mode;
use crate::header::{Kind, PageHeader};
use crate::heap::{self, EMPTY_HEAP, Heap};
use crate::outbox::{self, Outbox};
use crate::size_class::{self, SMALL_MAX};
use crate::space::PAGE_SIZE;
use crate::stats::{Closed, Counter, UNATTACHED};
use crate::sync::Ordering;
use crate::{invariant, large, mid, page, space, startup, trace};

/// Scopes that can be nested in one thread. Deeper ones have no effect.
pub(crate) const DEPTH_MAX: usize = 32;

/// Stands for "no arena entered": the owner of no page.
const NO_ARENA: usize = 1;

/// A growing arena block above this size in bytes moves out of the arena: the copies that growth leaves behind would
/// spread the request over more cache lines than they save.
const GROW_IN_ARENA_MAX: usize = 1 << 10;

/// A request above this size in bytes that does not fit the rest of the current chunk goes to the slab instead of
/// wasting that rest.
const NEW_CHUNK_MAX: usize = 2 << 10;

/// Blocks of an arena begin and end at multiples of this many bytes.
const GRANULE: usize = 8;

/// `size` rounded up to granules.
#[inline]
const fn granules(size: usize) -> usize {
    size.wrapping_add(GRANULE - 1) & !(GRANULE - 1)
}

/// Arena records a heap keeps for its thread, and how many of them may keep a chunk.
const ARENAS_KEPT: usize = 64;
const CHUNKS_KEPT: usize = 4;

/// What one thread owns. No other thread ever touches it.
pub(crate) struct Thread {
    /// The heap that the fast path allocates from: [`EMPTY_HEAP`] before there is one, after it was given up, and while an
    /// arena is entered, so that what does not fit the chunk comes to the slow path.
    alloc_heap: Cell<*const Heap>,
    /// The thread's heap; frees of its blocks are local. [`EMPTY_HEAP`] owns nothing.
    heap: Cell<*const Heap>,
    /// Address of the arena record that is entered, or [`NO_ARENA`].
    arena: Cell<usize>,
    /// The arena's cursor, see [`Cursor`]; fits nothing while no arena is entered.
    bump: Cell<usize>,
    end: Cell<*mut u8>,
    /// Blocks bumped in the current chunk since the cursor was loaded, less those freed in it, wrapping. Frees in earlier
    /// chunks are counted in their headers.
    live: Cell<u32>,
    chunk: Cell<*const PageHeader>,
    phase: Cell<Phase>,
    /// Scopes, innermost last.
    depth: Cell<usize>,
    serial: Cell<u64>,
    frames: [Cell<Frame>; DEPTH_MAX + 1],
    outbox: Outbox,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing registered yet.
    New,
    /// The destructor is registered and will run.
    Attached,
    /// The destructor has run.
    Ended,
}

/// One scope: the arena it entered (null: outside any), and which guard may end it.
#[derive(Clone, Copy)]
struct Frame {
    arena: *const Arena,
    serial: u64,
}

/// Proof of an entered scope; see [`Thread::leave`]. Serial 0 is a scope without effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered {
    index: usize,
    serial: u64,
}

thread_local! {
    static THREAD: Thread = const { Thread::new() };
    static CLEANUP: Cleanup = const { Cleanup };
}

struct Cleanup;

impl Drop for Cleanup {
    fn drop(&mut self) {
        current().end();
    }
}

/// The record of this thread.
#[inline]
pub(crate) fn current() -> &'static Thread {
    // SAFETY: the record is const-initialised and has no destructor, so it exists as long as the thread does, and the
    // reference cannot leave the thread: `Thread` is neither `Send` nor `Sync`.
    unsafe { &*THREAD.with(ptr::from_ref) }
}

static_assertions::assert_not_impl_any!(Thread: Send, Sync);

impl Thread {
    const fn new() -> Thread {
        Thread {
            alloc_heap: Cell::new(&raw const EMPTY_HEAP),
            heap: Cell::new(&raw const EMPTY_HEAP),
            arena: Cell::new(NO_ARENA),
            bump: Cell::new(0),
            end: Cell::new(ptr::null_mut()),
            live: Cell::new(0),
            chunk: Cell::new(ptr::null()),
            phase: Cell::new(Phase::New),
            depth: Cell::new(0),
            serial: Cell::new(0),
            frames: [const { Cell::new(Frame { arena: ptr::null(), serial: 0 }) }; DEPTH_MAX + 1],
            outbox: Outbox::new(),
        }
    }

    // ---- allocation ---------------------------------------------------------------------------------------------

    /// Allocates a small block, or null if that takes more than a few instructions.
    #[inline]
    pub(crate) fn alloc(&self, size: usize, align: usize) -> *mut u8 {
        if self.bump.get() != 0 {
            // What is too big for a size class does not go to the arena either, even if it fits the chunk.
            return if size <= SMALL_MAX { self.bump(size, align) } else { ptr::null_mut() };
        }
        match startup::route(size_class::extent(size, align)) {
            // SAFETY: the heap is the thread's own or the empty one.
            Some(class) => unsafe { (*self.alloc_heap.get()).alloc(class) },
            None => ptr::null_mut(),
        }
    }

    /// Allocates from the arena's current chunk, or null.
    #[inline]
    fn bump(&self, size: usize, align: usize) -> *mut u8 {
        // The cursor is a multiple of the granule. Nothing but one addition stands between loading and storing it, because
        // the next allocation waits for that.
        if align > GRANULE { self.bump_aligned(size, align) } else { self.bump_from(self.bump.get(), size) }
    }

    /// [`Thread::bump`] for an alignment above the granule.
    #[cold]
    #[inline(never)]
    fn bump_aligned(&self, size: usize, align: usize) -> *mut u8 {
        self.bump_from((self.bump.get() + (align - 1)) & !(align - 1), size)
    }

    /// Hands out `size` bytes at `start`, which is at or behind the cursor, if they fit the chunk.
    // No sum overflows: the cursor is an address in the reservation or 0, and a layout's size and alignment are at most
    // half the address space.
    #[inline]
    fn bump_from(&self, start: usize, size: usize) -> *mut u8 {
        let new = start + granules(size);
        let end = self.end.get();
        if new > end.addr() {
            return ptr::null_mut();
        }
        self.bump.set(new);
        self.live.set(self.live.get().wrapping_add(1));
        end.with_addr(start)
    }

    /// Allocates any block from the reservation; null if the backing allocator has to serve it. Says whether the memory
    /// is known to be zero. There must be a reservation.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_slow(&self, layout: Layout) -> (*mut u8, bool) {
        if startup::mode() == Mode::Standard {
            return (ptr::null_mut(), false);
        }
        let (size, align) = (layout.size(), layout.align());
        let extent = size_class::extent(size, align);
        if extent >= SMALL_MAX {
            return self.alloc_big(layout);
        }
        if self.arena.get() != NO_ARENA {
            let block = self.bump(size, align);
            if !block.is_null() {
                return (block, false);
            }
            if (self.chunk.get().is_null() || size <= NEW_CHUNK_MAX) && self.refill() {
                let block = self.bump(size, align);
                if !block.is_null() {
                    return (block, false);
                }
            }
        }
        (self.alloc_small_outside(extent), false)
    }

    /// Allocates a block outside the arena that is entered, if any. As [`Thread::alloc_slow`] otherwise.
    pub(crate) fn alloc_outside(&self, layout: Layout) -> *mut u8 {
        if startup::mode() == Mode::Standard {
            return ptr::null_mut();
        }
        let extent = size_class::extent(layout.size(), layout.align());
        if extent >= SMALL_MAX { self.alloc_big(layout).0 } else { self.alloc_small_outside(extent) }
    }

    fn alloc_small_outside(&self, extent: usize) -> *mut u8 {
        let class = startup::class_of(extent);
        if let Some(heap) = self.attach() {
            // SAFETY: the heap is this thread's.
            unsafe {
                let block = heap.alloc(class);
                return if block.is_null() { heap.alloc_slow(class) } else { block };
            }
        }
        // A thread without a heap of its own borrows one for this call.
        let Some(heap) = heap::adopt() else { return ptr::null_mut() };
        // SAFETY: the heap is this thread's until it is abandoned.
        unsafe {
            let block = heap.alloc_slow(class);
            heap.release_unused();
            heap.abandon();
            block
        }
    }

    fn alloc_big(&self, layout: Layout) -> (*mut u8, bool) {
        let (size, align) = (layout.size(), layout.align());
        let allocated = if size > SMALL_MAX && size <= mid::MID_MAX && align <= mid::MID_ALIGN_MAX {
            // SAFETY: `heap` is never null.
            (mid::alloc(layout, unsafe { (*self.heap.get()).index }), false)
        } else if size != 0 {
            large::alloc(layout)
        } else {
            (ptr::null_mut(), false)
        };
        if let Some(arena) = self.entered_arena().filter(|_| !allocated.0.is_null()) {
            let (blocks, bytes) = arena.bypassed.get();
            arena.bypassed.set((blocks + 1, bytes + size as u64));
        }
        allocated
    }

    // ---- free ---------------------------------------------------------------------------------------------------

    /// Frees a block if it is in the chunk that the thread bumps through. Returns whether it was.
    ///
    /// # Safety
    ///
    /// As [`Thread::dealloc`].
    #[inline]
    pub(crate) unsafe fn dealloc_in_chunk(&self, ptr: *mut u8, layout: Layout) -> bool {
        let bump = self.bump.get();
        // Chunks are aligned to their size and `bump` never reaches the end of its chunk. Without a chunk it is 0, and
        // nothing that was allocated is that close to address 0.
        if ptr.addr() ^ bump >= PAGE_SIZE {
            return false;
        }
        self.live.set(self.live.get().wrapping_sub(1));
        // If the block is the top one its memory is free again. No branch: it would be mispredicted.
        let top = ptr.addr().wrapping_add(granules(layout.size())) == bump;
        self.bump.set(if top { ptr.addr() } else { bump });
        true
    }

    /// Frees a block that begins in the page of `header` and is not in the chunk that the thread bumps through. `ptr` is the
    /// program's pointer, `block` the same address with the reservation's provenance.
    ///
    /// # Safety
    ///
    /// The block must be handed out and not used any more. `layout` should be the one it was allocated with; a wrong one
    /// does no harm.
    #[inline]
    pub(crate) unsafe fn dealloc(
        &self,
        header: &'static PageHeader,
        ptr: *mut u8,
        block: *mut u8,
        layout: Layout,
    ) {
        let owner = header.owner.load(Ordering::Relaxed);
        if owner == self.heap.get().addr() {
            if cfg!(debug_assertions) {
                check_layout(header, ptr, layout);
            }
            // SAFETY: the heap that owns the page is this thread's.
            if unsafe { page::push(header, page::link_pointer(ptr, block, layout.size()), block) } == 0 {
                // SAFETY: as above.
                unsafe { (*self.heap.get()).freed(header) };
            }
        } else if owner == self.arena.get() {
            // An earlier chunk of the arena that is entered.
            header.set_used(header.used().wrapping_sub(1));
        } else {
            // SAFETY: passed on.
            unsafe { dealloc_slow(ptr, layout, header) };
        }
    }

    /// Takes an empty page that has no owner any more.
    fn give_page(&self, page: &'static PageHeader) {
        match self.attached() {
            Some(heap) => heap.give_page(page),
            None => {
                page.next.set(ptr::null());
                space::free_spares(page);
            }
        }
    }

    // ---- reallocation -------------------------------------------------------------------------------------------

    /// Changes the size of a block without the help of another block. Null means that it must move; then nothing changed.
    ///
    /// # Safety
    ///
    /// As [`GlobalAlloc::realloc`](core::alloc::GlobalAlloc::realloc), for a block that begins in the page of `header`.
    #[inline]
    pub(crate) unsafe fn resize(
        &self,
        header: &'static PageHeader,
        ptr: *mut u8,
        layout: Layout,
        new_size: usize,
    ) -> *mut u8 {
        if header.owner.load(Ordering::Relaxed) == self.arena.get() {
            let top = ptr.addr().wrapping_add(granules(layout.size())) == self.bump.get();
            let end = ptr.addr().wrapping_add(granules(new_size));
            if top && new_size <= SMALL_MAX && end <= self.end.get().addr() {
                self.bump.set(end);
                return ptr;
            }
            return if new_size <= layout.size() { ptr } else { ptr::null_mut() };
        }
        // SAFETY: passed on.
        unsafe { resize_elsewhere(header, ptr, layout, new_size) }
    }

    /// Where a block that must move goes: a block of the entered arena may stay in it while it is small, any other block
    /// stays out of it. Null if the backing allocator has to serve it.
    pub(crate) fn alloc_for_move(&self, header: &PageHeader, layout: Layout) -> *mut u8 {
        let in_arena = header.owner.load(Ordering::Relaxed) == self.arena.get();
        if in_arena && layout.size() <= GROW_IN_ARENA_MAX {
            let block = self.bump(layout.size(), layout.align());
            return if block.is_null() { self.alloc_slow(layout).0 } else { block };
        }
        self.alloc_outside(layout)
    }

    // ---- arenas -------------------------------------------------------------------------------------------------

    /// Enters an arena, or with `None` steps outside of any.
    pub(crate) fn enter(&self, arena: Option<&'static Arena>) -> Entered {
        // Without the destructor registered an arena could stay entered when the thread ends.
        if self.depth.get() >= DEPTH_MAX || self.attach().is_none() {
            return Entered { index: 0, serial: 0 };
        }
        self.push_frame(arena)
    }

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

    /// Leaves a scope and every scope inside it that is still entered.
    pub(crate) fn leave(&self, entered: Entered) {
        let Entered { index, serial } = entered;
        // Scopes that an outer one has ended already have nothing left to do.
        if serial == 0 || index >= self.depth.get() || self.frames[index].get().serial != serial {
            return;
        }
        self.leave_down_to(index);
    }

    fn leave_down_to(&self, depth: usize) {
        self.park();
        for frame in &self.frames[depth..self.depth.get()] {
            // SAFETY: records live for ever.
            if let Some(arena) = unsafe { frame.get().arena.as_ref() } {
                arena.leave();
            }
        }
        self.depth.set(depth);
        let outer = depth.checked_sub(1).map_or(ptr::null(), |outer| self.frames[outer].get().arena);
        // SAFETY: records live for ever.
        self.load(unsafe { outer.as_ref() });
    }

    /// Makes every scope of this thread that has `arena` entered one outside of any: its guard was forgotten.
    fn evict(&self, arena: &'static Arena) {
        self.park();
        for frame in &self.frames[..self.depth.get()] {
            if ptr::eq(frame.get().arena, arena) {
                frame.set(Frame { arena: ptr::null(), serial: frame.get().serial });
            }
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

    /// A record for a new arena.
    pub(crate) fn new_arena(&self) -> Option<&'static Arena> {
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
        heap.counters.arenas_opened.add(1);
        Some(arena)
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
            if !arena.warm(bytes_each, || heap.take_page()) {
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
    pub(crate) fn reset_arena(&self, arena: &'static Arena) -> Closed {
        self.close(arena, arena.keep().max(1))
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
            Some(heap) if heap.arena_count.get() < ARENAS_KEPT => {
                arena.next.set(heap.arenas.get());
                heap.arenas.set(arena);
                heap.arena_count.set(heap.arena_count.get() + 1);
            }
            _ => chunk::retire_record(arena),
        }
        closed
    }

    fn close(&self, arena: &'static Arena, keep: usize) -> Closed {
        if arena.is_entered() {
            self.evict(arena);
        }
        let bypassed = arena.bypassed.get();
        // SAFETY: the caller holds the arena, nobody has it entered, and leaving has folded its cursor.
        let closed = unsafe { arena.close(keep, |page| self.give_page(page)) };
        match self.attached() {
            Some(heap) => {
                heap.counters.arena(closed, bypassed, Counter::add);
                trace::arena_closed(heap.index, &heap.counters);
            }
            None => UNATTACHED.arena(closed, bypassed, Counter::add_shared),
        }
        closed
    }

    /// Brings the record of the entered arena up to date, for statistics.
    pub(crate) fn sync_entered(&self) {
        let top = self.entered_arena();
        self.park();
        self.load(top);
    }

    /// Steps outside of the arena, if one is entered, for a call to code that may allocate for itself and open scopes of its
    /// own, as the backing allocator may. To be ended by [`Thread::leave`].
    #[inline]
    pub(crate) fn suspend(&self) -> Entered {
        if self.arena.get() == NO_ARENA {
            return Entered { index: 0, serial: 0 };
        }
        // There is a place: `enter` leaves one for this, and no second one is needed before another arena is entered.
        self.push_frame(None)
    }

    fn entered_arena(&self) -> Option<&'static Arena> {
        // SAFETY: the address is that of a record, which lives for ever.
        (self.arena.get() != NO_ARENA).then(|| unsafe { &*space::at(self.arena.get()).cast::<Arena>() })
    }

    fn cursor(&self) -> Cursor {
        Cursor { bump: self.bump.get(), end: self.end.get(), chunk: self.chunk.get() }
    }

    #[inline]
    fn set_cursor(&self, arena: usize, cursor: Cursor, alloc_heap: *const Heap) {
        self.arena.set(arena);
        self.bump.set(cursor.bump);
        self.end.set(cursor.end);
        self.chunk.set(cursor.chunk);
        self.live.set(0);
        self.alloc_heap.set(alloc_heap);
    }

    /// Writes the cursor back to the record of the entered arena, if there is one.
    fn park(&self) {
        if let Some(arena) = self.entered_arena() {
            let cursor = self.cursor();
            // SAFETY: an entered arena is this thread's.
            unsafe { cursor.fold(self.live.replace(0)) };
            arena.cursor.set(cursor);
        }
    }

    /// Takes the cursor from an arena's record.
    fn load(&self, arena: Option<&'static Arena>) {
        match arena {
            Some(arena) => self.set_cursor(arena.address(), arena.cursor.get(), &raw const EMPTY_HEAP),
            None => self.set_cursor(NO_ARENA, Cursor::NONE, self.heap.get()),
        }
    }

    /// Gives the entered arena a new chunk. Returns whether there was one.
    fn refill(&self) -> bool {
        let (Some(arena), Some(heap)) = (self.entered_arena(), self.attach()) else { return false };
        let Some(page) = arena.take_reserved().or_else(|| heap.take_page()) else { return false };
        self.park();
        let cursor = arena.add_chunk(page, self.chunk.get());
        arena.cursor.set(cursor);
        self.load(Some(arena));
        true
    }

    // ---- beginning and end --------------------------------------------------------------------------------------

    /// The thread's heap, if it has one.
    #[inline]
    pub(crate) fn attached(&self) -> Option<&'static Heap> {
        // SAFETY: never null; heaps live for ever.
        let heap = unsafe { &*self.heap.get() };
        (!heap.is_empty_heap()).then_some(heap)
    }

    /// The thread's heap; gets one if there is none yet. `None` after the thread's end, or when there is no memory.
    #[inline]
    pub(crate) fn attach(&self) -> Option<&'static Heap> {
        self.attached().or_else(|| self.attach_slow())
    }

    #[cold]
    fn attach_slow(&self) -> Option<&'static Heap> {
        if !startup::has_reservation() || !self.register() {
            return None;
        }
        let heap = heap::adopt()?;
        self.heap.set(heap);
        if self.arena.get() == NO_ARENA {
            self.alloc_heap.set(heap);
        }
        Some(heap)
    }

    /// Registers the destructor. Returns false once it has run, or if it never will.
    #[inline]
    fn register(&self) -> bool {
        match self.phase.get() {
            Phase::Attached => true,
            Phase::Ended => false,
            Phase::New => {
                let registered = CLEANUP.try_with(|_| ()).is_ok();
                self.phase.set(if registered { Phase::Attached } else { Phase::Ended });
                registered
            }
        }
    }

    /// The thread ends: nothing of the record is used from here on but by frees and borrowed heaps.
    fn end(&self) {
        self.leave_down_to(0);
        self.phase.set(Phase::Ended);
        self.outbox.flush();
        let Some(heap) = self.attached() else { return };
        self.alloc_heap.set(&raw const EMPTY_HEAP);
        self.heap.set(&raw const EMPTY_HEAP);
        let mut list = heap.arenas.replace(ptr::null());
        heap.arena_count.set(0);
        // SAFETY: records live for ever; those in the list belong to this heap, which is still the thread's, and nobody
        // has them entered.
        unsafe {
            while let Some(arena) = list.as_ref() {
                list = arena.next.get();
                arena.close(arena.keep(), |page| heap.give_page(page));
                chunk::retire_record(arena);
            }
            heap.release_unused();
        }
        heap.abandon();
    }

    /// Hands over what the thread keeps for later: to other heaps, and to the space.
    pub(crate) fn release_kept(&self) {
        self.outbox.flush();
        if let Some(heap) = self.attached() {
            // SAFETY: the heap is this thread's.
            unsafe { heap.release_unused() };
        }
    }
}

/// # Safety
///
/// As [`Thread::dealloc`]. The order of the parameters keeps those of `dealloc` in their registers.
#[cold]
#[inline(never)]
unsafe fn dealloc_slow(ptr: *mut u8, layout: Layout, header: &'static PageHeader) {
    let thread = current();
    match header.kind() {
        Kind::Slab => {
            if cfg!(debug_assertions) {
                check_layout(header, ptr, layout);
            }
            let block = space::at(ptr.addr());
            let link = page::link_pointer(ptr, block, layout.size());
            // SAFETY: passed on; the heap that owns the page is this thread's in the first case.
            unsafe {
                if header.owner.load(Ordering::Relaxed) == thread.heap.get().addr() | PageHeader::FULL {
                    page::push(header, link, block);
                    (*thread.heap.get()).freed(header);
                } else if thread.register() {
                    thread.outbox.add(header, link, block);
                } else {
                    outbox::send(header, block.cast(), link, 1);
                }
            }
        }
        Kind::Chunk => {
            if header.remote.live.free_remote() {
                // The arena is closed and this was the last block.
                thread.give_page(header);
            }
        }
        // SAFETY: passed on.
        Kind::Mid => unsafe { mid::dealloc(header, ptr) },
        Kind::Large => large::dealloc(header),
        Kind::Free | Kind::Spare | Kind::Meta => {
            invariant::fatal("free of a block that does not exist, or twice")
        }
    }
}

/// [`Thread::resize`] for a block that is not of the entered arena.
///
/// # Safety
///
/// As there.
unsafe fn resize_elsewhere(
    header: &'static PageHeader,
    ptr: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    match header.kind() {
        Kind::Slab => {
            let block = header.block_size.load(Ordering::Relaxed) as usize;
            // A block that would be less than half used goes to a smaller one.
            let fits = new_size <= block && (new_size > block / 2 || new_size >= layout.size());
            if fits { ptr } else { ptr::null_mut() }
        }
        Kind::Chunk if new_size <= layout.size() => ptr,
        Kind::Mid if new_size > SMALL_MAX && new_size <= mid::MID_MAX => {
            // SAFETY: passed on.
            if unsafe { mid::resize(header, ptr, new_size) } { ptr } else { ptr::null_mut() }
        }
        Kind::Large if new_size > mid::MID_MAX || layout.align() > mid::MID_ALIGN_MAX => {
            // SAFETY: passed on.
            unsafe { large::resize(header, layout, new_size) }
        }
        _ => ptr::null_mut(),
    }
}

/// Reports, in debug builds, a free whose layout does not fit the block.
#[cold]
fn report_mismatch(header: &PageHeader, ptr: *const u8, layout: Layout) {
    use invariant::{Decimal, say};
    if !page::is_block(header, ptr) {
        invariant::fatal("free of an address that is not the start of a block");
    }
    let Some(heap) = current().attached() else { return };
    heap.counters.mismatches.add(1);
    // A program that does this does it often.
    if heap.counters.mismatches.get() <= 10 {
        say(&[
            b"shockwave: a block of ",
            Decimal::new(u64::from(header.block_size.load(Ordering::Relaxed))).as_bytes(),
            b" B was freed with a layout of ",
            Decimal::new(layout.size() as u64).as_bytes(),
            b" B aligned to ",
            Decimal::new(layout.align() as u64).as_bytes(),
            b" B: the program (or a library it uses) calls dealloc with a wrong layout\n",
        ]);
    }
}

fn check_layout(header: &PageHeader, ptr: *const u8, layout: Layout) {
    let extent = size_class::extent(layout.size(), layout.align());
    let class = usize::from(header.class.load(Ordering::Relaxed));
    // A block may have been shrunk in place to half its size, not further.
    let block = size_class::size_of_class(class);
    let fits = extent < SMALL_MAX && startup::class_of(extent) <= class && layout.size() > 0;
    if !fits || (block > 8 && (extent + 1) * 2 < block) || !page::is_block(header, ptr) {
        report_mismatch(header, ptr, layout);
    }
}
