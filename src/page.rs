//! A slab page: 64 KiB of blocks of one size class.
//!
//! The owner pops and pushes the page's own free list. The list is carved at most 4 KiB at a time, so that memory no
//! one asked for stays untouched.

use core::ptr;

use crate::header::{Block, Kind, PageHeader};
use crate::remote::Chain;
use crate::size_class;
use crate::space::{self, PAGE_SIZE};
use crate::sync::Ordering;

/// Bytes carved into blocks at once.
const CARVE: usize = 4 << 10;

/// Makes an owned empty page a slab page of `class` that belongs to the heap at address `owner`.
pub(crate) fn init(page: &PageHeader, class: usize, owner: usize) {
    page.free.set(ptr::null_mut());
    page.set_used(0);
    page.carved.store(0, Ordering::Relaxed);
    page.block_size.store(size_class::size_of_class(class) as u32, Ordering::Relaxed);
    page.class.store(class as u8, Ordering::Relaxed);
    page.current.store(0, Ordering::Relaxed);
    page.next.set(ptr::null());
    page.prev.set(ptr::null());
    page.owner.store(owner, Ordering::Relaxed);
    page.set_kind(Kind::Slab);
}

/// Takes a block from the free list, or null if it is empty.
///
/// # Safety
///
/// The caller must own the page, unless it is the static empty one.
#[inline]
pub(crate) unsafe fn pop(page: &PageHeader) -> *mut u8 {
    let block = page.free.get();
    if !block.is_null() {
        // SAFETY: blocks in the free list are inside the page, unused, and begin with their link.
        page.free.set(unsafe { (*block).next });
        page.set_used(page.used() + 1);
    }
    block.cast()
}

/// The pointer through which a freed block's link is written: the reservation's, `block`.
///
/// For Miri a freed block is still the program's while `dealloc` runs, and a `Box` may still count as borrowed in the function
/// that drops it; so there the link is written through the program's own pointer, `ptr`, if that reaches over a whole link.
#[inline]
pub(crate) fn link_pointer(ptr: *mut u8, block: *mut u8, size: usize) -> *mut Block {
    if cfg!(miri) && size >= size_of::<Block>() { ptr.cast() } else { block.cast() }
}

/// Puts a block back. Returns the number of blocks still handed out. `link` is from [`link_pointer`], `block` the same address
/// with the reservation's provenance.
///
/// # Safety
///
/// The caller must own the page, and `block` must be a block of it that is handed out and not used any more.
#[inline]
pub(crate) unsafe fn push(page: &PageHeader, link: *mut Block, block: *mut u8) -> u32 {
    // SAFETY: a block has at least 8 bytes, aligned to 8, and by contract nobody uses it.
    unsafe { (*link).next = page.free.get() };
    page.free.set(block.cast());
    // Wrapping: a double free must not panic in here.
    let used = page.used().wrapping_sub(1);
    page.set_used(used);
    used
}

/// Whether more blocks can be carved.
pub(crate) fn has_room(page: &PageHeader) -> bool {
    let carved = page.carved.load(Ordering::Relaxed) as usize;
    carved + page.block_size.load(Ordering::Relaxed) as usize <= PAGE_SIZE
}

/// Carves up to 4 KiB more into blocks. Returns whether there are any.
///
/// # Safety
///
/// The caller must own the page, and its free list must be empty.
pub(crate) unsafe fn carve(page: &PageHeader) -> bool {
    let size = page.block_size.load(Ordering::Relaxed) as usize;
    let carved = page.carved.load(Ordering::Relaxed) as usize;
    let room = (PAGE_SIZE.saturating_sub(carved)) / size.max(1);
    if room == 0 || size == 0 {
        return false;
    }
    let count = room.min((CARVE / size).max(1));
    // SAFETY: `carved + count * size` is at most the page's size.
    let first = unsafe { space::start_of(page).add(carved) };
    let mut next: *mut Block = ptr::null_mut();
    for index in (0..count).rev() {
        // SAFETY: as above; block sizes are multiples of 8, so links are aligned, and no block has been handed out.
        unsafe {
            let block = first.add(index * size).cast::<Block>();
            (*block).next = next;
            next = block;
        }
    }
    page.free.set(next);
    page.carved.store((carved + count * size) as u32, Ordering::Relaxed);
    true
}

/// Takes over a chain of blocks that other threads freed. Returns the number of blocks still handed out.
///
/// # Safety
///
/// The caller must own the page and have taken the chain from its remote frees.
pub(crate) unsafe fn collect(page: &PageHeader, chain: Chain) -> u32 {
    // SAFETY: the head index is inside the page, and every block of the chain was linked by whoever freed it.
    unsafe {
        let head = space::start_of(page).add(usize::from(chain.head) * 8).cast::<Block>();
        if page.free.get().is_null() {
            page.free.set(head);
        } else {
            let mut tail = head;
            while !(*tail).next.is_null() {
                tail = (*tail).next;
            }
            (*tail).next = page.free.get();
            page.free.set(head);
        }
    }
    let used = page.used().wrapping_sub(u32::from(chain.count));
    page.set_used(used);
    used
}

/// Whether `ptr` is the start of a block that has been carved from the page.
pub(crate) fn is_block(page: &PageHeader, ptr: *const u8) -> bool {
    let offset = ptr.addr() & (PAGE_SIZE - 1);
    let size = page.block_size.load(Ordering::Relaxed) as usize;
    size != 0 && offset.is_multiple_of(size) && offset + size <= page.carved.load(Ordering::Relaxed) as usize
}
