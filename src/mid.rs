//! Mid-size blocks, above 16 KiB up to 1 MiB: a cache of freed blocks in each thread, and behind it heaps of units of 4 KiB.
//!
//! Which heap a block belongs to and how big it is stands in the header of the page it begins in, so a caller's wrong layout does no harm. That entry
//! belongs to whoever has the block: the program, or the cache of a thread; of blocks that heaps have there is none.

mod cache;
mod classes;
mod heaps;
mod spans;

pub(crate) use cache::Cache;
pub(crate) use classes::MID_MAX;
pub(crate) use heaps::{lock_for_fork, purge, unlock_after_fork};

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr;

use crate::header::PageHeader;
use crate::invariant::fatal;
use crate::size_class::SMALL_MAX;
use crate::space::{self, PAGE_SIZE};
use crate::stats::Counter;
use classes::{UNIT, class_of, size_of_class, units_of_class};

/// Largest alignment served here, in bytes: that of every block.
pub(crate) const MID_ALIGN_MAX: usize = UNIT;

/// Live blocks and bytes by the count of threads that have no cache, wrapping.
static LIVE_BLOCKS: Counter = Counter::new();
static LIVE_BYTES: Counter = Counter::new();

/// What the header of the page in which a block begins says of it: a word, 0 if no block begins there.
///
/// ```text
/// 63      48 47     40 39        0
/// |  offset | class + 1 |  size  |     offset in the page, size as requested, 0 while a thread keeps the block for later
/// ```
#[derive(Clone, Copy)]
struct Entry {
    class: usize,
    size: usize,
}

impl Entry {
    fn pack(self, block: *const u8) -> u64 {
        offset(block) << 48 | (self.class as u64 + 1) << SIZE_BITS | self.size as u64
    }

    /// Reads the entry of a block; `None` if no such block begins in the page.
    fn read(header: &PageHeader, block: *const u8) -> Option<Entry> {
        let word = slot(header, block).get();
        (word != 0 && word >> 48 == offset(block)).then_some(Entry {
            class: usize::from((word >> SIZE_BITS) as u8) - 1,
            size: (word & ((1 << SIZE_BITS) - 1)) as usize,
        })
    }

    /// Reads the entry of a block that the program has.
    fn of_live(header: &PageHeader, block: *const u8) -> Entry {
        match Entry::read(header, block) {
            Some(entry) if entry.size != 0 => entry,
            _ => fatal("free or reallocation of a mid-size block that does not exist, or twice"),
        }
    }

    fn write(self, header: &PageHeader, block: *const u8) {
        slot(header, block).set(self.pack(block));
    }

    /// Changes the entry of a block that the program has had to that of one that is kept for later.
    fn write_kept(header: &PageHeader, block: *const u8) {
        let slot = slot(header, block);
        slot.set(slot.get() >> SIZE_BITS << SIZE_BITS);
    }
}

/// Bits of an entry that hold a size.
const SIZE_BITS: u32 = 40;

fn offset(block: *const u8) -> u64 {
    (block.addr() & (PAGE_SIZE - 1)) as u64
}

/// The word for the entry of a block. Blocks are longer than 16 KiB, so no two have the same.
fn slot(header: &PageHeader, block: *const u8) -> &Cell<u64> {
    const _: () = assert!(PAGE_SIZE / SMALL_MAX == 4);
    &header.sizes[(block.addr() & (PAGE_SIZE - 1)) / SMALL_MAX]
}

/// Allocates a block, from the thread's cache or else from a heap: `preferred` is the one to try first. Null when there is no
/// memory. `grows` says that the block is for contents that outgrew another one.
pub(crate) fn alloc(layout: Layout, grows: bool, cache: Option<&Cache>, preferred: usize) -> *mut u8 {
    debug_assert!(layout.size() > SMALL_MAX && layout.size() <= MID_MAX);
    let class = class_of(layout.size());
    let cached = cache
        .and_then(|cache| if grows { cache.take_to_grow(class, layout.size()) } else { cache.take(class) });
    let (block, class) = cached.unwrap_or_else(|| (heaps::alloc(units_of_class(class), preferred), class));
    let Some(header) = space::header_of(block) else {
        // What the thread keeps may be what is missing.
        return match cache.filter(|cache| !cache.is_empty()) {
            Some(kept) => {
                clear(kept);
                alloc(layout, grows, cache, preferred)
            }
            None => ptr::null_mut(),
        };
    };
    Entry { class, size: layout.size() }.write(header, block);
    count(cache, 1, layout.size() as u64, size_of_class(class) as u64);
    block
}

