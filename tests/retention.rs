//! What is kept for the next request follows what requests need.

mod common;

use std::hint::black_box;

use common::alone;
use shockwave_alloc::{RequestArena, Shockwave, current_arena_stats, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const CHUNK: u64 = 64 << 10;

/// A request that needs `kib` KiB at once.
fn request(kib: usize) {
    with_request_arena(|| {
        let blocks: Vec<Vec<u8>> = (0..kib).map(|number| black_box(vec![number as u8; 1000])).collect();
        assert!(blocks.iter().enumerate().all(|(number, block)| block[999] == number as u8));
        let held = current_arena_stats().expect("in an arena").peak_bytes;
        assert!(held >= kib as u64 * 1000, "{kib} KiB: {held} bytes");
    });
}

#[test]
fn an_arena_that_once_needed_much_does_not_keep_it() {
    let _alone = alone();
    request(10 << 10);
    let after = stats();
    // The main thread and that of the other test have the rest of a slab of four pages, too.
    assert!(after.spare_bytes <= (32 + 2 * 3) * CHUNK, "the cap of a thread: {}", after.spare_bytes);
    assert!(after.dirty_bytes <= 32 << 20, "the cap of the process: {}", after.dirty_bytes);

    // A handle keeps one chunk, whatever it has needed.
    let mut arena = RequestArena::new();
    arena.run(|| drop(black_box((0..10_000).map(|_| vec![1u8; 1000]).collect::<Vec<_>>())));
    assert!(arena.stats().peak_bytes >= 9_000_000, "{arena:?}");
    arena.reset();
    assert_eq!(arena.stats().chunks, 1);

    // Requests of three chunks: what they do not need goes, what they need stays.
    for _ in 0..1_000 {
        request(150);
    }
    let settled = stats();
    assert!(settled.spare_bytes <= 8 * CHUNK, "{} bytes", settled.spare_bytes);
    for _ in 0..1_000 {
        request(150);
    }
    assert_eq!(stats().slabs, settled.slabs, "the steady state takes nothing from the space");
}

/// Pages that were full are used again when a part of their blocks is free, not only when nearly all of it is.
#[test]
fn blocks_freed_in_full_pages_are_used_again() {
    let _alone = alone();
    std::thread::spawn(|| {
        let block = |number: usize| black_box(vec![number as u8; 500].into_boxed_slice());
        let mut blocks: Vec<Box<[u8]>> = (0..20_000).map(block).collect();
        let full = stats().slab_pages;
        for round in 0..5 {
            // Every third, of all pages.
            for index in (round % 3..blocks.len()).step_by(3) {
                blocks[index] = Box::default();
            }
            for index in (round % 3..blocks.len()).step_by(3) {
                blocks[index] = block(index);
            }
            let now = stats().slab_pages;
            assert!(now <= full + full / 8 + 8, "round {round}: {full} pages, then {now}");
        }
        assert!(
            blocks.iter().enumerate().all(|(number, block)| block.iter().all(|byte| *byte == number as u8))
        );
    })
    .join()
    .expect("the blocks");
}
