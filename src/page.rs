//! A slab page: 64 KiB of blocks of one size class.
//!
//! The owner pops and pushes the page's own free list. The list is carved at most 4 KiB at a time, so that memory no
//! one asked for stays untouched.

mod holes;

use core::ptr;

use crate::header::{Block, Kind, PageHeader};
use crate::remote::Chain;
use crate::size_class;
use crate::space::{self, PAGE_SIZE};
use crate::sync::Ordering;

/// Bytes carved into blocks at once.
const CARVE: usize = 4 << 10;

/// Of a size class: the number of live blocks at which a page becomes cold. An eighth, because where more are alive there are hardly
/// whole OS pages to purge, and because frees in cold pages are slower.
pub(crate) const COLD_AT: [u16; size_class::CLASSES] = {
    let mut at = [0; size_class::CLASSES];
    let mut class = 0;
    while class < at.len() {
        let blocks = PAGE_SIZE / size_class::size_of_class(class) / 8;
        at[class] = if blocks == 0 { 1 } else { blocks as u16 };
        class += 1;
    }
    at
};

/// Of a size class: the number of live blocks at which a page that was full is listed again, an eighth less than all.
pub(crate) const AWAKE_AT: [u16; size_class::CLASSES] = {
    let mut at = COLD_AT;
    let mut class = 0;
    while class < at.len() {
        at[class] = (PAGE_SIZE / size_class::size_of_class(class)) as u16 - at[class];
        assert!(at[class] > COLD_AT[class]);
        class += 1;
    }
    at
};

/// Whether a page that is not current is in the list of its class.
pub(crate) fn is_listed(page: &PageHeader) -> bool {
    match page.owner.load(Ordering::Relaxed) & PageHeader::FLAGS {
        PageHeader::FULL => false,
        PageHeader::COLD => true,
        _ => page.floor.load(Ordering::Relaxed) == COLD_AT[usize::from(page.class.load(Ordering::Relaxed))],
    }
}

