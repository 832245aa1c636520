//! bumpalo as the allocator of a process, where that is possible: within operations that drop all they allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{self, NonNull};

use allocator_api2::alloc::Allocator;
use bumpalo::Bump;

use crate::Scope;

/// Bytes of a thread's `Bump`, more than any operation takes: growing it would come back to the global allocator.
const CAPACITY: usize = 64 << 20;

thread_local! {
    static CURRENT: Current =
        const { Current { bump: Cell::new(ptr::null_mut()), inside: Cell::new(false) } };
}

/// One thread's `Bump`.
struct Current {
    /// Made by the first scope and never dropped; null before.
    bump: Cell<*mut Bump>,
    /// Whether the thread is in a scope.
    inside: Cell<bool>,
}

/// Within a [`BumpaloScope`] a `Bump`, elsewhere the system allocator.
pub struct Bumpalo;

impl Bumpalo {
    /// The thread's `Bump`, if it is in a scope.
    #[inline]
    fn current(&self) -> Option<&Bump> {
        CURRENT.with(|current| {
            // SAFETY: in a scope it is set, and only the end of the scope takes it mutably.
            current.inside.get().then(|| unsafe { &*current.bump.get() })
        })
    }
}

// SAFETY: both allocators keep the contract. A block that one of them allocated reaches the other only as the
// contract of `Scope` allows it: blocks of a scope end with it. A block from outside that is freed within a scope
// is none of the `Bump`'s, which then does nothing.
unsafe impl GlobalAlloc for Bumpalo {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.current() {
            Some(bump) => bump.try_alloc_layout(layout).map_or(ptr::null_mut(), NonNull::as_ptr),
            // SAFETY: the caller's promise.
            None => unsafe { System.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.current() {
            // SAFETY: the caller promises that the block is live, so it is not null.
            Some(bump) => unsafe { bump.deallocate(NonNull::new_unchecked(block), layout) },
            // SAFETY: the caller's promise.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(bump) = self.current() else {
            // SAFETY: the caller's promise.
            return unsafe { System.realloc(block, layout, new_size) };
        };
        // SAFETY: the caller promises that `new_size` rounded up to the alignment does not overflow.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that the block is live, so it is not null.
        let block = unsafe { NonNull::new_unchecked(block) };
        // SAFETY: the caller's promise; the alignments are the same.
        let moved = unsafe {
            if new_size >= layout.size() {
                bump.grow(block, layout, new_layout)
            } else {
                bump.shrink(block, layout, new_layout)
            }
        };
        moved.map_or(ptr::null_mut(), |block| block.cast().as_ptr())
    }
}

/// Runs each operation in the thread's `Bump` and resets it.
pub struct BumpaloScope;

impl Scope for BumpaloScope {
    /// Nothing: requests that are open at once, and entries that outlive them, are not for it.
    type Requests = crate::NoScope;

    #[inline]
    unsafe fn run(operation: impl FnOnce() -> u64) -> u64 {
        CURRENT.with(|current| {
            if current.bump.get().is_null() {
                current.bump.set(Box::into_raw(Box::new(Bump::with_capacity(CAPACITY))));
            }
            current.inside.set(true);
        });
        let result = operation();
        CURRENT.with(|current| {
            current.inside.set(false);
            // SAFETY: `run` has set it, no reference to it is held, and the caller promises that nobody uses its
            // blocks any more.
            unsafe { (*current.bump.get()).reset() };
        });
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
    fn blocks_of_a_scope_come_again_and_grow_in_place() {
        let layout = Layout::from_size_align(24, 8).unwrap();
        let run = || {
            // SAFETY: the blocks are only compared by address afterwards.
            unsafe {
                BumpaloScope::run(|| {
                    let first = Bumpalo.alloc(layout);
                    first.write_bytes(7, 24);
                    let second = Bumpalo.alloc(layout);
                    let grown = Bumpalo.realloc(first, layout, 48);
                    assert!(grown != first && grown != second);
                    assert_eq!(grown.add(23).read(), 7);
                    first.addr() as u64
                })
            }
        };
        assert_eq!(run(), run());
        assert!(Bumpalo.current().is_none());
    }
}
