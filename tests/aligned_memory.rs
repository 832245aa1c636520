//! What blocks aligned to more than an OS page take, and that it comes back. Counted from the beginning of the process.

use std::alloc::GlobalAlloc;
use std::hint::black_box;

use common::layout;
use shockwave_alloc::{Shockwave, purge, stats};

mod common;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const KIB: usize = 1 << 10;
const MIB: u64 = 1 << 20;
const BLOCKS: usize = 1000;

// One test: memory that another one has used before would be in the way.
#[test]
fn aligned_blocks_share_runs_of_pages_and_give_them_back() {
    // Size, alignment, and the most that 1,000 take: up to a multiple of the alignment, and some MiB committed ahead.
    for (size, align, most) in [(8 * KIB, 8 * KIB, 12 * MIB), (20 * KIB, 8 * KIB, 28 * MIB)] {
        let before = stats();
        let layout = layout(size, align);
        let mut blocks = Vec::with_capacity(BLOCKS);
        for _ in 0..BLOCKS {
            // SAFETY: the size is not zero, the block has it.
            unsafe {
                let block = GLOBAL.alloc(layout);
                block.write_bytes(1, size);
                blocks.push(block);
            }
        }
        let live = stats();
        let taken = live.committed_bytes - before.committed_bytes;
        assert!(taken <= most, "{taken} B for {BLOCKS} blocks of {size} B aligned to {align}");
        // SAFETY: the blocks are live and have this layout.
        blocks.drain(..).for_each(|block| unsafe { GLOBAL.dealloc(block, layout) });
        let freed = purge();
        assert!(freed >= BLOCKS * size, "{freed} B came back");
        let after = stats();
        assert_eq!((after.dirty_bytes, after.mid, after.large), (0, before.mid, before.large));
        // All of it serves anything.
        black_box(vec![1u8; BLOCKS * size]);
        assert_eq!(stats().committed_bytes, live.committed_bytes);
        purge();
    }
}
