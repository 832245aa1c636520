//! The allocator itself: routes every call, by address, to where the block lives or may live.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use std::alloc::System;

use crate::config::{self, Config, Mode};
use crate::size_class::SMALL_MAX;
use crate::space::{self, PAGE_SIZE};
use crate::stats::{Counter, Traffic, UNATTACHED};
use crate::tenure::Term;
use crate::thread::{self, Thread};
use crate::{scavenge, startup};

/// The allocator. One line makes it a program's own:
///
/// ```
/// use shockwave_alloc::Shockwave;
///
/// #[global_allocator]
/// static GLOBAL: Shockwave = Shockwave::new();
/// # let _ = vec![1, 2, 3];
/// ```
///
/// `A` is the backing allocator. It serves every call in [`Mode::Standard`], and otherwise only what the reservation
/// cannot: if the OS refuses address space or memory, nothing fails as long as the backing allocator has some.
///
/// All instances in a process share one reservation and one mode; a program has one instance.
#[derive(Debug)]
pub struct Shockwave<A = System> {
    backing: A,
    config: Config,
}

impl Shockwave<System> {
    /// An allocator over [`System`] in [`Mode::Arena`].
    pub const fn new() -> Shockwave<System> {
        Shockwave::with_backing(System)
    }
}

impl Default for Shockwave<System> {
    fn default() -> Self {
        Shockwave::new()
    }
}

impl<A> Shockwave<A> {
    /// An allocator over a backing allocator of the program's choice: mimalloc, jemalloc, `dhat::Alloc` or any other.
    ///
    /// ```
    /// use shockwave_alloc::Shockwave;
    /// use std::alloc::System;
    ///
    /// #[global_allocator]
    /// static GLOBAL: Shockwave<System> = Shockwave::with_backing(System);
    /// # let _ = vec![1, 2, 3];
    /// ```
    pub const fn with_backing(backing: A) -> Shockwave<A> {
        Shockwave { backing, config: Config::DEFAULT }
    }

    /// Sets the mode the process starts in. The environment variable `SHOCKWAVE_MODE` overrides it.
    #[must_use]
    pub const fn with_mode(mut self, mode: Mode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Sets how many bytes of pages a thread takes from the reservation at once, or fewer where free memory is in shorter
    /// pieces: a multiple of 64 KiB from 64 KiB to 16 MiB; 256 KiB if not set. The environment variable `SHOCKWAVE_SLAB_SIZE` overrides it.
    ///
    /// # Panics
    ///
    /// If `bytes` is not such a number; in a `static` this is a compile error.
    #[must_use]
    pub const fn with_slab_size(mut self, bytes: usize) -> Self {
        assert!(
            config::is_slab_size(bytes),
            "the slab size must be a multiple of 64 KiB from 64 KiB to 16 MiB"
        );
        self.config.slab_size = bytes;
        self
    }

    /// Sets how many bytes of address space to reserve: at least 1 MiB; 1 TiB if not set. This is no memory, only room
    /// for it, but a limit to what the slab, arenas and big objects can hold: beyond it the backing allocator serves.
    ///
    /// # Panics
    ///
    /// If `bytes` is less than 1 MiB; in a `static` this is a compile error.
    #[must_use]
    pub const fn with_reservation(mut self, bytes: usize) -> Self {
        assert!(bytes >= 1 << 20, "the reservation must have at least 1 MiB");
        self.config.reservation = bytes;
        self
    }

    /// Sets whether arenas learn which sizes outlive them (on if not set): then blocks of these sizes are allocated in the slab from
    /// the start, and while survivors keep more than 1 MiB and a 64th of the program's memory, an arena from which something escapes
    /// is followed by many scopes that leave everything to the slab. Off, every small object goes to the arena that is entered, whatever it costs in memory.
    #[must_use]
    pub const fn with_pretenuring(mut self, on: bool) -> Self {
        self.config.pretenuring = on;
        self
    }

    /// Sets whether the OS may use transparent huge pages for the reservation, as its own setting says (off if not set). They make big
    /// heaps faster, but a touched byte can cost 2 MiB, and memory that was given back may be filled again.
    #[must_use]
    pub const fn with_huge_pages(mut self, on: bool) -> Self {
        self.config.huge_pages = on;
        self
    }

    /// Calls the backing allocator with no arena entered, because it may allocate for itself, and counts what `traffic` makes
    /// of the result.
    #[inline]
    fn call_backing<R>(&self, call: impl FnOnce(&A) -> R, traffic: impl FnOnce(&R) -> Traffic) -> R {
        match thread::current().attached_outside() {
            Some(heap) => {
                let result = call(&self.backing);
                heap.counters.backing(traffic(&result), Counter::add);
                result
            }
            None => self.call_backing_slow(call, traffic),
        }
    }

    /// [`Self::call_backing`] for a thread that has no heap, or has an arena entered.
    #[cold]
    #[inline(never)]
    fn call_backing_slow<R>(&self, call: impl FnOnce(&A) -> R, traffic: impl FnOnce(&R) -> Traffic) -> R {
        let thread = thread::current();
        let heap = if startup::ready(&self.config) { thread.attach() } else { None };
        let suspended = thread.suspend();
        let result = call(&self.backing);
        thread.leave(suspended);
        match heap {
            Some(heap) => heap.counters.backing(traffic(&result), Counter::add),
            None => UNATTACHED.backing(traffic(&result), Counter::add_shared),
        }
        result
    }
}

impl<A: GlobalAlloc> Shockwave<A> {
    /// [`GlobalAlloc::alloc`] with the parameters in the order of the compiler's own calls, so that nothing has to be moved
    /// for the fast path. Not inlined: in a codegen unit other than that of the thread-local each use of it is a call.
    ///
    /// # Safety
    ///
    /// `size` and `align` must be those of a layout, the size not zero.
    #[inline(never)]
    unsafe fn alloc_entry(size: usize, align: usize, this: &Self) -> *mut u8 {
        if let Some(block) = thread::current().alloc(size, align) {
            return block;
        }
        // SAFETY: passed on.
        unsafe { Self::alloc_slow(Layout::from_size_align_unchecked(size, align), false, this) }
    }

