//! The thread record: the only thread-local state, and the fast paths over it.
//!
//! The record is `const`-initialised and has no destructor, so reaching it is address arithmetic at any time, teardown
//! included. A second thread-local with a destructor is registered when the thread gets a heap or has blocks of others
//! to send; when it runs, the heap is abandoned and the record says so.

mod elsewhere;
mod layout_check;
mod scopes;
mod slow;

pub(crate) use self::scopes::Opened;

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr;

use self::elsewhere::{dealloc_slow, fits_block, overflow, resize_elsewhere};
use self::layout_check::check_layout;
use crate::bins::Row;
use crate::chunk::{self, Arena};
use crate::header::PageHeader;
use crate::heap::{self, EMPTY_HEAP, Heap, UNLEARNED};
use crate::outbox::Outbox;
use crate::size_class::{self, SMALL_MAX};
use crate::space::PAGE_SIZE;
use crate::sync::Ordering;
use crate::tenure::{GRANULE, STEP_MAX, Tenure, Term};
use crate::{crowd, page, scavenge, space, startup};

/// Scopes that can be nested in one thread. Deeper ones have no effect.
pub(crate) const DEPTH_MAX: usize = 32;

/// Stands for "no arena entered": the owner of no page.
const NO_ARENA: usize = 1;

/// Stands for "stepped outside of the arena that is entered": the owner of no page either.
const STEPPED_OUT: usize = NO_ARENA | WATCHED;

/// Added to the address of an entered arena whose every allocation and free takes the slow path, so that it is the owner of no
/// page either.
const WATCHED: usize = 2;

/// Bins of a thread that has no heap: empty.
#[inline]
const fn no_bins() -> *const Row {
    ptr::from_ref(EMPTY_HEAP.row(Term::Long))
}

/// A growing arena block above this size in bytes moves out of the arena: the copies that growth leaves behind would
/// spread the request over more cache lines than they save.
const GROW_IN_ARENA_MAX: usize = 1 << 10;

