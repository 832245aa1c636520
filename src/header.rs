//! The record of a 64 KiB page, out of band in one table.

use core::cell::Cell;
use core::ptr;

use crate::remote::{LiveCount, MailLink, RemoteFrees};
use crate::sync::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

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
}

/// The record of one page.
///
/// Who may touch what:
///
/// | fields | first line | second line |
/// |---|---|---|
/// | the owner (thread that has the heap, or the arena entered) | reads and writes | reads, takes |
/// | any thread that frees one of its blocks | reads `owner`, `kind`, `block_size` | read-modify-writes |
/// | statistics | read the atomic fields | read |
/// | nobody owns it (free run) | under the lock of the space | |
///
/// The atomic fields of the first line are written by the owner alone, with plain loads and stores (`Relaxed`); they
/// are atomic only so that other threads may look. Invariants of a slab page: blocks in `free` + `used` + remote frees
/// not yet collected = `carved / block_size`, where `used` has one more while the page is its heap's current one.
#[repr(C, align(128))]
pub(crate) struct PageHeader {
    /// Address of the heap (plus [`PageHeader::FULL`]) or arena record that owns the page, or [`NO_OWNER`].
    pub owner: AtomicUsize,
    /// Slab: the free list.
    pub free: Cell<*mut Block>,
    /// Slab: blocks handed out, plus one while current. Chunk: allocations less frees by its owner, wrapping.
    pub used: AtomicU32,
    /// Slab: bytes carved into blocks so far. Chunk: bytes bumped through when it was left.
    pub carved: AtomicU32,
    /// Slab: bytes of a block.
    pub block_size: AtomicU32,
    /// A [`Kind`].
    kind: AtomicU8,
    /// Slab: size class. Mid: index of the mid-size heap. Chunk: 1 if freed blocks are wiped.
    pub class: AtomicU8,
    /// Slab: 1 while its heap allocates from it, which is what `used` counts extra. Chunk: 1 while an open arena uses it.
    pub current: AtomicU8,
    /// Run that is free or large: whether it may hold something other than zeros.
    pub dirty: Cell<bool>,
    /// Number of pages in the run that begins or ends here.
    pub run_len: AtomicU32,
    /// List of the heap, the arena or the space. Mid: first page of the span.
    pub next: Cell<*const PageHeader>,
    /// Backward link of the same list, where it has one.
    pub prev: Cell<*const PageHeader>,

    /// Second line: what other threads write.
    pub remote: Remote,
}

/// The line of a [`PageHeader`] that other threads write.
#[repr(C, align(64))]
pub(crate) struct Remote {
    /// Slab: blocks freed by other threads.
    pub frees: RemoteFrees,
    /// Slab: link in the mailbox of the heap.
    pub mail: MailLink,
    /// Chunk: balance of live blocks.
    pub live: LiveCount,
    /// Mid: what is known of the blocks that begin in this page; each word is its block's.
    /// Large: the requested size in the first.
    pub sizes: [Cell<u64>; 4],
}

// SAFETY: the `Cell` fields are touched by the owner of the page only, or under the lock of the space or mid-size heap
// the page belongs to; pages change hands through those locks or the acquire and release operations of `remote`.
unsafe impl Sync for PageHeader {}

const _: () = assert!(size_of::<PageHeader>() == 128);

impl PageHeader {
    /// Set in `owner` of a slab page that has no free block and is in none of its heap's lists.
    pub(crate) const FULL: usize = 1;

    /// A page that is full for ever. It stands for "no page", so that allocation needs no test, and is never written.
    pub(crate) const fn empty() -> PageHeader {
        PageHeader {
            owner: AtomicUsize::new(NO_OWNER),
            free: Cell::new(ptr::null_mut()),
            used: AtomicU32::new(0),
            carved: AtomicU32::new(u32::MAX),
            block_size: AtomicU32::new(0),
            kind: AtomicU8::new(Kind::Free as u8),
            class: AtomicU8::new(0),
            current: AtomicU8::new(0),
            dirty: Cell::new(false),
            run_len: AtomicU32::new(0),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            remote: Remote {
                frees: RemoteFrees::new(),
                mail: MailLink::new(),
                live: LiveCount::new(),
                sizes: [const { Cell::new(0) }; 4],
            },
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