    /// [`GlobalAlloc::dealloc`], as [`Self::alloc_entry`].
    ///
    /// # Safety
    ///
    /// `ptr` must be a block that was allocated here and is not used any more, `size` and `align` its layout.
    #[inline]
    unsafe fn dealloc_entry(ptr: *mut u8, size: usize, align: usize, this: &Self) {
        let thread = thread::current();
        // SAFETY: by contract these are a layout's.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: the block is the caller's.
        if unsafe { thread.dealloc_in_chunk(ptr, layout) } {
            return;
        }
        match space::locate(ptr) {
            // SAFETY: the block is the caller's and begins in the page of the header.
            Some((header, block)) => unsafe { thread.dealloc(header, ptr, block, layout) },
            // SAFETY: outside the reservation there are only blocks of the backing allocator.
            None => unsafe { Self::dealloc_backing(ptr, layout, this) },
        }
    }

    /// Allocates what the fast path did not.
    ///
    /// # Safety
    ///
    /// As [`GlobalAlloc::alloc`].
    #[cold]
    unsafe fn alloc_slow(layout: Layout, zeroed: bool, this: &Self) -> *mut u8 {
        if layout.size() > SMALL_MAX {
            // SAFETY: passed on.
            return unsafe { Self::alloc_big(layout, zeroed, this) };
        }
        if let Some(block) = thread::current().alloc_pretenured(layout.size(), layout.align()) {
            return cleared(block, layout.size(), zeroed);
        }
        // SAFETY: passed on.
        unsafe {
            if !thread::current().has_cursor() && startup::mode() == Mode::Standard {
                this.alloc_backing(layout, zeroed, |_| ptr::null_mut())
            } else {
                Self::alloc_reserved(layout, zeroed, this)
            }
        }
    }

    /// [`Self::alloc_slow`] for what no size class serves.
    ///
    /// # Safety
    ///
    /// As [`GlobalAlloc::alloc`].
    #[inline(never)]
    unsafe fn alloc_big(layout: Layout, zeroed: bool, this: &Self) -> *mut u8 {
        let Some(block) = thread::current().alloc_cached(layout.size(), layout.align()) else {
            // SAFETY: passed on.
            return unsafe { Self::alloc_reserved(layout, zeroed, this) };
        };
        cleared(block, layout.size(), zeroed)
    }

    /// [`Self::alloc_slow`] where the block is from the reservation, if there is room.
    ///
    /// # Safety
    ///
    /// As [`GlobalAlloc::alloc`].
    #[inline(never)]
    unsafe fn alloc_reserved(layout: Layout, zeroed: bool, this: &Self) -> *mut u8 {
        let thread = thread::current();
        let block = thread.bump(layout.size(), layout.align());
        let (block, clean) = if !block.is_null() {
            (block, false)
        } else if startup::ready(&this.config) && startup::mode() != Mode::Standard {
            thread.alloc_slow(layout)
        } else {
            (ptr::null_mut(), false)
        };
        if block.is_null() {
            // SAFETY: passed on.
            return unsafe {
                this.alloc_backing(layout, zeroed, |thread| {
                    let (block, clean) = thread.alloc_slow(layout);
                    cleared(block, layout.size(), zeroed && !clean)
                })
            };
        }
        cleared(block, layout.size(), zeroed && !clean)
    }

