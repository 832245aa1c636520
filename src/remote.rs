//! The hand-overs between threads: everything that a thread may touch of a page, chunk or heap it does not own.
//!
//! Three small protocols, each on one atomic word, so that the workspace member `loom` can explore every interleaving of them:
//!
//! - [`RemoteFrees`], one in each page: blocks freed by other threads, pushed as whole chains, taken as a whole.
//! - [`Mailbox`], one in each heap: the pages that have remote frees, and whether the heap has an owner at all.
//! - [`LiveCount`], one in each chunk: the balance that decides who recycles a chunk whose scope has ended.
//!
//! None of them frees a node, so there is no ABA problem: lists are only ever taken whole.

use crate::sync::{AtomicIsize, AtomicU32, AtomicUsize, Ordering};

/// Blocks of one slab page that other threads have freed and the owner has not yet collected.
///
/// ```text
/// 31          16 15            0
/// |    count    |  head index  |     head index in units of 8 B from the start of the page
/// ```
///
/// Invariant: `count` blocks are linked from the head through their first word; the head means nothing when the count
/// is 0. A page whose count is not 0 is in its heap's mailbox, or the thread that made it so is about to post it.
pub(crate) struct RemoteFrees(AtomicU32);

/// A chain of free blocks in one page, as taken from [`RemoteFrees`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Index of the first block in units of 8 B.
    pub head: u16,
    /// Number of blocks; 0 makes `head` meaningless.
    pub count: u16,
}

impl Chain {
    const fn pack(self) -> u32 {
        (self.count as u32) << 16 | self.head as u32
    }

    const fn unpack(word: u32) -> Chain {
        Chain { head: word as u16, count: (word >> 16) as u16 }
    }
}

impl RemoteFrees {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> RemoteFrees {
        RemoteFrees(AtomicU32::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> RemoteFrees {
        RemoteFrees(AtomicU32::new(0))
    }

    /// Pushes a chain of blocks. `link` makes the chain's last block point to the block of the given index, or to none.
    ///
    /// Returns whether the page had no remote frees before: then the caller must post it to the mailbox of its heap.
    #[inline]
    pub(crate) fn push(&self, chain: Chain, mut link: impl FnMut(Option<u16>)) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let old = Chain::unpack(word);
            link((old.count != 0).then_some(old.head));
            let new = Chain { head: chain.head, count: old.count.wrapping_add(chain.count) };
            // Release: the links and whatever the freeing thread did with the blocks come before their reuse. Acquire: who
            // finds the page without remote frees, and posts it next, does so after the owner has read its mail link.
            match self.0.compare_exchange_weak(word, new.pack(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return old.count == 0,
                Err(now) => word = now,
            }
        }
    }

    /// Takes all blocks. Only the owner of the page calls this, after it took the page from the mailbox.
    #[inline]
    pub(crate) fn take(&self) -> Chain {
        // Release: the owner has read the page's mail link, which the next thread to post the page overwrites.
        Chain::unpack(self.0.swap(0, Ordering::AcqRel))
    }

