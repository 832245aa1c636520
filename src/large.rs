//! Objects above 1 MiB, and those aligned to more than an OS page that neither the slab nor [`aligned`](crate::aligned) serves: a
//! run of pages each.

use core::alloc::Layout;
use core::ptr;

use crate::header::{Kind, PageHeader};
use crate::space::{self, PAGE_SIZE};
use crate::stats::Counter;
use crate::sync::Ordering;

static BLOCKS: Counter = Counter::new();
static BYTES: Counter = Counter::new();

/// In `class` of the first page: pages were moved here, so the mapping is to be renewed when the run is returned.
const MOVED: u8 = 1;

/// Allocates a run for `layout`. Null when there is no memory. Says whether the memory is known to be zero.
pub(crate) fn alloc(layout: Layout) -> (*mut u8, bool) {
    let pages = layout.size().div_ceil(PAGE_SIZE);
    let align = layout.align().div_ceil(PAGE_SIZE);
    let Some(run) = space::alloc_run(pages, align, Kind::Large) else { return (ptr::null_mut(), false) };
    run.header.class.store(0, Ordering::Relaxed);
    set_size(run.header, layout.size());
    BLOCKS.add_shared(1);
    BYTES.add_shared(layout.size() as u64);
    (space::start_of(run.header), run.zeroed)
}

/// Frees the object whose first page is `header`.
pub(crate) fn dealloc(header: &PageHeader) {
    forget(header);
    if header.class.load(Ordering::Relaxed) == MOVED {
        space::free_moved_run(header);
    } else {
        space::free_run(header);
    }
}

/// Changes the size of an object: in place, or by moving its OS pages to a longer run. Null if neither is possible; then
/// the object is as it was.
///
/// # Safety
///
/// The object must be handed out; if the result is another address the old one must not be used any more.
pub(crate) unsafe fn resize(header: &PageHeader, layout: Layout, new_size: usize) -> *mut u8 {
    let pages = new_size.div_ceil(PAGE_SIZE).max(1);
    let old_size = size(header);
    if space::resize_run(header, pages) {
        set_size(header, new_size);
        BYTES.add_shared((new_size as u64).wrapping_sub(old_size as u64));
        return space::start_of(header);
    }
    if !space::can_move() {
        return ptr::null_mut();
    }
    // SAFETY: `new_size` was checked by whoever made the request, the alignment is the block's.
    let (moved, _) = alloc(unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) });
    let Some(new) = space::header_of(moved) else { return ptr::null_mut() };
    // Whole pages of 64 KiB: every OS page size divides that.
    let bytes = old_size.min(new_size).next_multiple_of(PAGE_SIZE);
    // SAFETY: both runs belong to the caller and have at least `bytes` bytes.
    if unsafe { space::move_pages(space::start_of(header), new, bytes) } {
        new.class.store(MOVED, Ordering::Relaxed);
        dealloc(header);
        moved
    } else {
        forget(new);
        ptr::null_mut()
    }
}

/// Live objects and their bytes.
pub(crate) fn usage() -> (u64, u64) {
    (BLOCKS.get(), BYTES.get())
}

/// Takes an object out of the statistics.
fn forget(header: &PageHeader) {
    BLOCKS.add_shared(u64::MAX);
    BYTES.add_shared((size(header) as u64).wrapping_neg());
}

fn size(header: &PageHeader) -> usize {
    header.sizes[0].get() as usize
}

fn set_size(header: &PageHeader, size: usize) {
    header.sizes[0].set(size as u64);
}
