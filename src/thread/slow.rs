//! Allocations that the fast path leaves, and where a block goes that must move.

use core::alloc::Layout;
use core::ptr;

use super::{GROW_IN_ARENA_MAX, NEW_CHUNK_MAX, Thread, WATCHED};
use crate::chunk::Arena;
use crate::config::Mode;
use crate::header::PageHeader;
use crate::heap::{self, Heap};
use crate::size_class::{self, SMALL_MAX};
use crate::sync::Ordering;
use crate::tenure::{STEP_MAX, Term};
use crate::{aligned, escape, large, mid, startup};

impl Thread {
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
            return self.alloc_big(layout, false);
        }
        let block = match self.alloc_in_arena(size, align) {
            Ok(block) => block,
            Err(term) => self.alloc_small_outside(extent, term),
        };
        (block, false)
    }

    /// Allocates a block of a size that arenas leave to the slab, where the thread bumps through a chunk and its bin has one: the
    /// shortest way for what [`Thread::alloc`] refuses because of its size.
    #[inline]
    pub(crate) fn alloc_pretenured(&self, size: usize, align: usize) -> Option<*mut u8> {
        if self.bump.get() == 0 || size > STEP_MAX || !self.tenure().is_outside(size) {
            return None;
        }
        let class = startup::route(size_class::extent(size, align))?;
        // SAFETY: the heap is the thread's own or the empty one.
        let block = unsafe { (*self.heap.get()).alloc(class, Term::Long) };
        if block.is_null() {
            return None;
        }
        // There is one, and it is not diverted, or the thread would not bump.
        if let Some(arena) = self.entered_arena() {
            arena.count_outside(size);
        }
        Some(block)
    }

    /// Allocates a mid-size block that the thread has kept, if it has one that fits.
    #[inline]
    pub(crate) fn alloc_cached(&self, size: usize, align: usize) -> Option<*mut u8> {
        if size <= SMALL_MAX
            || size > mid::MID_MAX
            || align > mid::MID_ALIGN_MAX
            || startup::mode() == Mode::Standard
        {
            return None;
        }
        let heap = self.attached()?;
        let inside = heap.go_inside();
        let block = mid::alloc_cached(size, &heap.mid)?;
        drop(inside);
        if let Some(arena) = self.entered_arena() {
            arena.count_bypassed(size);
            self.limit_moved(arena);
        }
        if heap.turn() {
            self.by_the_way(Some(heap));
        }
        Some(block)
    }

    /// Allocates a block outside the arena that is entered, if any, for contents that move there from a block of `old_size` bytes, and will
    /// live for a term. As [`Thread::alloc_slow`] otherwise.
    pub(crate) fn alloc_outside(&self, old_size: usize, layout: Layout, term: Term) -> *mut u8 {
        if startup::mode() == Mode::Standard {
            return ptr::null_mut();
        }
        let extent = size_class::extent(layout.size(), layout.align());
        if extent >= SMALL_MAX {
            self.alloc_big(layout, layout.size() > old_size).0
        } else {
            self.alloc_small_outside(extent, term)
        }
    }

    fn alloc_small_outside(&self, extent: usize, term: Term) -> *mut u8 {
        let class = startup::class_of(extent);
        if let Some(heap) = self.attach() {
            // SAFETY: the heap is this thread's.
            unsafe {
                let block = heap.alloc(class, term);
                if !block.is_null() {
                    return block;
                }
                if heap.turn() {
                    self.by_the_way(Some(heap));
                }
                return heap.alloc_slow(class, term);
            }
        }
        // A thread without a heap of its own borrows one for this call.
        let Some(heap) = heap::adopt() else { return ptr::null_mut() };
        // SAFETY: the heap is this thread's until it is abandoned.
        unsafe {
            let block = heap.alloc_one(class);
            heap.abandon();
            block
        }
    }

    /// Allocates a small block in the entered arena where the cursor in this record did not do. If it goes to the slab, says for which term.
    fn alloc_in_arena(&self, size: usize, align: usize) -> Result<*mut u8, Term> {
        let arena = self.entered_arena().ok_or(Term::Long)?;
        if arena.is_diverted() {
            self.count_for_limit(arena, size);
            let term = self.tenure().term();
            self.divert_to(term);
            return Err(term);
        }
        if self.arena.get() & WATCHED != 0 {
            return self.alloc_watched(arena, size, align);
        }
        if self.tenure().is_outside(size) {
            arena.count_outside(size);
            return Err(Term::Long);
        }
        if (self.chunk.get().is_null() || size <= NEW_CHUNK_MAX) && self.refill() {
            let block = self.bump(size, align);
            if !block.is_null() {
                return Ok(block);
            }
        }
        self.count_for_limit(arena, size);
        Err(self.tenure().term())
    }

    /// Counts an object that goes to the slab, if the arena has a limit: it would never be reached otherwise.
    fn count_for_limit(&self, arena: &Arena, size: usize) {
        if arena.limit.get() != u64::MAX {
            arena.count_outside(size);
        }
    }

    /// [`Thread::alloc_in_arena`] for an arena that is watched.
    fn alloc_watched(&self, arena: &'static Arena, size: usize, align: usize) -> Result<*mut u8, Term> {
        let tracker = arena.tracker();
        if tracker.is_some_and(|tracker| tracker.is_outside(self.tenure(), size)) {
            arena.count_outside(size);
            return Err(Term::Long);
        }
        let mut block = arena.bump_watched(size, align);
        if block.is_null() && self.refill() {
            block = arena.bump_watched(size, align);
        }
        if let Some(tracker) = tracker.filter(|_| !block.is_null())
            && !tracker.allocated(size)
        {
            arena.end_tracking(|_| {});
            self.sync_entered();
        }
        if let Some(recorder) = arena.recorder().filter(|_| !block.is_null()) {
            // SAFETY: size and alignment are those of a layout.
            let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
            escape::allocated(recorder, self, block, layout);
        }
        if block.is_null() { Err(self.tenure().term()) } else { Ok(block) }
    }

    /// `grows` says that the block is for contents that outgrew another one.
    fn alloc_big(&self, layout: Layout, grows: bool) -> (*mut u8, bool) {
        let (size, align) = (layout.size(), layout.align());
        let allocated = if size > SMALL_MAX && size <= mid::MID_MAX && align <= mid::MID_ALIGN_MAX {
            let heap = self.attach();
            let _inside = heap.map(Heap::go_inside);
            (mid::alloc(layout, grows, heap.map(|heap| &heap.mid), heap.map_or(0, |heap| heap.index)), false)
        } else if aligned::serves(size, align) {
            (aligned::alloc(layout), false)
        } else if size != 0 {
            large::alloc(layout)
        } else {
            (ptr::null_mut(), false)
        };
        if let Some(arena) = self.entered_arena().filter(|_| !allocated.0.is_null()) {
            arena.count_bypassed(size);
            self.limit_moved(arena);
        }
        if let Some(heap) = self.attached().filter(|heap| heap.turn()) {
            self.by_the_way(Some(heap));
        }
        allocated
    }

    /// Where a block that must move goes: a block of the entered arena may stay in it while it is small, any other block
    /// stays out of it, and with its like. `layout` is the new one. Null if the backing allocator has to serve it.
    pub(crate) fn alloc_for_move(
        &self,
        header: &PageHeader,
        ptr: *const u8,
        old_size: usize,
        layout: Layout,
    ) -> *mut u8 {
        let Some(arena) = self.entered_arena() else {
            let block = self.alloc(layout.size(), layout.align());
            return block.unwrap_or_else(|| self.alloc_outside(old_size, layout, Term::Long));
        };
        let in_arena = header.owner.load(Ordering::Relaxed) == arena.address() && !arena.is_inherited(ptr);
        if in_arena && layout.size() <= GROW_IN_ARENA_MAX {
            return match self.alloc(layout.size(), layout.align()) {
                Some(block) => block,
                None => self.alloc_slow(layout).0,
            };
        }
        let long = if in_arena { self.tenure().is_outside(layout.size()) } else { heap::is_long(header) };
        let term = if long { Term::Long } else { self.tenure().term() };
        if arena.is_plain() {
            self.alloc_outside(old_size, layout, term)
        } else {
            self.alloc_for_other_move(arena, in_arena, old_size, layout, term)
        }
    }

    /// [`Thread::alloc_for_move`] where an arena is entered that is diverted, limited or wiped, perhaps.
    #[cold]
    fn alloc_for_other_move(
        &self,
        arena: &Arena,
        in_arena: bool,
        old_size: usize,
        layout: Layout,
        term: Term,
    ) -> *mut u8 {
        // Where the fast path leaves to the slab what is allocated for this term, it does.
        if !in_arena
            && self.allocates_for(term)
            && let Some(block) = self.alloc(layout.size(), layout.align())
        {
            return block;
        }
        // Where freed blocks are overwritten they do not go where that is not done.
        if in_arena && arena.is_wiping() {
            return self.alloc_slow(layout).0;
        }
        if layout.size() <= SMALL_MAX {
            // What leaves the arena gives its place there back, perhaps.
            let given_back = if in_arena { 0 } else { old_size };
            self.count_for_limit(arena, layout.size().saturating_sub(given_back));
        }
        self.alloc_outside(old_size, layout, term)
    }
}