    /// Allocates from the backing allocator, or if that has no memory by `again`, see [`Self::at_last`].
    ///
    /// # Safety
    ///
    /// As [`GlobalAlloc::alloc`].
    #[inline(never)]
    unsafe fn alloc_backing(
        &self,
        layout: Layout,
        zeroed: bool,
        again: impl FnOnce(&Thread) -> *mut u8,
    ) -> *mut u8 {
        if startup::mode() != Mode::Standard {
            UNATTACHED.fallbacks.add_shared(1);
        }
        let block = self.call_backing(
            // SAFETY: passed on.
            |backing| unsafe { if zeroed { backing.alloc_zeroed(layout) } else { backing.alloc(layout) } },
            |block| if block.is_null() { Traffic::Refused } else { Traffic::Alloc(layout.size()) },
        );
        if block.is_null() { Self::at_last(layout.size(), again) } else { block }
    }

    /// Tries `again` for memory that nobody has, after what is kept for later, by sleeping threads too, has gone back to the space.
    #[cold]
    fn at_last(size: usize, again: impl FnOnce(&Thread) -> *mut u8) -> *mut u8 {
        // What cannot be there in any case need not be looked for.
        if startup::mode() == Mode::Standard || size / PAGE_SIZE >= space::pages_ever_used() {
            return ptr::null_mut();
        }
        let thread = thread::current();
        thread.release_kept();
        scavenge::everything();
        again(thread)
    }

    /// # Safety
    ///
    /// As [`GlobalAlloc::dealloc`], for a block of the backing allocator.
    #[cold]
    #[inline(never)]
    unsafe fn dealloc_backing(ptr: *mut u8, layout: Layout, this: &Self) {
        // SAFETY: passed on.
        this.call_backing(
            |backing| unsafe { backing.dealloc(ptr, layout) },
            |()| Traffic::Free(layout.size()),
        );
    }

    /// # Safety
    ///
    /// As [`GlobalAlloc::realloc`], for a block of the backing allocator.
    #[cold]
    #[inline(never)]
    unsafe fn realloc_backing(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let moved = self.call_backing(
            // SAFETY: passed on.
            |backing| unsafe { backing.realloc(ptr, layout, new_size) },
            |block| {
                if block.is_null() { Traffic::Refused } else { Traffic::Realloc(layout.size(), new_size) }
            },
        );
        if !moved.is_null() {
            return moved;
        }
        // SAFETY: `GlobalAlloc::realloc` demands that the new size makes a valid layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let moved =
            Self::at_last(new_size, |thread| thread.alloc_outside(layout.size(), new_layout, Term::Long));
        if !moved.is_null() {
            // SAFETY: both blocks have at least the smaller size, and a new block overlaps no other. Refused, the old one is as it was.
            unsafe {
                ptr::copy_nonoverlapping(ptr, moved, layout.size().min(new_size));
                Self::dealloc_backing(ptr, layout, self);
            }
        }
        moved
    }
}

/// A block of at least `size` bytes, or null, filled with zeros if `clear` says so.
#[inline]
fn cleared(block: *mut u8, size: usize, clear: bool) -> *mut u8 {
    if clear && !block.is_null() {
        // SAFETY: a new block of this size, which nobody else knows.
        unsafe { block.write_bytes(0, size) };
    }
    block
}

// SAFETY: blocks come from slab pages, chunks, runs of pages or the backing allocator. Each keeps a block to itself until it
// is freed, the layout is respected (size classes are multiples of the alignment), and nothing here unwinds: failures
// are null, corruption aborts.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Shockwave<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on.
        unsafe { Self::alloc_entry(layout.size(), layout.align(), self) }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { Self::dealloc_entry(ptr, layout.size(), layout.align(), self) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some(block) = thread::current().alloc(layout.size(), layout.align()) {
            // SAFETY: the block has at least this size.
            unsafe { block.write_bytes(0, layout.size()) };
            return block;
        }
        // SAFETY: passed on.
        unsafe { Self::alloc_slow(layout, true, self) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(header) = space::header_of(ptr) else {
            // SAFETY: outside the reservation there are only blocks of the backing allocator, and they stay with it.
            return unsafe { self.realloc_backing(ptr, layout, new_size) };
        };
        let thread = thread::current();
        // SAFETY: the block is the caller's and begins in the page of the header.
        let resized = unsafe { thread.resize(header, ptr, layout, new_size) };
        if !resized.is_null() {
            return resized;
        }
        // SAFETY: `GlobalAlloc::realloc` demands that the new size makes a valid layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let mut moved = thread.alloc_for_move(header, ptr, layout.size(), new_layout);
        if moved.is_null() {
            // SAFETY: passed on.
            moved = unsafe {
                self.alloc_backing(new_layout, false, |thread| {
                    thread.alloc_for_move(header, ptr, layout.size(), new_layout)
                })
            };
        }
        if !moved.is_null() {
            // SAFETY: both blocks have at least the smaller size, and a new block overlaps no other. Where there was no
            // memory the old block stays as it is.
            unsafe {
                ptr::copy_nonoverlapping(ptr, moved, layout.size().min(new_size));
                self.dealloc(ptr, layout);
            }
        }
        moved
    }
}
