//! The mode changes while threads allocate, reallocate and free: every block stays what it is and goes back
//! to where it came from.

mod child;
mod churn;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use churn::{Block, Random, poison};
use shockwave_alloc::{
    Mode, RequestArena, Shockwave, mode, outside_arena, set_mode, stats, with_request_arena,
};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const MODES: [Mode; 3] = [Mode::Standard, Mode::Slab, Mode::Arena];

/// Blocks of every size range, in and out of a scope.
fn blocks(seed: u64) -> Vec<Block> {
    let mut random = Random::new(seed);
    let sizes =
        [1, 8, 24, 100, 128, 129, 500, 1024, 4000, 16 << 10, (16 << 10) + 1, 100 << 10, 1 << 20, 3 << 20];
    let mut make = || -> Vec<Block> {
        let ordinary = sizes.map(|size| Block::new(size, 8, random.next()));
        let aligned =
            [16, 256, 4096, 64 << 10, 256 << 10].map(|align| Block::new(1000, align, random.next()));
        ordinary.into_iter().chain(aligned).collect()
    };
    let mut all = make();
    all.extend(with_request_arena(make));
    all
}

#[test]
fn blocks_of_one_mode_are_freed_and_reallocated_in_another() {
    if !child::alone("blocks_of_one_mode_are_freed_and_reallocated_in_another") {
        return;
    }
    let arena = RequestArena::new();
    for from in MODES {
        for to in MODES {
            set_mode(from);
            let before = stats();
            let mut freed = blocks(1);
            let mut resized = blocks(2);
            assert_eq!(stats().backing.blocks > before.backing.blocks + 40, from == Mode::Standard, "{from}");
            set_mode(to);
            poison();
            freed.drain(..).step_by(2).for_each(drop);
            let mut random = Random::new(3);
            arena.run(|| {
                for block in &mut resized {
                    block.resize(random.size());
                }
            });
            poison();
            drop((freed, resized));
            set_mode(Mode::Standard);
            let after = stats();
            // Whatever each origin handed out has come back to it.
            assert_eq!(after.backing, before.backing, "from {from} to {to}");
            assert_eq!((after.mid, after.large), (before.mid, before.large), "from {from} to {to}");
            assert_eq!(after.pinned_chunks, before.pinned_chunks, "from {from} to {to}");
        }
    }
    set_mode(Mode::Arena);
}

#[test]
fn a_scope_that_is_open_while_the_mode_changes_is_finished() {
    if !child::alone("a_scope_that_is_open_while_the_mode_changes_is_finished") {
        return;
    }
    for inside in MODES {
        set_mode(Mode::Arena);
        let before = stats();
        let kept = with_request_arena(|| {
            let mut early: Vec<Block> = (0..20).map(|n| Block::new(100, 8, n)).collect();
            set_mode(inside);
            early.extend((0..20).map(|n| Block::new(100, 8, n)));
            early.extend(with_request_arena(|| (0..20).map(|n| Block::new(100, 8, n)).collect::<Vec<_>>()));
            early.iter_mut().step_by(3).for_each(|block| block.resize(200));
            set_mode(Mode::Arena);
            early.extend((0..20).map(|n| Block::new(100, 8, n)));
            early.drain(..).step_by(2).for_each(drop);
            (0..20).map(|n| Block::new(50, 8, n)).collect::<Vec<_>>()
        });
        poison();
        kept.iter().for_each(Block::check);
        drop(kept);
        let after = stats();
        assert_eq!(after.pinned_chunks, before.pinned_chunks, "{inside}");
        assert_eq!(after.backing, before.backing, "{inside}");
    }
}

