//! The allocator as an ordinary value, called through `GlobalAlloc`, against a shadow of the live blocks.
//!
//! The test itself allocates from the system, so what is checked here is the allocator alone.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::mem;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::{ptr, thread};

use shockwave_alloc::{Mode, RequestArena, Shockwave, outside_arena, set_mode, stats, with_request_arena};

use common::{Block, Live, Rng, alone};

static CORE: Shockwave = Shockwave::new();

/// Interpreted, a run is some thousand times slower.
const fn rounds(interpreted: usize, native: usize) -> usize {
    if cfg!(miri) { interpreted } else { native }
}

/// Random allocations, reallocations and frees.
fn steps(live: &mut Live<Shockwave>, rng: &mut Rng, count: usize) {
    for _ in 0..count {
        let chosen = rng.below(live.blocks().len().max(1));
        match (rng.below(8), live.blocks().get(chosen).copied()) {
            (0..=2, _) if live.has_room(1) => drop(live.alloc(rng.size(), rng.align())),
            (3, _) if live.has_room(1) => drop(live.alloc_zeroed(rng.size(), rng.align())),
            (4, Some(block)) => drop(live.realloc(block, rng.size())),
            // As a vector grows.
            (5, Some(block)) => drop(live.realloc(block, (block.layout.size() * 2).min(1 << 20))),
            (_, Some(block)) => live.free(block),
            _ => {}
        }
    }
}

#[test]
fn random_steps_keep_every_block() {
    let _alone = alone();
    for seed in 0..rounds(2, 200) as u64 {
        let mut rng = Rng(seed);
        let mut live = Live::new(&CORE, 40);
        steps(&mut live, &mut rng, 100);
        let mut arena = RequestArena::new();
        for round in 0..4 {
            {
                let _outer = arena.enter();
                steps(&mut live, &mut rng, 40);
                with_request_arena(|| steps(&mut live, &mut rng, 40));
                outside_arena(|| steps(&mut live, &mut rng, 20));
                let _again = arena.enter();
                steps(&mut live, &mut rng, 20);
            }
            steps(&mut live, &mut rng, 20);
            if round == 1 {
                arena.reset();
            }
            set_mode([Mode::Arena, Mode::Slab, Mode::Standard, Mode::Arena][round]);
            live.check();
        }
        drop(arena);
        live.check();
        live.free_all(seed % 2 == 0);
    }
}

#[test]
fn threads_pass_blocks_on() {
    let _alone = alone();
    // Blocks change hands through slots, so that a free on another thread happens after the block was given away and
    // after nothing else.
    static SLOTS: [AtomicPtr<Block>; 8] = [const { AtomicPtr::new(ptr::null_mut()) }; 8];
    let pass = |live: &mut Live<Shockwave>, slot: usize, block: Option<Block>| {
        let given = block.map_or(ptr::null_mut(), |block| Box::into_raw(Box::new(live.take(block))));
        let taken = SLOTS[slot].swap(given, Ordering::AcqRel);
        if !taken.is_null() {
            // SAFETY: what is in a slot came from `Box::into_raw`, and whoever takes it has it alone.
            live.adopt(*unsafe { Box::from_raw(taken) });
        }
    };
    let work = |seed: u64| {
        let mut rng = Rng(seed);
        let mut live = Live::new(&CORE, 60);
        for _ in 0..rounds(4, 400) {
            let passing = |live: &mut Live<Shockwave>, rng: &mut Rng| {
                steps(live, rng, 20);
                let block = live.blocks().get(rng.below(live.blocks().len().max(1))).copied();
                if live.has_room(1) {
                    pass(live, rng.below(SLOTS.len()), block);
                }
            };
            with_request_arena(|| passing(&mut live, &mut rng));
            passing(&mut live, &mut rng);
        }
        live.free_all(true);
    };
    for round in 0..rounds(2, 10) as u64 {
        // The second round finds the heaps that the first has left, with blocks that are still alive.
        thread::scope(|scope| (0..3).for_each(|n| drop(scope.spawn(move || work(round * 3 + n)))));
    }
    let mut live = Live::new(&CORE, 60);
    (0..SLOTS.len()).for_each(|slot| pass(&mut live, slot, None));
    live.free_all(false);
}

#[test]
fn aligned_blocks_change_their_size_and_are_freed_by_others() {
    let _alone = alone();
    for seed in 0..rounds(2, 100) as u64 {
        let mut rng = Rng(seed);
        let mut live = Live::new(&CORE, 20);
        for _ in 0..12 {
            // Some share runs of pages, some are in the slab, some have runs of their own.
            let block = live.alloc(1 + rng.below(90 << 10), (8 << 10) << rng.below(4));
            if rng.below(2) == 0 {
                live.realloc(block, 1 + rng.below(90 << 10));
            }
            if rng.below(4) == 0 {
                live.free(live.blocks()[rng.below(live.blocks().len())]);
            }
        }
        let others: Vec<Block> = (0..5).map(|_| live.take(live.blocks()[0])).collect();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut live = Live::new(&CORE, 5);
                others.into_iter().for_each(|block| live.adopt(block));
                live.free_all(true);
            });
            live.free_all(false);
        });
    }
    assert_eq!(stats().mid.blocks, 0);
}