/// Allocates a block of `size` bytes if the cache has one: the shortest way.
#[inline]
pub(crate) fn alloc_cached(size: usize, cache: &Cache) -> Option<*mut u8> {
    let (block, class) = cache.take(class_of(size))?;
    // Always there, as the block was.
    let header = space::header_of(block)?;
    Entry { class, size }.write(header, block);
    count(Some(cache), 1, size as u64, size_of_class(class) as u64);
    Some(block)
}

/// Adds to the live blocks, bytes and the room of these blocks; less is more than 2^63.
#[inline]
fn count(cache: Option<&Cache>, blocks: u64, bytes: u64, room: u64) {
    match cache {
        Some(cache) => {
            cache.live_blocks.add(blocks);
            cache.live_bytes.add(bytes);
            cache.live_room.add(room);
        }
        None => {
            LIVE_BLOCKS.add_shared(blocks);
            LIVE_BYTES.add_shared(bytes);
        }
    }
}

/// Frees the block at `ptr`, which begins in the page of `header`.
///
/// # Safety
///
/// The block must be handed out and not used any more.
#[inline]
pub(crate) unsafe fn dealloc(header: &PageHeader, ptr: *mut u8, cache: Option<&Cache>) {
    let Entry { class, size } = Entry::of_live(header, ptr);
    Entry::write_kept(header, ptr);
    count(cache, u64::MAX, (size as u64).wrapping_neg(), (size_of_class(class) as u64).wrapping_neg());
    let block = space::at(ptr.addr());
    match cache {
        Some(cache) => cache.put(block, class, give_back),
        None => give_back(block),
    }
}

/// Returns everything that the cache keeps to the heaps.
pub(crate) fn clear(cache: &Cache) {
    cache.clear(give_back);
}

/// Returns a block that was freed to its heap.
fn give_back(block: *mut u8) {
    let Some((header, entry)) =
        space::header_of(block).and_then(|header| Some((header, Entry::read(header, block)?)))
    else {
        fatal("a mid-size block without an entry was kept")
    };
    slot(header, block).set(0);
    // SAFETY: the block is free, begins in this page, and is of this class.
    unsafe { heaps::free(header, block, units_of_class(entry.class)) }
}

/// Returns what the cache has not needed since the last call to the heaps.
pub(crate) fn decay(cache: &Cache) {
    cache.decay(true, &mut give_back);
}

/// Changes the size of a block in place. Returns whether that was possible.
///
/// # Safety
///
/// The block must be handed out, and `new_size` must be served by this module.
pub(crate) unsafe fn resize(
    header: &PageHeader,
    ptr: *mut u8,
    new_size: usize,
    cache: Option<&Cache>,
) -> bool {
    let Entry { mut class, size } = Entry::of_live(header, ptr);
    let room = size_of_class(class);
    // A block with room to grow keeps it while it grows.
    if new_size > room || new_size < size && new_size <= room / 2 {
        let new_class = class_of(new_size);
        if let Some(cache) = cache.filter(|_| new_size > room) {
            cache.outgrew(class);
        }
        let (units, wanted) = (units_of_class(class), units_of_class(new_class));
        let block = space::at(ptr.addr());
        // SAFETY: the block begins in this page, and is of this class.
        if !unsafe { heaps::resize(header, block, units, wanted) } {
            return false;
        }
        class = new_class;
    }
    Entry { class, size: new_size }.write(header, ptr);
    let room_added = (size_of_class(class) as u64).wrapping_sub(room as u64);
    count(cache, 0, (new_size as u64).wrapping_sub(size as u64), room_added);
    true
}

/// Live blocks and bytes by the count of threads that have no cache, wrapping.
pub(crate) fn usage_uncached() -> (u64, u64) {
    (LIVE_BLOCKS.get(), LIVE_BYTES.get())
}