#[test]
fn threads_work_while_the_mode_is_flipped_at_random() {
    static DONE: AtomicBool = AtomicBool::new(false);
    static SLOTS: [Mutex<Option<Block>>; 64] = [const { Mutex::new(None) }; 64];
    if !child::alone("threads_work_while_the_mode_is_flipped_at_random") {
        return;
    }
    set_mode(Mode::Arena);
    let before = stats();
    let flipper = thread::spawn(|| {
        let mut random = Random::new(7);
        let mut flips = 0;
        while !DONE.load(Ordering::Relaxed) {
            set_mode(MODES[random.below(3)]);
            flips += 1;
            for _ in 0..random.below(2000) {
                std::hint::spin_loop();
            }
            if flips % 8 == 0 {
                thread::yield_now();
            }
        }
        set_mode(Mode::Arena);
        flips
    });
    let work = |seed: u64| {
        let mut random = Random::new(seed);
        let arena = RequestArena::new();
        let mut own: Vec<Block> = Vec::new();
        for round in 0..400 {
            let mut step = || {
                for _ in 0..30 {
                    match random.below(10) {
                        0..5 => own.push(Block::random(&mut random)),
                        5..7 if !own.is_empty() => {
                            let place = random.below(own.len());
                            own[place].resize(random.size());
                        }
                        7 => {
                            let block = Block::random(&mut random);
                            let found = SLOTS[random.below(64)].lock().unwrap().replace(block);
                            own.extend(found);
                        }
                        _ if !own.is_empty() => {
                            let place = random.below(own.len());
                            own.swap_remove(place);
                        }
                        _ => {}
                    }
                }
            };
            match round % 4 {
                0 => step(),
                1 => with_request_arena(step),
                2 => arena.run(step),
                _ => with_request_arena(|| outside_arena(step)),
            }
            while own.len() > 100 {
                let place = random.below(own.len());
                own.swap_remove(place);
            }
        }
    };
    let threads = [1, 2, 3].map(|seed| thread::spawn(move || work(seed)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    DONE.store(true, Ordering::Relaxed);
    let flips = flipper.join().unwrap();
    assert!(flips > 50, "only {flips} flips");
    SLOTS.iter().for_each(|slot| drop(slot.lock().unwrap().take()));
    let after = stats();
    assert!(after.backing_calls > before.backing_calls, "standard mode was never in force");
    assert!(after.arena_bytes > before.arena_bytes, "arena mode was never in force");
    assert_eq!(after.backing, before.backing);
    assert_eq!((after.mid, after.large), (before.mid, before.large));
    assert_eq!(after.pinned_chunks, before.pinned_chunks);
}

#[test]
fn the_mode_that_two_concurrent_changes_leave_is_in_force() {
    const ROUNDS: u32 = 20_000;
    static TURN: AtomicU32 = AtomicU32::new(0);
    if !child::alone("the_mode_that_two_concurrent_changes_leave_is_in_force") {
        return;
    }
    set_mode(Mode::Standard);
    // Waits without a system call, so that both threads set the mode at the same moment.
    let meet = |count: u32| {
        TURN.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0u32;
        while TURN.load(Ordering::Acquire) < count {
            spins += 1;
            if spins.is_multiple_of(1 << 9) {
                thread::yield_now();
            }
        }
    };
    let other = thread::spawn(move || {
        for round in 0..ROUNDS {
            meet(round * 6 + 2);
            set_mode(Mode::Slab);
            meet(round * 6 + 4);
            meet(round * 6 + 6);
        }
    });
    let mut wrong = 0;
    for round in 0..ROUNDS {
        meet(round * 6 + 2);
        set_mode(Mode::Standard);
        meet(round * 6 + 4);
        // Both changes are done: the mode that is named is the one that allocations follow.
        let before = stats().backing_calls;
        let block = Block::new(16, 8, 1);
        let passed_through = stats().backing_calls > before;
        drop(block);
        wrong += u32::from(passed_through != (mode() == Mode::Standard));
        meet(round * 6 + 6);
    }
    other.join().unwrap();
    set_mode(Mode::Arena);
    assert_eq!(wrong, 0, "of {ROUNDS} times the mode in force was another than mode() says");
}
