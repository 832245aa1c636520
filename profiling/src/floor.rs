//! The floor: the least an allocator can do, as the lower bound that arenas are held against.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

use crate::Scope;

/// Bytes of one thread's region: what a row sets up and one of its operations.
const REGION_BYTES: usize = 64 << 20;

/// Alignment of the region, that of an OS page.
const REGION_ALIGN: usize = 4096;

thread_local! {
    static REGION: Region = const { Region { next: Cell::new(ptr::null_mut()), end: Cell::new(ptr::null_mut()) } };
}

/// One thread's region.
struct Region {
    /// First byte that is free; null before the first allocation.
    next: Cell<*mut u8>,
    /// Past the last byte; null before the first allocation, so that every request fails the one check.
    end: Cell<*mut u8>,
}

impl Region {
    /// Takes the next block, or tells that it does not fit.
    #[inline]
    fn bump(&self, layout: Layout) -> Option<*mut u8> {
        let next = self.next.get();
        let padding = next.addr().wrapping_neg() & (layout.align() - 1);
        if padding + layout.size() > self.end.get().addr() - next.addr() {
            return None;
        }
        let block = next.wrapping_add(padding);
        self.next.set(block.wrapping_add(layout.size()));
        Some(block)
    }

    /// Takes the region from the system, for the rest of the process, and the first block out of it. Null if
    /// that is not possible or has been done before.
    #[cold]
    fn reserve(&self, layout: Layout) -> *mut u8 {
        let Ok(region) = Layout::from_size_align(REGION_BYTES, REGION_ALIGN) else { return ptr::null_mut() };
        if !self.end.get().is_null() {
            return ptr::null_mut();
        }
        // SAFETY: the size is not zero.
        let start = unsafe { System.alloc(region) };
        if start.is_null() {
            return start;
        }
        self.next.set(start);
        self.end.set(start.wrapping_add(REGION_BYTES));
        self.bump(layout).unwrap_or(ptr::null_mut())
    }

    /// Makes the last block larger in place.
    #[inline]
    fn extend(&self, block: *mut u8, old_size: usize, new_size: usize) -> bool {
        let is_last = block.wrapping_add(old_size) == self.next.get();
        let extends = is_last && new_size <= self.end.get().addr() - block.addr();
        if extends {
            self.next.set(block.wrapping_add(new_size));
        }
        extends
    }
}

/// A bump allocator whose free does nothing. Only a [`FloorScope`] hands memory out again; without one the
/// region is soon used up, and allocations fail.
pub struct Floor;

// SAFETY: blocks are parts of a region of the thread's own, as large and aligned as asked for, and overlap
// none that was handed out since the last return of a scope, whose blocks nobody uses any more.
unsafe impl GlobalAlloc for Floor {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        REGION.with(|region| region.bump(layout).unwrap_or_else(|| region.reserve(layout)))
    }

    #[inline]
    unsafe fn dealloc(&self, _block: *mut u8, _layout: Layout) {}

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if REGION.with(|region| region.extend(block, layout.size(), new_size)) {
            return block;
        }
        // SAFETY: the caller promises that `new_size` rounded up to the alignment does not overflow.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that the size is not zero.
        let new_block = unsafe { self.alloc(new_layout) };
        if !new_block.is_null() {
            // SAFETY: both blocks are at least that long, and live blocks do not overlap.
            unsafe { ptr::copy_nonoverlapping(block, new_block, layout.size().min(new_size)) };
        }
        new_block
    }
}

/// Gives back at its end all that was allocated in it, so that the next operation finds the same memory warm.
pub struct FloorScope;

impl Scope for FloorScope {
    /// Nothing: requests that are open at once, and entries that outlive them, have no floor. The region ends
    /// if one runs such a row nevertheless.
    type Requests = crate::NoScope;

    #[inline]
    unsafe fn run(operation: impl FnOnce() -> u64) -> u64 {
        let before = REGION.with(|region| region.next.get());
        let result = operation();
        // In a thread that allocates for the first time there is nothing yet to go back to.
        if !before.is_null() {
            REGION.with(|region| region.next.set(before));
        }
        result
    }

    #[inline]
    fn resume<R>(_open: &(), work: impl FnOnce() -> R) -> R {
        work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_scope_do_not_overlap_and_come_again() {
        let layout = Layout::from_size_align(24, 8).unwrap();
        // SAFETY: a thread's first block; nobody uses it.
        assert!(!unsafe { Floor.alloc(layout) }.is_null());
        let run = || {
            // SAFETY: the blocks are only compared by address afterwards.
            unsafe {
                FloorScope::run(|| {
                    let first = Floor.alloc(layout);
                    let second = Floor.alloc(layout);
                    assert_eq!(second.addr() - first.addr(), 24);
                    assert_eq!(Floor.realloc(second, layout, 48), second);
                    first.write_bytes(7, 24);
                    let moved = Floor.realloc(first, layout, 32);
                    assert_eq!(moved.addr() - second.addr(), 48);
                    assert_eq!(moved.add(23).read(), 7);
                    first.addr() as u64
                })
            }
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let layout = Layout::from_size_align(REGION_BYTES / 2 + 1, 64).unwrap();
        // SAFETY: nobody uses the blocks.
        unsafe {
            let first = Floor.alloc(layout);
            assert!(first.addr().is_multiple_of(64) && !first.is_null());
            assert!(Floor.alloc(layout).is_null());
            assert!(Floor.realloc(first, layout, REGION_BYTES + 1).is_null());
        }
    }
}
