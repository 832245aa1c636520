//! Frees and reallocations of blocks that are neither of the thread's own pages nor of the arena it has entered, and what a free does
//! when a bin has too many blocks.

use core::alloc::Layout;
use core::ptr;

use super::layout_check::check_layout;
use super::{Thread, WATCHED, current};
use crate::chunk;
use crate::header::{Kind, PageHeader};
use crate::heap::Heap;
use crate::outbox;
use crate::size_class::{self, SMALL_MAX};
use crate::sync::Ordering;
use crate::{aligned, escape, invariant, large, mid, page, space};

/// What is left to do when a free has put more into a bin than it may hold, for a block of the page of `header`.
///
/// # Safety
///
/// The page must belong to the heap, and the heap to this thread.
#[cold]
#[inline(never)]
pub(super) unsafe fn overflow(heap: &Heap, header: &PageHeader) {
    // SAFETY: passed on.
    unsafe { heap.overflow(header) };
    if heap.turn() {
        current().by_the_way(Some(heap));
    }
}

/// # Safety
///
/// As [`Thread::dealloc`]. The order of the parameters keeps those of `dealloc` in their registers.
#[cold]
#[inline(never)]
pub(super) unsafe fn dealloc_slow(ptr: *mut u8, layout: Layout, header: &'static PageHeader) {
    if cfg!(debug_assertions) && header.kind() == Kind::Slab {
        check_layout(header, ptr, layout);
    }
    if header.kind() == Kind::Mid {
        // SAFETY: passed on.
        return unsafe { dealloc_mid(ptr, layout, header) };
    }
    let block = space::at(ptr.addr());
    // SAFETY: passed on.
    unsafe {
        // Most remote frees are of a page that an earlier one was of.
        if !current().outbox.join(header, page::link_pointer(ptr, block, layout.size()), block) {
            dealloc_by_kind(ptr, layout, header, block);
        }
    }
}

/// Frees a block that begins in a page of a mid-size span.
///
/// # Safety
///
/// As [`Thread::dealloc`].
#[inline]
unsafe fn dealloc_mid(ptr: *mut u8, layout: Layout, header: &'static PageHeader) {
    let thread = current();
    thread.bypassed_freed(layout.size());
    let heap = thread.attached();
    let _inside = heap.map(Heap::go_inside);
    // SAFETY: passed on.
    unsafe { mid::dealloc(header, ptr, heap.map(|heap| &heap.mid)) };
}

/// [`dealloc_slow`] by what the page of `header` is used for. `block` is as in [`Thread::dealloc`].
///
/// # Safety
///
/// As [`Thread::dealloc`].
#[inline(never)]
unsafe fn dealloc_by_kind(ptr: *mut u8, layout: Layout, header: &'static PageHeader, block: *mut u8) {
    let thread = current();
    match header.kind() {
        Kind::Slab => {
            let link = page::link_pointer(ptr, block, layout.size());
            // SAFETY: passed on.
            unsafe {
                if thread.register() {
                    thread.outbox.begin(header, link, block);
                } else {
                    outbox::send(header, block.cast(), link, 1);
                }
            }
        }
        // SAFETY: passed on.
        Kind::Chunk => unsafe { dealloc_in_other_chunk(thread, ptr, layout, header) },
        Kind::Aligned => {
            thread.bypassed_freed(layout.size());
            // SAFETY: passed on.
            unsafe { aligned::dealloc(header, ptr) };
        }
        Kind::Large => {
            thread.bypassed_freed(layout.size());
            large::dealloc(header);
        }
        // Mid-size blocks have a way of their own.
        Kind::Free | Kind::Spare | Kind::Meta | Kind::Mid => {
            invariant::fatal("free of a block that does not exist, or twice")
        }
    }
}

