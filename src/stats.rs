//! What memory is there, who uses it and how much went through.

use core::fmt;

use crate::config::Mode;
use crate::sync::{AtomicU64, Ordering};

/// A counter of one heap: written by its owner with plain stores, read by anyone.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Only for the owner of the heap.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// For counters that several threads write.
    pub(crate) fn add_shared(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one heap. Sums over all heaps are exact once their owners are at rest.
pub(crate) struct Counters {
    pub backing_allocs: Counter,
    pub backing_frees: Counter,
    pub backing_reallocs: Counter,
    pub backing_refusals: Counter,
    /// Allocated less freed, wrapping: a block may be freed by a thread other than the one that allocated it.
    pub backing_bytes: Counter,
    pub fallbacks: Counter,
    pub slabs: Counter,
    pub arenas_opened: Counter,
    pub arenas_released: Counter,
    pub arenas_closed: Counter,
    pub arena_bytes: Counter,
    /// Allocations in arenas that are closed.
    pub arena_allocs: Counter,
    pub bypassed_blocks: Counter,
    pub bypassed_bytes: Counter,
    pub outside_blocks: Counter,
    pub outside_bytes: Counter,
    pub escaped_blocks: Counter,
    pub mismatches: Counter,
    /// Pages that became chunks of arenas, and chunks that arenas gave up.
    pub chunks_taken: Counter,
    pub chunks_left: Counter,
    /// Bytes, escaped and bypassed blocks and allocations that the trace has reported.
    traced: [Counter; 4],
}

impl Counters {
    pub(crate) const fn new() -> Counters {
        Counters {
            backing_allocs: Counter::new(),
            backing_frees: Counter::new(),
            backing_reallocs: Counter::new(),
            backing_refusals: Counter::new(),
            backing_bytes: Counter::new(),
            fallbacks: Counter::new(),
            slabs: Counter::new(),
            arenas_opened: Counter::new(),
            arenas_released: Counter::new(),
            arenas_closed: Counter::new(),
            arena_bytes: Counter::new(),
            arena_allocs: Counter::new(),
            bypassed_blocks: Counter::new(),
            bypassed_bytes: Counter::new(),
            outside_blocks: Counter::new(),
            outside_bytes: Counter::new(),
            escaped_blocks: Counter::new(),
            mismatches: Counter::new(),
            chunks_taken: Counter::new(),
            chunks_left: Counter::new(),
            traced: [const { Counter::new() }; 4],
        }
    }
}

/// Counters of threads that have no heap.
pub(crate) static UNATTACHED: Counters = Counters::new();

/// What closing an arena found.
#[derive(Clone, Copy, Default)]
pub(crate) struct Closed {
    /// Bytes bumped through.
    pub bytes: u64,
    /// Blocks that are still alive.
    pub escaped: u64,
    /// Chunks that the arena does not keep.
    pub left: u64,
}

/// One call to the backing allocator, with sizes in bytes.
#[derive(Clone, Copy)]
pub(crate) enum Traffic {
    Alloc(usize),
    Free(usize),
    /// Old and new size.
    Realloc(usize, usize),
    /// There was no memory.
    Refused,
}

impl Counters {
    /// Counts a call to the backing allocator, with [`Counter::add`] or [`Counter::add_shared`].
    #[inline]
    pub(crate) fn backing(&self, traffic: Traffic, add: impl Fn(&Counter, u64)) {
        match traffic {
            Traffic::Alloc(size) => {
                add(&self.backing_allocs, 1);
                add(&self.backing_bytes, size as u64);
            }
            Traffic::Free(size) => {
                add(&self.backing_frees, 1);
                add(&self.backing_bytes, (size as u64).wrapping_neg());
            }
            Traffic::Realloc(old, new) => {
                add(&self.backing_reallocs, 1);
                add(&self.backing_bytes, (new as u64).wrapping_sub(old as u64));
            }
            Traffic::Refused => add(&self.backing_refusals, 1),
        }
    }
}

impl Counters {
    /// What was added to bytes, escaped and bypassed blocks and allocations since the last call. Only for the owner of the heap.
    pub(crate) fn since_trace(&self) -> [u64; 4] {
        let now = [
            self.arena_bytes.get(),
            self.escaped_blocks.get(),
            self.bypassed_blocks.get(),
            self.arena_allocs.get(),
        ];
        core::array::from_fn(|index| {
            let before = self.traced[index].get();
            self.traced[index].add(now[index].wrapping_sub(before));
            now[index].wrapping_sub(before)
        })
    }

    /// Counts an arena that was closed, with what bypassed it and what was placed outside: blocks and bytes.
    pub(crate) fn arena(
        &self,
        closed: Closed,
        bypassed: (u64, u64),
        outside: (u64, u64),
        add: impl Fn(&Counter, u64),
    ) {
        add(&self.outside_blocks, outside.0);
        add(&self.outside_bytes, outside.1);
        add(&self.arenas_closed, 1);
        add(&self.arena_bytes, closed.bytes);
        add(&self.escaped_blocks, closed.escaped);
        add(&self.bypassed_blocks, bypassed.0);
        add(&self.bypassed_bytes, bypassed.1);
    }
}

/// Live memory of one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Usage {
    /// Bytes in use. Slab: whole blocks of the size class. Mid-size, large and backing: as requested. Arena: what the
    /// cursor has passed in chunks that still have live blocks.
    pub bytes: u64,
    /// Blocks in use.
    pub blocks: u64,
}