#[test]
fn an_arena_closes_while_others_free_its_blocks() {
    let _alone = alone();
    let mut live = Live::new(&CORE, 100);
    for _ in 0..rounds(4, 500) {
        let arena = RequestArena::new();
        let (mut given, start) = (Vec::new(), Arc::new(Barrier::new(3)));
        arena.run(|| {
            // Two chunks and a bit.
            for _ in 0..60 {
                live.alloc(2200, 8);
            }
        });
        for _ in 0..2 {
            let blocks: Vec<Block> = (0..20).map(|_| live.take(live.blocks()[0])).collect();
            let start = start.clone();
            given.push(thread::spawn(move || {
                let mut live = Live::new(&CORE, 20);
                blocks.into_iter().for_each(|block| live.adopt(block));
                start.wait();
                live.free_all(false);
            }));
        }
        start.wait();
        drop(arena);
        live.free_all(true);
        given.into_iter().for_each(|thread| thread.join().unwrap());
    }
    assert_eq!(stats().pinned_chunks, 0);
}

#[test]
fn a_heap_is_abandoned_while_others_free_its_blocks() {
    let _alone = alone();
    for _ in 0..rounds(4, 500) {
        let (send, receive) = mpsc::channel();
        let owner = thread::spawn(move || {
            let mut live = Live::new(&CORE, 60);
            for size in [1000, 24, 3000] {
                for _ in 0..20 {
                    let block = live.alloc(size, 8);
                    send.send(live.take(block)).unwrap();
                }
            }
        });
        let mut live = Live::new(&CORE, 60);
        // While the owner allocates, ends, and has ended. A block of the same size is taken now and then, which may come
        // from the owner's heap.
        while let Ok(block) = receive.recv() {
            live.adopt(block);
            live.free(block);
            if block.addr() % 7 == 0 {
                let block = live.alloc(block.layout.size(), 8);
                live.free(block);
            }
        }
        owner.join().unwrap();
    }
}

#[test]
fn an_arena_moves_between_threads() {
    let _alone = alone();
    let mut arena = RequestArena::new();
    let mut live = Live::new(&CORE, 100);
    for round in 0..rounds(6, 300) {
        (arena, live) = thread::spawn(move || {
            let guard = arena.enter();
            steps(&mut live, &mut Rng(round as u64), 30);
            drop(guard);
            (arena, live)
        })
        .join()
        .unwrap();
        if round % 3 == 2 {
            arena.reset();
        }
    }
    drop(arena);
    live.free_all(false);
}

#[test]
fn an_arena_whose_guard_was_forgotten_is_usable_elsewhere() {
    let _alone = alone();
    static AT: AtomicUsize = AtomicUsize::new(0);
    for _ in 0..rounds(3, 100) {
        let (send, receive) = mpsc::channel();
        let forgetful = thread::spawn(move || {
            let arena = RequestArena::new();
            mem::forget(arena.enter());
            let mut live = Live::new(&CORE, 10);
            live.alloc(100, 8);
            send.send(arena).unwrap();
            // Still in the arena, while the handle is used by another thread, until the thread ends.
            live.alloc(200, 8);
            live.free_all(false);
        });
        let mut arena = receive.recv().unwrap();
        let mut live = Live::new(&CORE, 10);
        for _ in 0..3 {
            arena.run(|| AT.store(live.alloc(100, 8).addr(), Ordering::Relaxed));
            assert!(arena.stats().blocks <= 10);
            arena.reset();
        }
        forgetful.join().unwrap();
        drop(arena);
        live.free_all(false);
    }
}

#[test]
fn handles_and_checkpoints() {
    let mut arena = RequestArena::new();
    {
        let mut scope = arena.scope();
        let kept = scope.alloc_slice_copy(&[1u16; 100]);
        for round in 0..3 {
            let mut checkpoint = scope.checkpoint();
            let text = checkpoint.scope().alloc_str("above the checkpoint");
            text.make_ascii_uppercase();
            let big = checkpoint.scope().alloc_slice_fill_with(3000, |index| index as u8);
            assert_eq!(big[2999], 2999_u32 as u8);
            checkpoint.reset_to();
            *checkpoint.scope().alloc(0u64) = round;
        }
        assert_eq!(kept, [1; 100]);
    }
    arena.reset();
    assert_eq!(*arena.alloc((1u8, 2u64)), (1, 2));
    let arena = std::thread::spawn(move || {
        arena.alloc_str("elsewhere");
        arena
    })
    .join()
    .unwrap();
    arena.alloc([0u8; 5000]);
}
