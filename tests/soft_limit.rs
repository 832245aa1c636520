//! A soft limit counts everything that the arena's scopes allocate, wherever that goes.

use std::hint::black_box;

use shockwave_alloc::{RequestArena, Shockwave, stats, with_request_arena};

use common::alone;

mod common;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const LIMIT: usize = 1 << 20;

/// Whether an arena notices `LIMIT` bytes in blocks of `size`, after not noticing half of that.
fn notices(size: usize) -> bool {
    let arena = RequestArena::builder().soft_limit(LIMIT).build();
    // The vectors themselves take some.
    let half = LIMIT / (size + 64) / 2;
    let blocks: Vec<Vec<u8>> = arena.run(|| (0..half - 1).map(|_| black_box(vec![1; size])).collect());
    assert!(!arena.over_limit(), "{} blocks of {size} B are not over it", blocks.len());
    let more: Vec<Vec<u8>> = arena.run(|| (0..half * 2).map(|_| black_box(vec![2; size])).collect());
    assert!(blocks.iter().flatten().all(|&byte| byte == 1) && more.iter().flatten().all(|&byte| byte == 2));
    arena.over_limit()
}

#[test]
fn blocks_of_every_size_reach_it() {
    let _alone = alone();
    for size in [200, 1000, 2500, 5000, 10_000, 16_000, 20_000, 100_000] {
        assert!(notices(size), "blocks of {size} B");
    }
}

#[test]
fn blocks_that_grow_reach_it_too() {
    let _alone = alone();
    for size in [1_500, 3_000, 10_000, 16_000] {
        let arena = RequestArena::builder().soft_limit(LIMIT).build();
        let grown = |count: usize| -> Vec<Vec<u8>> {
            let grow = |_| {
                let mut block: Vec<u8> = Vec::with_capacity(8);
                while block.capacity() < size {
                    let more = (block.capacity() * 2).min(size);
                    block.reserve_exact(more);
                }
                black_box(block)
            };
            arena.run(|| (0..count).map(grow).collect())
        };
        let some = grown(LIMIT / size / 3);
        assert!(!arena.over_limit(), "{} blocks of {size} B are not over it: {arena:?}", some.len());
        let more = grown(LIMIT / size);
        assert!(arena.over_limit(), "{} blocks of {size} B: {arena:?}", some.len() + more.len());
    }
}

/// Leaves survivors of every size, each in a chunk with much else, until new arenas place nothing in chunks.
fn survivors() -> Vec<Vec<u8>> {
    let mut kept = Vec::new();
    for round in 0..20_000usize {
        // Of the kind of those that are asked.
        RequestArena::new().run(|| {
            let size = 8 + round * 40 % 9000;
            kept.push(black_box(vec![3u8; size]));
            black_box(vec![4u8; 9000]);
        });
        if chunks_of_an_arena() == 0 {
            return kept;
        }
    }
    panic!("{}", stats());
}

/// How many chunks a new arena takes for a block of a size that never survives.
fn chunks_of_an_arena() -> u64 {
    let arena = RequestArena::new();
    arena.run(|| black_box(vec![5u8; 24]));
    arena.stats().chunks
}

#[test]
fn arenas_are_used_again_at_once_when_the_survivors_are_gone() {
    let _alone = alone();
    let mut kept = survivors();
    let inside = kept.split_off(kept.len() / 2);
    drop(kept);
    with_request_arena(|| drop(inside));
    assert_eq!(chunks_of_an_arena(), 1, "{}", stats());
}

#[test]
fn it_is_reached_when_new_arenas_are_diverted() {
    let _alone = alone();
    let _kept = survivors();
    // Where freed blocks are overwritten they stay inside all the same, or they would not be.
    for size in [24, 300, 9000] {
        let arena = RequestArena::builder().zero_freed(true).build();
        let inside = arena.run(|| black_box(vec![6u8; size]));
        assert_eq!(arena.stats().blocks, 1, "{size} B: {arena:?}");
        assert_eq!(inside.len(), size);
    }
    for size in [200, 5000, 20_000] {
        assert!(notices(size), "blocks of {size} B, with {}", stats());
    }
}