/// Frees a block of a chunk that is not of the entered arena, or of one that is watched.
///
/// # Safety
///
/// As [`Thread::dealloc`].
unsafe fn dealloc_in_other_chunk(thread: &Thread, ptr: *mut u8, layout: Layout, header: &'static PageHeader) {
    // SAFETY: passed on.
    unsafe { chunk::wipe_freed(header, ptr, layout.size()) };
    if header.owner.load(Ordering::Relaxed) | WATCHED == thread.arena.get()
        && let Some(arena) = thread.entered_arena()
    {
        if let Some(tracker) = arena.tracker() {
            tracker.freed(ptr.addr(), layout.size());
        }
        if let Some(recorder) = arena.recorder() {
            escape::freed(recorder, thread, ptr);
        }
        let used = header.used().wrapping_sub(1);
        header.set_used(used);
        if used == 0 {
            thread.chunk_emptied(header);
        }
    } else if chunk::free_remote(header) {
        // The arena is closed and this was the last block.
        thread.give_page(header);
    }
}

/// Whether a block of the slab page of `header` stays where it is with its new size. One that would be less than half used goes to a
/// smaller one.
#[inline]
pub(super) fn fits_block(header: &PageHeader, layout: Layout, new_size: usize) -> bool {
    let block = header.block_size.load(Ordering::Relaxed) as usize;
    new_size <= block && (new_size > block / 2 || new_size >= layout.size())
}

/// Makes a block smaller in place that is not of the entered arena, or of one that is watched.
///
/// # Safety
///
/// As [`Thread::resize`].
#[cold]
#[inline(never)]
unsafe fn shrink_in_other_chunk(header: &'static PageHeader, ptr: *mut u8, layout: Layout, new_size: usize) {
    current().watched_shrunk(header, ptr, layout.size());
    // SAFETY: what the block loses is its last bytes, which nobody uses any more.
    unsafe { chunk::wipe_freed(header, ptr.add(new_size), layout.size() - new_size) };
}

/// Whether a large object remains one with its new size. One that grows does.
fn stays_large(layout: Layout, new_size: usize) -> bool {
    let align = layout.align();
    let shrinks = new_size < layout.size();
    new_size > mid::MID_MAX
        || align > mid::MID_ALIGN_MAX
            && !(shrinks
                && (aligned::serves(new_size, align) || size_class::extent(new_size, align) < SMALL_MAX))
}

/// [`Thread::resize`] for a block that is not of the entered arena, or of one that is watched.
///
/// # Safety
///
/// As there.
#[inline(never)]
pub(super) unsafe fn resize_elsewhere(
    header: &'static PageHeader,
    ptr: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    match header.kind() {
        Kind::Slab => {
            if fits_block(header, layout, new_size) {
                ptr
            } else {
                ptr::null_mut()
            }
        }
        Kind::Chunk if new_size <= layout.size() => {
            // SAFETY: passed on.
            unsafe { shrink_in_other_chunk(header, ptr, layout, new_size) };
            ptr
        }
        Kind::Mid if new_size > SMALL_MAX && new_size <= mid::MID_MAX => {
            let heap = current().attached();
            let inside = heap.map(Heap::go_inside);
            // SAFETY: passed on.
            if !unsafe { mid::resize(header, ptr, new_size, heap.map(|heap| &heap.mid)) } {
                return ptr::null_mut();
            }
            drop(inside);
            current().bypassed_resized(layout.size(), new_size);
            ptr
        }
        Kind::Aligned if new_size <= aligned::ALIGNED_MAX => {
            // SAFETY: passed on; a size is not zero.
            if !unsafe { aligned::resize(header, ptr, new_size) } {
                return ptr::null_mut();
            }
            current().bypassed_resized(layout.size(), new_size);
            ptr
        }
        Kind::Large if stays_large(layout, new_size) => {
            // SAFETY: passed on.
            let resized = unsafe { large::resize(header, layout, new_size) };
            if !resized.is_null() {
                current().bypassed_resized(layout.size(), new_size);
            }
            resized
        }
        _ => ptr::null_mut(),
    }
}
