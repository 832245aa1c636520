//! What a request allocates in the slab and what is allocated for longer are in different pages.

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::collections::HashSet;
use std::hint::black_box;

use common::alone;
use shockwave_alloc::{RequestArena, Shockwave, outside_arena, with_request_arena};

mod common;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// So many open arenas, each with a chunk, are a crowd.
const CROWD: usize = 2000;

/// Blocks that are made of each kind.
const BLOCKS: usize = 500;

/// The page of 64 KiB that a block is in.
fn page_of(block: *const u8) -> usize {
    block.addr() >> 16
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// A block, or the test ends.
fn block(size: usize) -> *mut u8 {
    // SAFETY: no size here is 0.
    let block = unsafe { alloc(layout(size)) };
    assert!(!block.is_null());
    black_box(block)
}

fn free(block: *mut u8, size: usize) {
    // SAFETY: blocks are freed once, with the size they have.
    unsafe { dealloc(block, layout(size)) };
}

fn pages(blocks: &[*mut u8]) -> HashSet<usize> {
    blocks.iter().map(|block| page_of(*block)).collect()
}

/// Runs `f` while so many arenas are open that another one leaves everything to the slab.
fn in_a_crowd(f: impl FnOnce(&RequestArena)) {
    let crowd: Vec<_> = (0..CROWD)
        .map(|_| {
            let arena = RequestArena::new();
            let block = arena.run(|| black_box(Box::new([1u8; 300])));
            (arena, block)
        })
        .collect();
    let arena = RequestArena::new();
    f(&arena);
    assert_eq!(arena.stats().chunks, 0, "it was to have none");
    for (arena, block) in crowd {
        arena.run(|| drop(block));
    }
}

#[test]
fn blocks_of_requests_in_a_crowd_share_no_page_with_what_is_made_outside() {
    let _alone = alone();
    in_a_crowd(|arena| {
        for size in [40, 400, 1500, 9000] {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            // Twice, so that blocks that were freed are used again.
            for round in 0..2 {
                for _ in 0..BLOCKS {
                    arena.run(|| {
                        short.push(block(size));
                        long.push(outside_arena(|| block(size)));
                    });
                    long.push(block(size));
                }
                assert!(pages(&short).is_disjoint(&pages(&long)), "{size} B, round {round}");
                short
                    .split_off(if round == 0 { BLOCKS / 2 } else { 0 })
                    .into_iter()
                    .for_each(|block| free(block, size));
                long.split_off(if round == 0 { BLOCKS } else { 0 })
                    .into_iter()
                    .for_each(|block| free(block, size));
            }
        }
    });
}

#[test]
fn where_blocks_escape_nobody_knows_how_long_the_others_live() {
    let _alone = alone();
    let some_escape =
        |blocks: usize| with_request_arena(|| (0..blocks).map(|_| block(600)).collect::<Vec<_>>());
    let escaped = some_escape(1);
    in_a_crowd(|_| {
        // Made outside, and every second one freed: there is room in each of their pages, and none is empty.
        let mut long: Vec<_> = (0..2 * BLOCKS).map(|_| block(600)).collect();
        let there = pages(&long);
        let freed: Vec<_> = long.iter().copied().step_by(2).collect();
        long = long.into_iter().skip(1).step_by(2).collect();
        freed.into_iter().for_each(|block| free(block, 600));
        let blocks = some_escape(BLOCKS / 2);
        assert!(pages(&blocks).is_subset(&there));
        [long, blocks].into_iter().flatten().for_each(|block| free(block, 600));
    });
    escaped.into_iter().for_each(|block| free(block, 600));
}

#[test]
fn a_block_that_grows_stays_with_its_like() {
    let _alone = alone();
    let grow = |old: *mut u8, from: usize, to: usize| {
        // SAFETY: the block has that size and is not used afterwards.
        let new = unsafe { realloc(old, layout(from), to) };
        assert!(!new.is_null());
        new
    };
    in_a_crowd(|arena| {
        let long: Vec<_> = (0..BLOCKS).map(|_| block(700)).collect();
        let short: Vec<_> = arena.run(|| (0..BLOCKS).map(|_| block(700)).collect());
        let (long_pages, short_pages) = (pages(&long), pages(&short));
        let outside: Vec<_> = (0..BLOCKS).map(|_| block(200)).collect();
        let inside: Vec<_> = arena.run(|| (0..BLOCKS).map(|_| block(200)).collect());
        // One of each frees its place for the one that comes.
        let arrive = |grown: &[*mut u8], there: &[*mut u8]| {
            arena.run(|| {
                let mut arrived = Vec::new();
                for (grown, there) in grown.iter().zip(there) {
                    free(*there, 700);
                    arrived.push(grow(*grown, 200, 700));
                }
                arrived
            })
        };
        let (from_outside, from_inside) = (arrive(&outside, &long), arrive(&inside, &short));
        assert!(pages(&from_outside).is_subset(&long_pages), "what was there before the request");
        assert!(pages(&from_inside).is_subset(&short_pages), "what the request has made");
        from_outside.into_iter().chain(from_inside).for_each(|block| free(block, 700));
    });
}

#[test]
fn what_outgrows_an_arena_shares_no_page_with_what_is_made_outside() {
    let _alone = alone();
    let arena = RequestArena::new();
    let mut long = Vec::new();
    let grown: Vec<_> = (0..BLOCKS)
        .map(|_| {
            long.push(block(3000));
            arena.run(|| {
                let mut buffer = Vec::<u8>::with_capacity(900);
                buffer.resize(900, 1);
                buffer.reserve_exact(2100);
                assert!(buffer.iter().all(|byte| *byte == 1));
                black_box(buffer)
            })
        })
        .collect();
    let places: Vec<_> = grown.iter().map(|buffer| buffer.as_ptr().cast_mut()).collect();
    // Some grew where they were; the others fill pages of 64 KiB.
    assert!(pages(&places).len() > BLOCKS / 2 * 2100 / (64 << 10), "{}", pages(&places).len());
    assert!(pages(&places).is_disjoint(&pages(&long)));
    long.into_iter().for_each(|block| free(block, 3000));
    arena.run(|| drop(grown));
}
