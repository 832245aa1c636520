//! Blocks aligned to more than an OS page: against the shadow, on several threads, with wrong layouts, in place and moved.

use std::alloc::GlobalAlloc;
use std::sync::mpsc;
use std::thread;

use common::{Block, Live, Rng, alone, layout};
use shockwave_alloc::{Shockwave, Stats, stats, with_request_arena};

mod common;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const KIB: usize = 1 << 10;

/// A size of 1 B to 2 MiB, small ones as often as big ones; some are multiples of an alignment, or nearly so.
fn size(rng: &mut Rng) -> usize {
    let low = KIB << rng.below(11);
    match rng.below(8) {
        0 => low + 1 - rng.below(2),
        1 => 1 + rng.below(KIB),
        _ => low + 1 + rng.below(low),
    }
}

/// An alignment of 8 KiB to 1 MiB, mostly one that shares runs of pages.
fn align(rng: &mut Rng) -> usize {
    (8 * KIB) << if rng.below(4) == 0 { rng.below(8) } else { rng.below(3) }
}

fn bigger(stats: &Stats) -> (u64, u64, u64, u64) {
    (stats.mid.blocks, stats.mid.bytes, stats.large.blocks, stats.large.bytes)
}

#[test]
fn random_blocks_are_aligned_and_keep_their_contents() {
    let _alone = alone();
    let before = stats();
    for seed in 0..6 {
        let mut rng = Rng(seed);
        let mut live = Live::new(&GLOBAL, 150);
        for _ in 0..1500 {
            let room = live.has_room(1);
            match (rng.below(6), live.blocks().get(rng.below(150)).copied()) {
                (0, _) if room => _ = live.alloc_zeroed(size(&mut rng), align(&mut rng)),
                (1, _) if room => {
                    _ = with_request_arena(|| live.alloc(size(&mut rng), align(&mut rng)));
                }
                (2, Some(block)) => _ = live.realloc(block, size(&mut rng)),
                (3, Some(block)) => {
                    let size = block.layout.size();
                    _ = live.realloc(block, [size / 2 + 1, size + KIB, size + 9 * KIB][rng.below(3)]);
                }
                (4, Some(block)) => live.free(block),
                _ if room => _ = live.alloc(size(&mut rng), align(&mut rng)),
                _ => live.free(live.blocks()[rng.below(150)]),
            }
        }
        live.check();
        live.free_all(seed % 2 == 0);
    }
    assert_eq!(bigger(&stats()), bigger(&before), "everything was freed");
}

#[test]
fn threads_free_the_blocks_of_others() {
    let _alone = alone();
    let before = stats();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel::<Block>()).unzip();
    let threads: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(thread, received)| {
            let next = senders[(thread + 1) % senders.len()].clone();
            thread::spawn(move || {
                let mut rng = Rng(thread as u64);
                let mut live = Live::new(&GLOBAL, 1600);
                for _ in 0..500 {
                    let block = live.alloc(1 + rng.below(100 * KIB), (8 * KIB) << rng.below(3));
                    if rng.below(2) == 0 {
                        let given = live.take(block);
                        next.send(given).expect("the next thread takes all");
                    }
                    received.try_iter().for_each(|block| live.adopt(block));
                    while live.blocks().len() > 40 {
                        live.free(live.blocks()[rng.below(live.blocks().len())]);
                    }
                }
                drop(next);
                live.free_all(true);
                received
            })
        })
        .collect();
    drop(senders);
    let ends: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    let mut rest = Live::new(&GLOBAL, 1600);
    ends.iter().flat_map(|end| end.try_iter()).for_each(|block| rest.adopt(block));
    rest.free_all(false);
    drop((rest, ends));
    assert_eq!(bigger(&stats()), bigger(&before));
}

#[test]
fn the_size_of_a_block_does_not_come_from_the_caller() {
    let _alone = alone();
    let before = stats();
    let claimed =
        [layout(1, 1), layout(20 * KIB, 8 * KIB), layout(100 * KIB, 64 * KIB), layout(3 << 20, 8 * KIB)];
    let mut rng = Rng(1);
    let mut live = Live::new(&GLOBAL, 100);
    for round in 0..600 {
        let block = live.alloc(1 + rng.below(100 * KIB), (8 * KIB) << rng.below(3));
        if round % 3 == 0 && block.layout.size() > 16 * KIB {
            live.free_as(block, claimed[rng.below(claimed.len())]);
        }
        if live.blocks().len() > 80 {
            live.free(live.blocks()[rng.below(80)]);
        }
        live.check();
    }
    live.free_all(true);
    assert_eq!(bigger(&stats()), bigger(&before));
}

#[test]
fn a_block_keeps_its_place_where_it_can_and_moves_where_it_takes_less() {
    let _alone = alone();
    let before = stats();
    let counts = || (stats().mid.blocks - before.mid.blocks, stats().large.blocks - before.large.blocks);
    let mut live = Live::new(&GLOBAL, 2);
    let block = live.alloc(20 * KIB, 8 * KIB);
    // Another one behind it, on a multiple of the alignment.
    let behind = live.alloc(20 * KIB, 8 * KIB);
    assert_eq!((behind.addr() - block.addr(), counts()), (24 * KIB, (2, 0)));
    let grown = live.realloc(block, 23 * KIB);
    assert_eq!(grown.addr(), block.addr(), "up to the next one");
    let shrunk = live.realloc(grown, 17 * KIB);
    assert_eq!(shrunk.addr(), block.addr());
    live.free(behind);
    let grown = live.realloc(shrunk, 90 * KIB);
    assert_eq!((grown.addr(), counts()), (block.addr(), (1, 0)), "over the place of a freed one");
    let large = live.realloc(grown, 900 * KIB);
    assert_eq!(counts(), (0, 1));
    let grown = live.realloc(large, 901 * KIB);
    assert_eq!((grown.addr(), counts()), (large.addr(), (0, 1)), "it stays in its run while it grows");
    let shrunk = live.realloc(grown, 40 * KIB);
    assert_eq!(counts(), (1, 0), "40 KiB take 48 instead of 64");
    live.free(shrunk);
    // A multiple of 64 KiB has no room for a tag behind it.
    let full = live.alloc(64 * KIB, 8 * KIB);
    assert_eq!(counts(), (0, 1));
    live.free(full);
    assert_eq!(bigger(&stats()), bigger(&before));
}

#[test]
fn zeroed_blocks_are_zero_where_others_were() {
    let _alone = alone();
    // SAFETY: the block is used with its layout.
    unsafe {
        let layout = layout(20 * KIB, 16 * KIB);
        let zeroed = GLOBAL.alloc_zeroed(layout);
        assert!(common::is_zero(zeroed, layout.size()));
        zeroed.write_bytes(0xEE, layout.size());
        GLOBAL.dealloc(zeroed, layout);
        let again = GLOBAL.alloc_zeroed(layout);
        assert!(common::is_zero(again, layout.size()), "the heap's tags and what was there before are gone");
        GLOBAL.dealloc(again, layout);
    }
}
