//! The record of a 64 KiB page, out of band in one table.

use core::cell::Cell;
use core::mem::offset_of;
use core::ptr;

use crate::remote::{LiveCount, MailLink, RemoteFrees};
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering};

/// First word of a free block.
#[repr(transparent)]
pub(crate) struct Block {
    pub next: *mut Block,
}

/// Owner of a page that has none: compares equal to no heap and no arena.
pub(crate) const NO_OWNER: usize = 0;

/// What a page is used for. Pages of a run that are neither first nor last may keep an outdated kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Never used, or part of a free run.
    Free = 0,
    /// In a heap's stock of empty pages.
    Spare = 1,
    /// Blocks of one size class.
    Slab = 2,
    /// Bumped through by an arena.
    Chunk = 3,
    /// Part of a run that belongs to a mid-size heap.
    Mid = 4,
    /// First page of a large object.
    Large = 5,
    /// The table of page headers, heaps and arena records.
    Meta = 6,
    /// Part of a run that belongs to the heap of aligned blocks.
    Aligned = 7,
}

/// The record of one page.
///
/// Who may touch what:
///
/// | fields | first line | second line |
/// |---|---|---|
/// | the owner of a slab page: the thread that has the heap | reads `owner`, `kind`, `class`, `bin`, `block_size`; the rest inside the heap's gate | inside the gate |
/// | a visitor of that heap ([`gate`](crate::gate)) | inside the gate | inside the gate |
/// | the owner of a chunk: the thread that has the arena entered | reads, seldom writes | reads and writes |
/// | any thread that frees or moves one of its blocks | reads `owner`, `kind`, `class`, `bin`, `block_size`; read-modify-writes `remote` | |
/// | statistics | read the atomic fields | read |
/// | nobody owns it (free run) | under the lock of the space | |
///
/// What the owner of a chunk writes at each free is on a line of its own, because a thread that frees its blocks would wait for that line
/// each time. The atomic fields but `remote` are written by one thread at a time, the owner or a visitor, with plain loads and stores
/// (`Relaxed`); they are atomic only so that other threads may look.
///
/// A slab page is *current* (its slot takes blocks from it when its bin is empty), *listed* (in the list of its slot, to become current),
/// or neither: then it is full, or asleep, which means that less than an eighth of it is free. It would be full again after a few
/// allocations. That a slab wakes when enough of it is free is snmalloc's idea.
///
/// Blocks in the bin of a heap count as live here.
///
/// Invariant: blocks in `free` + live ones + remote frees not yet collected + blocks that touch an OS page of `holes` =
/// `carved / block_size`. Those of the last kind are in no list; nobody reads or writes them.
#[repr(C, align(128))]
pub(crate) struct PageHeader {
    /// Address of the heap or arena record that owns the page, or [`NO_OWNER`].
    pub owner: AtomicUsize,
    /// Slab: bytes of a block.
    pub block_size: AtomicU32,
    /// A [`Kind`].
    kind: AtomicU8,
    /// Slab: size class. Mid: index of the mid-size heap. Chunk: 1 if freed blocks are wiped.
    pub class: AtomicU8,
    /// Slab: 1 while its slot takes blocks from it. Chunk: 1 while an open arena uses it.
    pub current: AtomicU8,
    /// Slab: whether it is in the list of its slot.
    pub listed: Cell<bool>,
    /// Slab, spare: whether the OS provides memory for the first [`LIGHT_BYTES`](crate::space::LIGHT_BYTES) at most.
    pub light: Cell<bool>,
    /// Slab: a bit for each OS page of 4 KiB that was purged and has not been carved into blocks again.
    pub holes: AtomicU16,
    /// Slab: blocks in `free`.
    pub free_count: Cell<u16>,
    /// Slab: what the last visitor saw of the live blocks; see `heap/visit.rs`.
    pub seen: Cell<u32>,
    /// Number of pages in the run that begins or ends here.
    pub run_len: AtomicU32,
    /// Slab: where in its heap the bin of its slot is; see [`bin_offset`](crate::bins::bin_offset).
    pub bin: AtomicU32,
    /// What other threads write.
    pub remote: Remote,

    second_line: Line,
    /// Slab: the free list.
    pub free: Cell<*mut Block>,
    /// Slab: live blocks. Chunk: allocations less frees by its owner, wrapping.
    pub used: AtomicU32,
    /// Slab: bytes carved into blocks so far. Chunk: bytes bumped through when it was left.
    pub carved: AtomicU32,
    /// List of the heap, the arena or the space. Mid: first page of the span.
    pub next: Cell<*const PageHeader>,
    /// Backward link of the same list, where it has one.
    pub prev: Cell<*const PageHeader>,
    /// Mid: what is known of the blocks that begin in this page; each word is its block's.
    /// Aligned: the size of the block that begins in each eighth of the page, half a word each.
    /// Large: the requested size in the first.
    pub sizes: [Cell<u64>; 4],
}

/// The fields of a [`PageHeader`] that other threads write.
#[repr(C)]
pub(crate) struct Remote {
    /// Slab: blocks freed by other threads.
    pub frees: RemoteFrees,
    /// Slab: link in the mailbox of the heap.
    pub mail: MailLink,
    /// Chunk: balance of live blocks.
    pub live: LiveCount,
}

/// What comes behind it begins a cache line.
#[repr(align(64))]
struct Line;

// SAFETY: the `Cell` fields are touched by the owner of the page only, those of slab pages inside the gate of its heap, where a visitor
// may, too; or under the lock of the space or of the heap of bigger blocks the page belongs to. Pages change hands through those locks or the acquire and release operations of `remote`.
unsafe impl Sync for PageHeader {}

const _: () = assert!(size_of::<PageHeader>() == 128 && offset_of!(PageHeader, free) == 64);

impl PageHeader {
    /// A page that is full for ever. It stands for "no page", so that allocation needs no test, and is never written.
    pub(crate) const fn empty() -> PageHeader {
        PageHeader {
            owner: AtomicUsize::new(NO_OWNER),
            block_size: AtomicU32::new(0),
            kind: AtomicU8::new(Kind::Free as u8),
            class: AtomicU8::new(0),
            current: AtomicU8::new(0),
            listed: Cell::new(false),
            light: Cell::new(false),
            holes: AtomicU16::new(0),
            free_count: Cell::new(0),
            seen: Cell::new(0),
            run_len: AtomicU32::new(0),
            bin: AtomicU32::new(0),
            remote: Remote { frees: RemoteFrees::new(), mail: MailLink::new(), live: LiveCount::new() },
            second_line: Line,
            free: Cell::new(ptr::null_mut()),
            used: AtomicU32::new(0),
            carved: AtomicU32::new(u32::MAX),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            sizes: [const { Cell::new(0) }; 4],
        }
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match self.kind.load(Ordering::Relaxed) {
            1 => Kind::Spare,
            2 => Kind::Slab,
            3 => Kind::Chunk,
            4 => Kind::Mid,
            5 => Kind::Large,
            6 => Kind::Meta,
            7 => Kind::Aligned,
            _ => Kind::Free,
        }
    }

    #[inline]
    pub(crate) fn set_kind(&self, kind: Kind) {
        self.kind.store(kind as u8, Ordering::Relaxed);
    }

    /// `used` as the owner sees it.
    #[inline]
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Owner only: a plain store, not a read-modify-write.
    #[inline]
    pub(crate) fn set_used(&self, used: u32) {
        self.used.store(used, Ordering::Relaxed);
    }

    /// Address of this header, as `owner` words and mailboxes hold it.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}