/// Makes an owned empty page a slab page of `class` that belongs to the heap at address `owner`.
pub(crate) fn init(page: &PageHeader, class: usize, owner: usize) {
    page.free.set(ptr::null_mut());
    page.set_used(0);
    page.carved.store(0, Ordering::Relaxed);
    page.block_size.store(size_class::size_of_class(class) as u32, Ordering::Relaxed);
    page.class.store(class as u8, Ordering::Relaxed);
    page.current.store(0, Ordering::Relaxed);
    page.floor.store(0, Ordering::Relaxed);
    page.holes.store(0, Ordering::Relaxed);
    page.seen.set(0);
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

/// Puts a block back. Returns what `used` is now. `link` is from [`link_pointer`], `block` the same address with the reservation's
/// provenance.
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

/// Number of live blocks, whatever the page's state.
pub(crate) fn live(page: &PageHeader) -> u32 {
    let used = page.used();
    if page.current.load(Ordering::Relaxed) != 0 {
        used.wrapping_sub(1)
    } else if page.owner.load(Ordering::Relaxed) & PageHeader::FLAGS == 0 {
        used.wrapping_add(u32::from(page.floor.load(Ordering::Relaxed)))
    } else {
        used
    }
}

/// Whether more blocks can be carved.
pub(crate) fn has_room(page: &PageHeader) -> bool {
    let carved = page.carved.load(Ordering::Relaxed) as usize;
    carved + page.block_size.load(Ordering::Relaxed) as usize <= PAGE_SIZE
        || page.holes.load(Ordering::Relaxed) != 0
}

/// Carves up to 4 KiB more into blocks, holes first. Returns whether there are any.
///
/// # Safety
///
/// The caller must own the page, and its free list must be empty.
pub(crate) unsafe fn carve(page: &PageHeader) -> bool {
    let size = page.block_size.load(Ordering::Relaxed) as usize;
    let carved = page.carved.load(Ordering::Relaxed) as usize;
    if size == 0 {
        return false;
    }
    let holes = page.holes.load(Ordering::Relaxed);
    if holes != 0 {
        let (blocks, rest) = holes::first(holes, size, carved / size);
        page.holes.store(rest, Ordering::Relaxed);
        // SAFETY: these blocks are carved, free, and in no list.
        unsafe { link(page, blocks.start * size, size, blocks.len()) };
        return true;
    }
    let room = (PAGE_SIZE.saturating_sub(carved)) / size;
    if room == 0 {
        return false;
    }
    let count = room.min((CARVE / size).max(1));
    // SAFETY: `carved + count * size` is at most the page's size, and no block there has been handed out.
    unsafe { link(page, carved, size, count) };
    page.carved.store((carved + count * size) as u32, Ordering::Relaxed);
    true
}

/// Makes `count` blocks of `size` bytes from offset `from` on the page's free list.
///
/// # Safety
///
/// The caller must own the page, its free list must be empty, and the blocks must be inside it and free.
unsafe fn link(page: &PageHeader, from: usize, size: usize, count: usize) {
    // SAFETY: inside the page.
    let first = unsafe { space::start_of(page).add(from) };
    let mut next: *mut Block = ptr::null_mut();
    for index in (0..count).rev() {
        // SAFETY: inside the page, free; block sizes are multiples of 8, so links are aligned.
        unsafe {
            let block = first.add(index * size).cast::<Block>();
            (*block).next = next;
            next = block;
        }
    }
    page.free.set(next);
}

/// Gives whole OS pages without live blocks back to the OS. Returns the bytes.
///
/// The blocks in them are in no list from then on, until [`carve`] makes them again.
///
/// # Safety
///
/// The page must be cold, and the caller inside the gate of its heap, or a visitor.
pub(crate) unsafe fn purge_holes(page: &PageHeader) -> usize {
    let size = page.block_size.load(Ordering::Relaxed) as usize;
    let carved = page.carved.load(Ordering::Relaxed) as usize;
    let before = page.holes.load(Ordering::Relaxed);
    debug_assert!(
        page.owner.load(Ordering::Relaxed) & PageHeader::COLD != 0,
        "its owner may be using the list"
    );
    if size == 0 || !space::can_purge_holes() {
        return 0;
    }
    let start = space::start_of(page);
    let offset = |block: *mut Block| block.addr() & (PAGE_SIZE - 1);
    let mut occupied = holes::Occupied::new(size, carved / size, before);
    let mut next = page.free.get();
    while !next.is_null() {
        occupied.free(offset(next));
        // SAFETY: blocks in the free list begin with their link.
        next = unsafe { (*next).next };
    }
    let purged = occupied.empty_pages();
    if purged == 0 {
        return 0;
    }
    // The list loses the blocks that touch one of these pages.
    let mut kept: *mut Block = ptr::null_mut();
    let mut next = page.free.get();
    while !next.is_null() {
        let block = next;
        // SAFETY: as above; the list is the caller's.
        unsafe {
            next = (*block).next;
            if holes::pages_of(offset(block), size) & purged == 0 {
                (*block).next = kept;
                kept = block;
            }
        }
    }
    page.free.set(kept);
    page.holes.store(before | purged, Ordering::Relaxed);
    let mut bytes = 0;
    for range in holes::runs(purged) {
        let len = range.len() * holes::OS_PAGE;
        // SAFETY: inside the page; no live block touches these OS pages, and the free ones are in no list.
        if unsafe { space::purge_hole(start.add(range.start * holes::OS_PAGE), len) } {
            bytes += len;
        }
    }
    bytes
}

/// Takes over a chain of blocks that other threads freed. The page may be due for another state then.
///
/// # Safety
///
/// The caller must own the page and have taken the chain from its remote frees.
pub(crate) unsafe fn collect(page: &PageHeader, chain: Chain) {
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
    // Wrapping: of a hot page the count may fall below 0, which `live` sets right.
    page.set_used(page.used().wrapping_sub(u32::from(chain.count)));
}

/// Whether `ptr` is the start of a block that has been carved from the page.
pub(crate) fn is_block(page: &PageHeader, ptr: *const u8) -> bool {
    let offset = ptr.addr() & (PAGE_SIZE - 1);
    let size = page.block_size.load(Ordering::Relaxed) as usize;
    size != 0 && offset.is_multiple_of(size) && offset + size <= page.carved.load(Ordering::Relaxed) as usize
}
