//! Collects [`Stats`] from where they are counted.

use crate::header::{Kind, PageHeader};
use crate::space::{self, PAGE_SIZE};
use crate::stats::{Stats, UNATTACHED, Usage};
use crate::sync::Ordering;
use crate::{aligned, chunk, heap, large, mid, scavenge, size_class, startup, thread};

/// A snapshot of the allocator: what memory there is, who uses it and how much went through.
///
/// Walks the headers of all pages, one per 64 KiB: some 10 µs for each 100 MiB. Does not allocate.
///
/// ```
/// let stats = shockwave_alloc::stats();
/// println!("{stats}");
/// ```
pub fn stats() -> Stats {
    thread::current().sync_entered();
    let mut stats = Stats { mode: startup::mode(), ..Stats::default() };
    stats.resident_bytes = space::resident_bytes() as u64;
    let counters = heap::all().map(|heap| &heap.counters).chain(core::iter::once(&UNATTACHED));
    let (mut allocs, mut frees, mut backing_bytes, mut opened) = (0, 0, 0u64, 0);
    for counters in counters {
        allocs += counters.backing_allocs.get();
        frees += counters.backing_frees.get();
        stats.backing_calls += counters.backing_reallocs.get() + counters.backing_refusals.get();
        backing_bytes = backing_bytes.wrapping_add(counters.backing_bytes.get());
        stats.fallbacks += counters.fallbacks.get();
        stats.slabs += counters.slabs.get();
        opened += counters.arenas_opened.get();
        stats.arenas_closed += counters.arenas_closed.get();
        stats.arena_bytes += counters.arena_bytes.get();
        stats.escaped_blocks += counters.escaped_blocks.get();
        stats.bypassed_blocks += counters.bypassed_blocks.get();
        stats.bypassed_bytes += counters.bypassed_bytes.get();
        stats.pretenured_blocks += counters.outside_blocks.get();
        stats.pretenured_bytes += counters.outside_bytes.get();
        stats.layout_mismatches += counters.mismatches.get();
        stats.open_arenas += counters.arenas_released.get();
    }
    stats.open_arenas = opened.saturating_sub(stats.open_arenas);
    stats.backing_calls += allocs + frees;
    // Read while others count, the sums may be off by what is under way, below zero too.
    stats.backing = usage((backing_bytes as i64).max(0) as u64, u64::saturating_sub(allocs, frees));
    stats.heaps = heap::all().count() as u64;
    if !startup::has_reservation() {
        return stats;
    }
    let (reserved, committed) = space::extent();
    stats.reserved_bytes = reserved as u64;
    stats.committed_bytes = committed as u64;
    stats.dirty_bytes = space::dirty_bytes() as u64;
    let (calls, bytes) = space::purged();
    (stats.purges, stats.purged_bytes) = (calls as u64, bytes as u64);
    // Each thread counts what it allocates and frees: as above.
    let mid =
        [aligned::usage(), mid::usage_uncached()].into_iter().chain(heap::all().map(|heap| heap.mid.usage()));
    let (blocks, bytes) =
        mid.fold((0u64, 0u64), |sum, more| (sum.0.wrapping_add(more.0), sum.1.wrapping_add(more.1)));
    stats.mid = usage((bytes as i64).max(0) as u64, (blocks as i64).max(0) as u64);
    let (blocks, bytes) = large::usage();
    stats.large = usage(bytes, blocks);
    space::visit_runs(|header, _| visit(&mut stats, header));
    // What is in bins counts as live for its pages.
    for (class, blocks) in heap::all().flat_map(heap::Heap::binned) {
        stats.slab.blocks = stats.slab.blocks.saturating_sub(blocks);
        let bytes = blocks * size_class::size_of_class(class) as u64;
        stats.slab.bytes = stats.slab.bytes.saturating_sub(bytes);
    }
    stats
}

/// Returns memory that nobody uses to the OS now: free pages, what threads keep for later, those asleep included, free
/// memory between blocks of 16 KiB to 1 MiB (but not between those aligned to more than 4 KiB), and whole OS pages inside slab pages with
/// few live blocks. Of other threads it does not reach the few free blocks of each size that they have ready for their next allocations, and
/// what they have freed of others' blocks and not handed over.
///
/// Returns the number of bytes given back, 0 where there is nothing or the OS does not take it. What a thread keeps that is in the
/// allocator at this moment is left out.
///
/// ```
/// drop(vec![1u8; 8 << 20]);
/// shockwave_alloc::purge();
/// ```
pub fn purge() -> usize {
    thread::current().release_kept();
    scavenge::everything()
}

/// For a thread that is about to wait: sends the blocks of other threads that it has freed and not handed over yet, and, if it is time,
/// returns memory that was not needed lately. If there is nothing to do it looks at 64 words and the clock.
///
/// For tokio's workers, with a runtime built by hand:
///
/// ```
/// let runtime = tokio::runtime::Builder::new_multi_thread()
///     .on_thread_park(shockwave_alloc::on_thread_park)
///     .build()?;
/// # runtime.block_on(async {});
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn on_thread_park() {
    let thread = thread::current();
    thread.send_frees();
    if startup::has_reservation() {
        thread.by_the_way(thread.attached());
    }
}

fn visit(stats: &mut Stats, header: &PageHeader) {
    match header.kind() {
        Kind::Slab => {
            let size = u64::from(header.block_size.load(Ordering::Relaxed));
            let waiting = u64::from(header.remote.frees.count());
            let blocks = u64::from(header.used()).saturating_sub(waiting);
            let holes = 4096 * u64::from(header.holes.load(Ordering::Relaxed).count_ones());
            let carved = u64::from(header.carved.load(Ordering::Relaxed)).next_multiple_of(4096);
            stats.hole_bytes += holes;
            stats.slab_active_bytes += carved.saturating_sub(holes);
            stats.slab_pages += 1;
            stats.slab.blocks += blocks;
            stats.slab.bytes += blocks * size;
        }
        Kind::Chunk => {
            let blocks = chunk::live_blocks(header);
            let closed = header.current.load(Ordering::Relaxed) == 0;
            if blocks > 0 {
                stats.arena.blocks += blocks;
                stats.arena.bytes += u64::from(header.carved.load(Ordering::Relaxed));
            }
            if closed && blocks > 0 {
                stats.pinned_chunks += 1;
                stats.pinned_bytes += PAGE_SIZE as u64;
            }
        }
        Kind::Spare if header.light.get() => {
            stats.spare_bytes += u64::from(header.carved.load(Ordering::Relaxed)).next_multiple_of(4096);
        }
        Kind::Spare => stats.spare_bytes += PAGE_SIZE as u64,
        Kind::Free | Kind::Mid | Kind::Aligned | Kind::Large | Kind::Meta => {}
    }
}

fn usage(bytes: u64, blocks: u64) -> Usage {
    Usage { bytes, blocks }
}
