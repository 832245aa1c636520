//! Mid-size blocks: threads that exchange them, wrong layouts, growing in place.

use std::alloc::GlobalAlloc;
use std::sync::mpsc;
use std::thread;

use common::{Block, Live, Rng, alone, layout};
use shockwave_alloc::{Shockwave, purge, stats};

mod common;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const KIB: usize = 1 << 10;

/// A size above 16 KiB up to 1 MiB, small ones as often as big ones.
fn mid_size(rng: &mut Rng) -> usize {
    let low = (16 * KIB) << rng.below(6);
    low + 1 + rng.below(low)
}

#[test]
fn threads_exchange_blocks() {
    let _alone = alone();
    let before = stats();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::channel::<Vec<Block>>()).unzip();
    let threads: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(thread, received)| {
            let next = senders[(thread + 1) % senders.len()].clone();
            thread::spawn(move || {
                let mut rng = Rng(thread as u64);
                let mut live = Live::new(&GLOBAL, 200);
                for _ in 0..60 {
                    for _ in 0..10 {
                        let size = mid_size(&mut rng);
                        // In place, or moved, within mid-size and out of it at both ends.
                        let block = live.alloc(size, 1 << rng.below(13));
                        let other = [size / 2, size + 4 * KIB, size * 2][rng.below(3)];
                        if rng.below(2) == 0 {
                            live.realloc(block, other);
                        }
                    }
                    let given: Vec<Block> = (0..5)
                        .map(|_| {
                            let block = live.blocks()[rng.below(live.blocks().len())];
                            live.take(block)
                        })
                        .collect();
                    let _ = next.send(given);
                    for block in received.try_iter().flatten() {
                        live.adopt(block);
                    }
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
    let ends: Vec<_> =
        threads.into_iter().map(|thread| thread.join().expect("no block was harmed")).collect();
    let mut rest = Live::new(&GLOBAL, 1000);
    ends.iter().flat_map(|end| end.try_iter()).flatten().for_each(|block| rest.adopt(block));
    rest.free_all(true);
    drop(rest);
    drop(ends);
    let after = stats();
    assert_eq!((after.mid, after.large), (before.mid, before.large));
}

#[test]
fn a_thread_that_only_frees_keeps_little() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, 300);
    for _ in 0..300 {
        live.alloc(100 * KIB, 8);
    }
    let blocks: Vec<Block> = (0..300).map(|_| live.take(live.blocks()[0])).collect();
    let (freed, wait) = (mpsc::channel(), mpsc::channel::<()>());
    let freeing = thread::spawn(move || {
        let mut live = Live::new(&GLOBAL, 300);
        blocks.into_iter().for_each(|block| live.adopt(block));
        live.free_all(true);
        freed.0.send(()).expect("the test waits");
        let _ = wait.1.recv();
    });
    freed.1.recv().expect("no panic");
    // Whole spans, and what lies between the blocks that the thread keeps.
    let before = stats().resident_bytes;
    purge();
    let returned = before.saturating_sub(stats().resident_bytes);
    assert!(returned >= 26 << 20, "{returned} of 29 MiB");
    drop(wait.0);
    freeing.join().expect("no panic");
}

#[test]
fn the_size_of_a_block_does_not_come_from_the_caller() {
    let _alone = alone();
    let before = stats();
    let claimed = [layout(1, 1), layout(17 * KIB, 8), layout(100 * KIB, 4 * KIB), layout(3 << 20, 8)];
    let mut rng = Rng(1);
    let mut live = Live::new(&GLOBAL, 100);
    for round in 0..400 {
        let size = mid_size(&mut rng);
        let block = live.alloc(size, 8);
        if round % 3 == 0 {
            live.free_as(block, claimed[round % claimed.len()]);
        }
        if live.blocks().len() > 80 {
            live.free(live.blocks()[rng.below(80)]);
        }
        live.check();
    }
    live.free_all(true);
    assert_eq!(stats().mid, before.mid);
}

#[test]
fn a_grown_block_keeps_its_place_if_the_units_behind_it_are_free() {
    let _alone = alone();
    purge();
    // SAFETY: the blocks are used with their layouts, and only once.
    unsafe {
        let block = GLOBAL.alloc(layout(40 * KIB, 8));
        assert!(block.addr().is_multiple_of(4 * KIB));
        let same = GLOBAL.realloc(block, layout(40 * KIB, 8), 900 * KIB);
        assert_eq!(block, same);
        // What it does not need any more serves another one.
        let small = GLOBAL.realloc(same, layout(900 * KIB, 8), 50 * KIB);
        assert_eq!(small, block);
        let next = GLOBAL.alloc(layout(60 * KIB, 8));
        assert_eq!(next.addr() - block.addr(), 52 * KIB);
        GLOBAL.dealloc(next, layout(60 * KIB, 8));
        GLOBAL.dealloc(small, layout(50 * KIB, 8));
    }
}
