//! A slab page: 64 KiB of blocks of one size class.
//!
//! The owner takes blocks from the page's own free list into the bin of its class, several at once, and puts them back from there. The
//! list is carved at most 4 KiB at a time, so that memory no one asked for stays untouched.

mod holes;

use core::ptr;

use crate::header::{Block, Kind, PageHeader};
use crate::remote::Chain;
use crate::size_class;
use crate::space::{self, PAGE_SIZE};
use crate::sync::Ordering;

/// Bytes carved into blocks at once.
const CARVE: usize = 4 << 10;

/// Blocks of a page of each size class.
pub(crate) const CAPACITY: [u16; size_class::CLASSES] = {
    let mut blocks = [0; size_class::CLASSES];
    let mut class = 0;
    while class < blocks.len() {
        blocks[class] = (PAGE_SIZE / size_class::size_of_class(class)) as u16;
        class += 1;
    }
    blocks
};

/// Number of live blocks up to which a page is looked through for holes: a quarter of all, because where
/// more are alive there are hardly whole OS pages to purge.
pub(crate) fn may_have_holes(page: &PageHeader) -> bool {
    page.used() <= u32::from(CAPACITY[class(page)] / 4).max(1)
}

/// Whether so much of a page is free that it is listed again: an eighth.
pub(crate) fn is_awake(page: &PageHeader) -> bool {
    let capacity = CAPACITY[class(page)];
    page.used() <= u32::from(capacity - (capacity / 8).max(1))
}

/// The size class of a slab page.
#[inline]
pub(crate) fn class(page: &PageHeader) -> usize {
    usize::from(page.class.load(Ordering::Relaxed))
}

/// Whether it has no block to hand out.
pub(crate) fn is_full(page: &PageHeader) -> bool {
    page.free.get().is_null() && !has_room(page)
}

/// Makes an owned empty page a slab page of `class` that belongs to the heap at address `owner`, where the bin of the class is at `bin`.
pub(crate) fn init(page: &PageHeader, class: usize, owner: usize, bin: u32) {
    page.free.set(ptr::null_mut());
    page.free_count.set(0);
    page.set_used(0);
    page.carved.store(0, Ordering::Relaxed);
    page.block_size.store(size_class::size_of_class(class) as u32, Ordering::Relaxed);
    page.class.store(class as u8, Ordering::Relaxed);
    page.bin.store(bin, Ordering::Relaxed);
    page.current.store(0, Ordering::Relaxed);
    page.listed.set(false);
    page.holes.store(0, Ordering::Relaxed);
    page.seen.set(0);
    page.next.set(ptr::null());
    page.prev.set(ptr::null());
    page.owner.store(owner, Ordering::Relaxed);
    page.set_kind(Kind::Slab);
}

/// Takes the free list: its first block, or null, and how many there are.
///
/// # Safety
///
/// The caller must own the page.
pub(crate) unsafe fn take(page: &PageHeader) -> (*mut Block, u16) {
    let count = page.free_count.replace(0);
    page.set_used(page.used() + u32::from(count));
    (page.free.replace(ptr::null_mut()), count)
}

/// Takes one block from the free list, or null.
///
/// # Safety
///
/// The caller must own the page.
pub(crate) unsafe fn take_one(page: &PageHeader) -> *mut Block {
    let first = page.free.get();
    if !first.is_null() {
        // SAFETY: blocks in the free list are inside the page, unused, and begin with their link.
        page.free.set(unsafe { (*first).next });
        page.free_count.set(page.free_count.get() - 1);
        page.set_used(page.used() + 1);
    }
    first
}

/// The pointer through which a freed block's link is written: the reservation's, `block`.
///
/// For Miri a freed block is still the program's while `dealloc` runs, and a `Box` may still count as borrowed in the function
/// that drops it; so there the link is written through the program's own pointer, `ptr`, if that reaches over a whole link.
#[inline]
pub(crate) fn link_pointer(ptr: *mut u8, block: *mut u8, size: usize) -> *mut Block {
    if cfg!(miri) && size >= size_of::<Block>() { ptr.cast() } else { block.cast() }
}

/// Puts `count` blocks back that are linked from `first` to `last`.
///
/// # Safety
///
/// The caller must own the page, and the blocks must be blocks of it that are handed out and not used any more.
pub(crate) unsafe fn push(page: &PageHeader, first: *mut Block, last: *mut Block, count: u16) {
    // SAFETY: a block has at least 8 bytes, aligned to 8, and by contract nobody uses it.
    unsafe { (*last).next = page.free.get() };
    page.free.set(first);
    page.free_count.set(page.free_count.get().wrapping_add(count));
    // Wrapping: a double free must not panic in here.
    page.set_used(page.used().wrapping_sub(u32::from(count)));
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
    page.light.set(page.light.get() && carved + count * size <= space::LIGHT_BYTES);
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
    page.free_count.set(count as u16);
}

/// Gives whole OS pages without live blocks back to the OS. Returns the bytes.
///
/// The blocks in them are in no list from then on, until [`carve`] makes them again.
///
/// # Safety
///
/// The caller must be inside the gate of the heap that owns the page, or its visitor.
pub(crate) unsafe fn purge_holes(page: &PageHeader) -> usize {
    let size = page.block_size.load(Ordering::Relaxed) as usize;
    let carved = page.carved.load(Ordering::Relaxed) as usize;
    let before = page.holes.load(Ordering::Relaxed);
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
    let (mut kept, mut count): (*mut Block, u16) = (ptr::null_mut(), 0);
    let mut next = page.free.get();
    while !next.is_null() {
        let block = next;
        // SAFETY: as above; the list is the caller's.
        unsafe {
            next = (*block).next;
            if holes::pages_of(offset(block), size) & purged == 0 {
                (*block).next = kept;
                kept = block;
                count += 1;
            }
        }
    }
    page.free.set(kept);
    page.free_count.set(count);
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

/// Takes over a chain of blocks that other threads freed. The page may have to be filed anew then.
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
    page.free_count.set(page.free_count.get().wrapping_add(chain.count));
    // Wrapping: as in `push`.
    page.set_used(page.used().wrapping_sub(u32::from(chain.count)));
}

/// Whether `ptr` is the start of a block that has been carved from the page.
pub(crate) fn is_block(page: &PageHeader, ptr: *const u8) -> bool {
    let offset = ptr.addr() & (PAGE_SIZE - 1);
    let size = page.block_size.load(Ordering::Relaxed) as usize;
    size != 0 && offset.is_multiple_of(size) && offset + size <= page.carved.load(Ordering::Relaxed) as usize
}