/// A request above this size in bytes that does not fit the rest of the current chunk goes to the slab instead of
/// wasting that rest.
const NEW_CHUNK_MAX: usize = 2 << 10;

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
    /// The bins that the fast path allocates from: those of [`EMPTY_HEAP`] before there is a heap, after it was given up, and while an
    /// arena is entered, so that what does not fit the chunk comes to the slow path; if that is diverted those of its [`Term`], unless its limit
    /// is not reached.
    alloc_bins: Cell<*const Row>,
    /// What the thread's heap knows of arenas of the kind that was entered last.
    tenure: Cell<*const Tenure>,
    /// The thread's heap; frees of its blocks are local. [`EMPTY_HEAP`] owns nothing.
    heap: Cell<*const Heap>,
    /// Address of the arena record that is entered, perhaps with [`WATCHED`], or [`NO_ARENA`] or [`STEPPED_OUT`].
    arena: Cell<usize>,
    /// The arena's cursor, see [`Cursor`]; fits nothing while no arena is entered, or one that is watched or diverted: then the
    /// cursor stays in the record.
    bump: Cell<usize>,
    end: Cell<*mut u8>,
    /// Blocks bumped in the current chunk, and freed in it, since the cursor was loaded, wrapping. Frees in earlier chunks
    /// are counted in their headers.
    allocs: Cell<u32>,
    frees: Cell<u32>,
    chunk: Cell<*const PageHeader>,
    phase: Cell<Phase>,
    /// Scopes, innermost last.
    depth: Cell<usize>,
    serial: Cell<u64>,
    frames: [Cell<Frame>; DEPTH_MAX + 1],
    outbox: Outbox,
    /// Whether it is at work for the call stacks of escapes; arenas that are opened meanwhile are not traced.
    pub(crate) tracing: Cell<bool>,
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
            alloc_bins: Cell::new(no_bins()),
            tenure: Cell::new(&raw const UNLEARNED.0),
            heap: Cell::new(&raw const EMPTY_HEAP),
            arena: Cell::new(NO_ARENA),
            bump: Cell::new(0),
            end: Cell::new(ptr::null_mut()),
            allocs: Cell::new(0),
            frees: Cell::new(0),
            chunk: Cell::new(ptr::null()),
            phase: Cell::new(Phase::New),
            depth: Cell::new(0),
            serial: Cell::new(0),
            frames: [const { Cell::new(Frame { arena: ptr::null(), serial: 0 }) }; DEPTH_MAX + 1],
            outbox: Outbox::new(),
            tracing: Cell::new(false),
        }
    }

    // ---- allocation ---------------------------------------------------------------------------------------------

    /// Allocates a small block; `None` if that takes more than a few instructions.
    #[inline]
    pub(crate) fn alloc(&self, size: usize, align: usize) -> Option<*mut u8> {
        let bump = self.bump.get();
        if bump != 0 {
            if size > STEP_MAX || align > GRANULE {
                return None;
            }
            // The cursor is a multiple of the granule. Nothing but one addition stands between loading and storing it, because
            // the next allocation waits for that. The step is too much for any chunk if the size belongs outside.
            return self.bump_by(bump, self.tenure().step(size));
        }
        let class = startup::route(size_class::extent(size, align))?;
        // SAFETY: the bins are those of the thread's own heap or of the empty one.
        let block = unsafe { (*self.alloc_bins.get()).pop(class) };
        (!block.is_null()).then_some(block)
    }

    /// What the thread's heap knows about sizes in arenas of the kind that is entered.
    #[inline]
    fn tenure(&self) -> &'static Tenure {
        // SAFETY: never null, never freed.
        unsafe { &*self.tenure.get() }
    }

    /// Allocates any small block from the arena's current chunk, or null.
    pub(crate) fn bump(&self, size: usize, align: usize) -> *mut u8 {
        let bump = self.bump.get();
        // What is too big for a size class does not go to the arena either, even if it fits the chunk.
        if bump == 0 || size > SMALL_MAX || self.tenure().is_outside(size) {
            return ptr::null_mut();
        }
        let align = align.max(GRANULE);
        self.bump_by((bump + (align - 1)) & !(align - 1), granules(size)).unwrap_or(ptr::null_mut())
    }

    /// Hands out `step` bytes at `start`, which is at or behind the cursor, if they fit the chunk.
    // No sum overflows: the cursor is an address in the reservation or 0, and a layout's size and alignment are at most
    // half the address space.
    #[inline]
    fn bump_by(&self, start: usize, step: usize) -> Option<*mut u8> {
        let new = start + step;
        let end = self.end.get();
        if new > end.addr() {
            return None;
        }
        self.bump.set(new);
        self.allocs.set(self.allocs.get().wrapping_add(1));
        Some(end.with_addr(start))
    }

    /// What counts for the limit of the entered arena has changed, and with it where the room ends.
    fn limit_moved(&self, arena: &Arena) {
        if arena.limit.get() != u64::MAX {
            self.sync_entered();
        }
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
        self.frees.set(self.frees.get().wrapping_add(1));
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
            let link = page::link_pointer(ptr, block, layout.size());
            // SAFETY: the heap that owns the page is this thread's.
            unsafe {
                if (*self.heap.get()).free(header, link, block) {
                    overflow(&*self.heap.get(), header);
                }
            }
        } else if owner == self.arena.get() {
            // An earlier chunk of the arena that is entered.
            let used = header.used().wrapping_sub(1);
            header.set_used(used);
            if used == 0 {
                self.chunk_emptied(header);
            }
        } else {
            // SAFETY: passed on.
            unsafe { dealloc_slow(ptr, layout, header) };
        }
    }

    /// An earlier chunk of the entered arena, whose header counts exactly, has no live block any more.
    #[cold]
    fn chunk_emptied(&self, header: &'static PageHeader) {
        let (Some(arena), Some(heap)) = (self.entered_arena(), self.attached()) else { return };
        // What `warm_up` gave it, besides a chunk it may have gone on in, is used in the order in which it was touched.
        let warmed = if arena.keep() == 0 { 0 } else { arena.keep() + 1 };
        let reusable = arena.chunks.get() > warmed && chunk::live_blocks(header) == 0;
        if reusable && arena.remove_chunk(header) {
            if arena.reserved() == 0 {
                arena.put_reserved(header);
            } else {
                crowd::left(&heap.counters, 1);
                heap.give_page(header);
            }
        }
    }

    /// A block of the watched arena that is entered, in the page of `header`, became smaller in place.
    fn watched_shrunk(&self, header: &PageHeader, ptr: *const u8, old_size: usize) {
        if header.owner.load(Ordering::Relaxed) | WATCHED == self.arena.get()
            && let Some(tracker) = self.entered_arena().and_then(Arena::tracker)
        {
            tracker.shrunk(ptr.addr(), old_size);
        }
    }

    /// A block too big for arenas was freed. It counts for the entered arena as if it were one of those that bypassed it.
    fn bypassed_freed(&self, size: usize) {
        if let Some(arena) = self.entered_arena() {
            arena.count_bypassed_free(size);
            self.limit_moved(arena);
        }
    }

    /// Such a block has another size without having been allocated anew.
    fn bypassed_resized(&self, old_size: usize, new_size: usize) {
        if let Some(arena) = self.entered_arena() {
            arena.count_bypassed_resize(old_size, new_size);
            self.limit_moved(arena);
        }
    }

    /// Takes an empty page that has no owner any more.
    fn give_page(&self, page: &'static PageHeader) {
        match self.attached() {
            Some(heap) => heap.give_page(page),
            None => {
                page.next.set(ptr::null());
                space::free_spares(page, false);
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
        let owner = header.owner.load(Ordering::Relaxed);
        if owner == self.heap.get().addr() {
            return if fits_block(header, layout, new_size) { ptr } else { ptr::null_mut() };
        }
        // SAFETY: passed on.
        unsafe {
            if owner == self.arena.get() {
                self.resize_in_arena(ptr, layout, new_size)
            } else {
                resize_elsewhere(header, ptr, layout, new_size)
            }
        }
    }

    /// [`Thread::resize`] for a block of the entered arena.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline]
    unsafe fn resize_in_arena(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let top = ptr.addr().wrapping_add(granules(layout.size())) == self.bump.get();
        let end = ptr.addr().wrapping_add(granules(new_size));
        let fits = top && new_size <= SMALL_MAX && end <= self.end.get().addr() && !self.is_inherited(ptr);
        // A size that belongs outside is moved there when it is reached.
        if fits && !(new_size > layout.size() && self.tenure().is_outside(new_size)) {
            self.bump.set(end);
            return ptr;
        }
        if new_size <= layout.size() { ptr } else { ptr::null_mut() }
    }

    // ---- beginning and end --------------------------------------------------------------------------------------

    /// The thread's heap, if it has one.
    #[inline]
    pub(crate) fn attached(&self) -> Option<&'static Heap> {
        // SAFETY: never null; heaps live for ever.
        let heap = unsafe { &*self.heap.get() };
        (!heap.is_empty_heap()).then_some(heap)
    }

    /// The thread's heap, if it has one and no arena is entered.
    #[inline]
    pub(crate) fn attached_outside(&self) -> Option<&'static Heap> {
        self.attached().filter(|_| self.arena.get() == NO_ARENA)
    }

    /// Whether the thread bumps through a chunk.
    #[inline]
    pub(crate) fn has_cursor(&self) -> bool {
        self.bump.get() != 0
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
            self.alloc_bins.set(heap.row(Term::Long));
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
        self.alloc_bins.set(no_bins());
        self.heap.set(&raw const EMPTY_HEAP);
        let mut list = heap.arenas.replace(ptr::null());
        heap.arena_count.set(0);
        // SAFETY: records live for ever; those in the list belong to this heap, which is still the thread's, and nobody
        // has them entered.
        unsafe {
            while let Some(arena) = list.as_ref() {
                list = arena.next.get();
                let closed = arena.close(arena.keep(), |page| heap.give_page(page));
                crowd::left(&heap.counters, closed.left);
                chunk::retire_record(arena);
            }
            heap.release_unused();
        }
        heap.abandon();
    }

    /// What the thread does for the return of memory on its way, once in a while; see [`scavenge::by_the_way`]. `heap` is its own, if any.
    #[cold]
    #[inline(never)]
    pub(crate) fn by_the_way(&self, heap: Option<&Heap>) {
        if scavenge::by_the_way(heap) {
            // What has not become a long chain by now is not to wait any longer.
            self.outbox.flush();
        }
    }

    /// Hands over the blocks of other threads that this one has freed.
    pub(crate) fn send_frees(&self) {
        self.outbox.flush();
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