    /// Number of blocks waiting, for statistics.
    pub(crate) fn count(&self) -> u32 {
        u32::from(Chain::unpack(self.0.load(Ordering::Relaxed)).count)
    }
}

/// Says that nobody owns the heap. Addresses of posted pages are multiples of 128, so the bit is free.
const OWNERLESS: usize = 1;

/// The pages of one heap that have remote frees, newest first, and the heap's ownership, in one word.
///
/// Invariant: only the owner takes; the tag [`OWNERLESS`] is set exactly while there is no owner. Because both are in
/// one word a post learns for certain whether somebody will take it: a heap cannot be abandoned with a page in its
/// mailbox, and whoever posts to an ownerless heap is told so and may claim it.
pub(crate) struct Mailbox(AtomicUsize);

/// Link of a page in a [`Mailbox`].
pub(crate) struct MailLink(AtomicUsize);

impl MailLink {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> MailLink {
        MailLink(AtomicUsize::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> MailLink {
        MailLink(AtomicUsize::new(0))
    }

    /// Address of the page behind this one in a list that was taken, or 0.
    ///
    /// Must be read before the page's [`RemoteFrees`] are taken: from then on another thread may post it again.
    #[inline]
    pub(crate) fn next(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Mailbox {
    /// The mailbox of a heap that has an owner.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Mailbox {
        Mailbox(AtomicUsize::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Mailbox {
        Mailbox(AtomicUsize::new(0))
    }

    /// Posts the page at address `page`, whose link is `link`. Returns whether the heap has no owner.
    pub(crate) fn post(&self, page: usize, link: &MailLink) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            link.0.store(word & !OWNERLESS, Ordering::Relaxed);
            let new = page | (word & OWNERLESS);
            // Release: the link, and the page's state, come before whoever takes the list.
            match self.0.compare_exchange_weak(word, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return word & OWNERLESS != 0,
                Err(now) => word = now,
            }
        }
    }

    /// Whether there is something to take, without taking it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !OWNERLESS == 0
    }

    /// Takes all pages: the address of the first, or 0. Only for the owner.
    #[inline]
    pub(crate) fn take(&self) -> usize {
        if self.is_empty() { 0 } else { self.0.swap(0, Ordering::Acquire) }
    }

    /// Takes all pages and leaves the ownership as it is: for a visitor, whom the heap's gate keeps apart from the owner.
    pub(crate) fn take_as_visitor(&self) -> usize {
        self.0.fetch_and(OWNERLESS, Ordering::Acquire) & !OWNERLESS
    }

    /// Gives up ownership. Fails if a page has arrived meanwhile: the owner takes it and tries again.
    pub(crate) fn try_abandon(&self) -> bool {
        // Release: the owner's plain fields come before the next owner's use of them. Later posts are read-modify-
        // writes and so continue this release sequence.
        self.0.compare_exchange(0, OWNERLESS, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Becomes the owner if there is none. Returns the pages that were posted meanwhile, as [`take`](Self::take) does.
    pub(crate) fn try_claim(&self) -> Option<usize> {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & OWNERLESS != 0 {
            match self.0.compare_exchange_weak(word, 0, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(word & !OWNERLESS),
                Err(now) => word = now,
            }
        }
        None
    }
}

/// Balance of a chunk between its arena and the threads that free its blocks from elsewhere.
///
/// While the arena is open the word holds minus the number of remote frees; the arena itself counts in a plain field.
/// Closing adds the plain count. From then on the word is the number of live blocks, so exactly one call sees it become
/// 0: the close itself, or the last remote free. While the arena is open no remote free can see 0, because it starts
/// from at most 0 and subtracts.
pub(crate) struct LiveCount(AtomicIsize);

impl LiveCount {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> LiveCount {
        LiveCount(AtomicIsize::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> LiveCount {
        LiveCount(AtomicIsize::new(0))
    }

    /// Counts a free by a thread that does not have the arena entered. Returns whether the caller must recycle the chunk.
    #[inline]
    pub(crate) fn free_remote(&self) -> bool {
        // Release for the earlier frees, Acquire for the last one, which goes on to reuse the memory.
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Ends the arena's use of the chunk, in which by its own count `live` blocks remain. Returns the number of blocks
    /// that really remain; if it is 0 the caller must recycle the chunk.
    ///
    /// With `live == 0` nothing is outstanding and no other thread can know the chunk, so no atomic write is needed.
    #[inline]
    pub(crate) fn close(&self, live: u32) -> usize {
        if live == 0 {
            return 0;
        }
        let live = live as isize;
        let remaining = self.0.fetch_add(live, Ordering::AcqRel) + live;
        // Below 0 more blocks were freed than allocated: the program is wrong, and keeping the chunk is the safe end.
        remaining.unsigned_abs()
    }

    /// Makes the chunk ready for its next arena. Only for whoever recycles it.
    #[inline]
    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The raw balance. Together with the arena's count it tells how many blocks live; if none does, everything that was
    /// done with them comes before what the caller does next.
    pub(crate) fn balance(&self) -> isize {
        self.0.load(Ordering::Acquire)
    }
}