/// A snapshot of the allocator, made by [`stats`](crate::stats()).
///
/// Gauges describe the moment, counters grow from the start of the process. Values of running threads may be a few
/// operations old and are not cut at one instant. With feature `serde` this and the other statistics are `Serialize`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// The current mode.
    pub mode: Mode,
    /// Address space reserved, in bytes; it costs no memory. 0 if the OS refused.
    pub reserved_bytes: u64,
    /// Bytes of the reservation that may be written to, the allocator's own tables included. The OS has provided
    /// memory for those that were touched.
    pub committed_bytes: u64,
    /// Resident set of the whole process in bytes, as the OS counts it; 0 where that is not known.
    pub resident_bytes: u64,
    /// Live blocks in slab pages. Frees by other threads count once the chain they travel in has arrived.
    pub slab: Usage,
    /// Live blocks in chunks of open arenas that are not entered at the moment, and of closed ones (pinned).
    /// Blocks in the chunk a thread is bumping through count when it leaves the chunk.
    pub arena: Usage,
    /// Live blocks of 16 KiB to 1 MiB, and those of up to 128 KiB that share runs of pages because they are aligned to 8 to 32 KiB.
    pub mid: Usage,
    /// Live blocks above 1 MiB, and others aligned to more than 4 KiB that are not counted in `slab` or `mid`.
    pub large: Usage,
    /// Live blocks of the backing allocator.
    pub backing: Usage,
    /// Calls to the backing allocator: allocations, reallocations and frees.
    pub backing_calls: u64,
    /// Allocations that went to the backing allocator because there was no address space or the OS gave no memory.
    pub fallbacks: u64,
    /// Slabs (runs of pages) taken from the reservation so far.
    pub slabs: u64,
    /// Slab pages in use.
    pub slab_pages: u64,
    /// Bytes of slab pages that have been carved into blocks, used or free, less those given back to the OS since: what their blocks may
    /// have touched. The rest of a page is touched only if an earlier use of the page has.
    pub slab_active_bytes: u64,
    /// Empty pages that heaps keep for their next need, in bytes, and what was used of those that wait for a class of small blocks that
    /// begins.
    pub spare_bytes: u64,
    /// Free pages that the OS still provides memory for, in bytes. At most 32 MiB, an eighth of what was ever used and what it was
    /// wrong to give back of late are kept, and what is not needed for a while goes back ([`start_scavenger`](crate::start_scavenger)).
    pub dirty_bytes: u64,
    /// Bytes inside slab pages that were given back to the OS and have not been used again.
    pub hole_bytes: u64,
    /// System calls so far that gave memory back to the OS.
    pub purges: u64,
    /// Bytes given back so far.
    pub purged_bytes: u64,
    /// Arenas that exist at the moment and have been entered.
    pub open_arenas: u64,
    /// Arenas closed or reset so far.
    pub arenas_closed: u64,
    /// Bytes bumped through in arenas that are closed, so far.
    pub arena_bytes: u64,
    /// Blocks that were alive when their arena closed, so far.
    pub escaped_blocks: u64,
    /// Objects too big for an arena that were allocated inside one and went to the mid-size heap or their own run.
    pub bypassed_blocks: u64,
    /// Bytes of these.
    pub bypassed_bytes: u64,
    /// Small objects allocated in an arena's scope that were placed in the slab, because their size tends to escape.
    pub pretenured_blocks: u64,
    /// Bytes of these.
    pub pretenured_bytes: u64,
    /// Chunks that escaped blocks keep at the moment.
    pub pinned_chunks: u64,
    /// Bytes of these chunks.
    pub pinned_bytes: u64,
    /// Heaps: one for each thread that allocates, those of ended threads included until they are adopted.
    pub heaps: u64,
    /// Frees whose layout did not fit the block, found in debug builds.
    pub layout_mismatches: u64,
}

impl Stats {
    /// Share of the bytes in slab pages that live blocks occupy, from 0 to 1; 1 if there is no slab page.
    pub fn slab_utilization(&self) -> f64 {
        if self.slab_pages == 0 { 1.0 } else { self.slab.bytes as f64 / (self.slab_pages << 16) as f64 }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: u64| bytes.div_ceil(1024);
        writeln!(f, "mode {}", self.mode)?;
        writeln!(
            f,
            "memory: reserved {} KiB, committed {} KiB, resident (process) {} KiB, spare {} KiB, dirty {} KiB, {} KiB given back in {} calls",
            kib(self.reserved_bytes),
            kib(self.committed_bytes),
            kib(self.resident_bytes),
            kib(self.spare_bytes),
            kib(self.dirty_bytes),
            kib(self.purged_bytes),
            self.purges
        )?;
        for (name, usage) in [
            ("slab", self.slab),
            ("arena", self.arena),
            ("mid", self.mid),
            ("large", self.large),
            ("backing", self.backing),
        ] {
            writeln!(f, "live {name}: {} blocks, {} KiB", usage.blocks, kib(usage.bytes))?;
        }
        writeln!(
            f,
            "slabs: {} taken, {} pages in use, {:.0} % utilised, {} heaps",
            self.slabs,
            self.slab_pages,
            self.slab_utilization() * 100.0,
            self.heaps
        )?;
        writeln!(
            f,
            "arenas: {} open, {} closed, {} KiB bumped, {} blocks escaped, {} chunks pinned ({} KiB), {} blocks bypassed",
            self.open_arenas,
            self.arenas_closed,
            kib(self.arena_bytes),
            self.escaped_blocks,
            self.pinned_chunks,
            kib(self.pinned_bytes),
            self.bypassed_blocks
        )?;
        write!(f, "backing: {} calls, {} fallbacks", self.backing_calls, self.fallbacks)
    }
}
