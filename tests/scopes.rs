//! Scopes on one thread: nesting, unwinding, misordered guards, re-entrance, the cursor's way back, and
//! what outlives its scope. Threads and what they leave behind: `scopes_threads.rs`.

use std::hint::black_box;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use shockwave_alloc::{
    Mode, RequestArena, Shockwave, current_arena_stats, outside_arena, set_mode, stats, with_request_arena,
};

use common::{Block, Live, Rng, alone, churn};

mod common;

// What is tested here is what becomes of escaped blocks in arenas; pretenuring would place them outside.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// Room in the shadow of most tests.
const ROOM: usize = 4_000;

/// How many blocks `f` adds to `arena`.
fn added<R>(arena: &RequestArena, f: impl FnOnce() -> R) -> u64 {
    let before = arena.stats().blocks;
    f();
    arena.stats().blocks - before
}

#[test]
fn leaving_an_inner_scope_restores_the_outer_one() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, ROOM);
    let (outer, inner) = (RequestArena::new(), RequestArena::new());
    outer.run(|| {
        let first = live.alloc(64, 8);
        inner.run(|| {
            assert_eq!(added(&inner, || live.alloc(64, 8)), 1);
            assert_eq!(outer.stats().blocks, 1);
            outside_arena(|| live.alloc(64, 8));
            assert_eq!((inner.stats().blocks, outer.stats().blocks), (1, 1));
            live.alloc(64, 8);
        });
        // The outer cursor stands where it stood.
        assert_eq!(live.alloc(64, 8).addr(), first.addr() + 64);
        assert_eq!((inner.stats().blocks, outer.stats().blocks), (2, 2));
    });
    live.alloc(64, 8);
    assert_eq!((inner.stats().blocks, outer.stats().blocks), (2, 2));
    drop(inner);
    churn();
    live.check();
    live.free_all(true);
    assert_eq!(outer.stats().blocks, 0);
}

#[test]
fn panics_leave_the_scope_and_their_payload_survives_it() {
    let _alone = alone();
    let (outer, inner) = (RequestArena::new(), RequestArena::new());
    let before = stats().pinned_chunks;
    let payload = outer.run(|| {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            inner.run(|| {
                assert_eq!(added(&inner, || mem::forget(Box::new(1u64))), 1);
                // Not `panic!`: that would print.
                resume_unwind(Box::new(vec![String::from("made inside"); 100]));
            })
        }));
        assert_eq!(added(&outer, || mem::forget(Box::new(1u64))), 1, "the outer scope is entered again");
        caught.expect_err("it panicked")
    });
    drop(inner);
    let caught = catch_unwind(|| with_request_arena(|| resume_unwind(Box::new(vec![7u8; 3000]))));
    let second = caught.expect_err("it panicked");
    assert_eq!(added(&outer, || mem::forget(Box::new(1u64))), 0, "no scope is left");
    churn();
    assert!(stats().pinned_chunks > before);
    assert_eq!(*payload.downcast::<Vec<String>>().expect("strings"), vec!["made inside"; 100]);
    assert_eq!(*second.downcast::<Vec<u8>>().expect("bytes"), [7; 3000]);
    drop(outer);
}

#[test]
fn outside_arena_steps_out_of_all_scopes() {
    let _alone = alone();
    let mut arena = RequestArena::new();
    let mut cache = Vec::new();
    let before = stats().pinned_chunks;
    arena.run(|| {
        let noise = vec![1u8; 100];
        outside_arena(|| {
            cache.extend((0..300).map(|n| vec![n as u8; 100]));
            // A scope within that is a scope.
            let nested = RequestArena::new();
            nested.run(|| assert_eq!(added(&nested, || mem::forget(Box::new(1u64))), 1));
            cache.push(vec![1; 100]);
        });
        assert_eq!(arena.stats().blocks, 1, "the noise");
        black_box(noise);
        assert!(catch_unwind(|| outside_arena(|| resume_unwind(Box::new(())))).is_err());
        assert_eq!(added(&arena, || mem::forget(Box::new(1u64))), 1);
    });
    arena.reset();
    churn();
    // The boxes that were forgotten keep theirs.
    assert_eq!(stats().pinned_chunks, before + 2);
    assert!(cache.iter().take(300).enumerate().all(|(n, bytes)| *bytes == vec![n as u8; 100]));
}

#[test]
fn an_arena_can_be_entered_again_around_another() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, ROOM);
    let (one, other) = (RequestArena::new(), RequestArena::new());
    let count = || (one.stats().blocks, other.stats().blocks);
    let outermost = one.enter();
    live.alloc(16, 8);
    let middle = other.enter();
    live.alloc(16, 8);
    let again = one.enter();
    live.alloc(16, 8);
    let twice = one.enter();
    live.alloc(16, 8);
    assert_eq!(count(), (3, 1));
    drop(twice);
    live.alloc(16, 8);
    assert_eq!(count(), (4, 1));
    drop(again);
    live.alloc(16, 8);
    assert_eq!(count(), (4, 2));
    drop(middle);
    live.alloc(16, 8);
    assert_eq!(count(), (5, 2));
    drop(outermost);
    live.alloc(16, 8);
    assert_eq!(count(), (5, 2));
    live.free_all(false);
    assert_eq!(count(), (0, 0));
}

#[test]
fn guards_may_be_dropped_in_any_order() {
    let _alone = alone();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut live = Live::new(&GLOBAL, ROOM);
        let arenas = [const { RequestArena::new() }; 3];
        let mut guards = arenas.each_ref().map(|arena| Some(arena.enter()));
        let mut entered = 3;
        for index in order {
            // Entered meanwhile, on top of as many others, so that places in the stack have new tenants.
            let (under, late) = (RequestArena::new(), RequestArena::new());
            let late_guards = [&under, &under, &under, &late].map(RequestArena::enter);
            drop(guards[index].take());
            // A guard ends the scopes inside its own as well, but nothing if its own has been ended already.
            let stays = if index < entered { 0 } else { 1 };
            assert_eq!(added(&late, || live.alloc(40, 8)), stays, "{order:?} at {index}");
            drop(late_guards);
            entered = entered.min(index);
            let top = entered.checked_sub(1).map(|top| added(&arenas[top], || live.alloc(40, 8)));
            assert_ne!(top, Some(0), "{order:?} at {index}");
        }
        drop(guards);
        drop(arenas);
        churn();
        live.check();
        live.free_all(true);
    }
}

#[test]
fn a_request_whose_scope_was_ended_by_an_outer_guard_closes_its_arena() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, ROOM);
    let before = stats().open_arenas;
    for under in [false, true] {
        let (outer, other) = (RequestArena::new(), RequestArena::new());
        let guard = outer.enter();
        let late = with_request_arena(|| {
            live.alloc(40, 8);
            assert_eq!(current_arena_stats().expect("entered").blocks, 1);
            let late = under.then(|| other.enter());
            drop(guard);
            // Neither the request's arena nor one inside it is entered any more.
            assert!(current_arena_stats().is_none());
            // A scope that takes the place in the stack stays as it is.
            let late = late.is_none().then(|| other.enter());
            live.alloc(40, 8);
            late
        });
        assert_eq!(current_arena_stats().map(|stats| stats.blocks), (!under).then_some(1));
        drop(late);
        assert!(current_arena_stats().is_none());
        drop((outer, other));
        assert_eq!(stats().open_arenas, before);
    }
    churn();
    live.check();
    live.free_all(true);
}

#[test]
fn scopes_nest_deeper_than_there_are_places() {
    fn nest(depth: usize, live: &mut Live<Shockwave>) {
        if depth == 0 {
            return;
        }
        let arena = RequestArena::new();
        let guard = arena.enter();
        let text = vec![depth; 20];
        let block = live.alloc(100, 16);
        nest(depth - 1, live);
        live.alloc(30, 2);
        if depth.is_multiple_of(2) {
            live.free(block);
        }
        assert_eq!(text, [depth; 20]);
        drop(guard);
        outside_arena(|| live.alloc(10, 1));
    }
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, ROOM);
    let outer = RequestArena::new();
    outer.run(|| {
        nest(100, &mut live);
        assert_eq!(added(&outer, || live.alloc(100, 8)), 1, "the outermost scope is entered again");
        live.check();
    });
    assert_eq!(added(&outer, || live.alloc(100, 8)), 0);
    churn();
    live.check();
    live.free_all(true);
    assert_eq!(outer.stats().blocks, 0);
}

#[test]
fn the_cursor_goes_back_over_freed_blocks() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, ROOM);
    let arena = RequestArena::new();
    arena.run(|| {
        let kept = live.alloc(8, 8);
        let first = live.alloc(64, 8);
        live.free(first);
        assert_eq!(live.alloc(64, 8).addr(), first.addr(), "the top block's memory is used again");
        // In reverse order all of it.
        let mut blocks: Vec<Block> = outside_arena(|| Vec::with_capacity(50));
        blocks.extend((0..50).map(|n| live.alloc(8 + 8 * n, 8)));
        while let Some(block) = blocks.pop() {
            live.free(block);
        }
        let again = live.alloc(8, 8);
        assert_eq!(again.addr(), first.addr() + 64);
        // Padding is not gone back over: the next block begins above what lives.
        let odd = live.alloc(3, 1);
        let aligned = live.alloc(64, 64);
        live.free(aligned);
        live.free(odd);
        let next = live.alloc(100, 1);
        assert!(next.addr() >= aligned.addr());
        // A block that is not the top one leaves the cursor where it is.
        live.free(again);
        assert!(live.alloc(8, 8).addr() > next.addr());
        live.free(kept);
        live.check();
    });
    live.free_all(false);
    assert_eq!(arena.stats().blocks, 0);
}

#[test]
fn an_inner_scope_never_goes_back_over_blocks_of_the_outer_one() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, ROOM);
    let (outer, inner) = (RequestArena::new(), RequestArena::new());
    outer.run(|| {
        let below = live.alloc(64, 8);
        let top = live.alloc(64, 8);
        inner.run(|| {
            live.alloc(64, 8);
            live.free(top);
            live.free(below);
            live.alloc(64, 8);
        });
        for _ in 0..100 {
            live.alloc(64, 8);
        }
        live.check();
        assert_eq!((outer.stats().blocks, inner.stats().blocks), (100, 2));
    });
    live.free_all(true);
}

#[test]
fn many_chunks() {
    let _alone = alone();
    let mut rng = Rng(6);
    let mut live = Live::new(&GLOBAL, 8_000);
    let before = stats().pinned_chunks;
    let mut arena = RequestArena::new();
    for _ in 0..3 {
        arena.run(|| {
            for _ in 0..6_000 {
                live.alloc(1 + rng.below(1_500), 8);
            }
            assert!(arena.stats().chunks > 60, "{arena:?}");
            // Frees in earlier chunks count as well.
            for _ in 0..3_000 {
                live.free(live.blocks()[rng.below(live.blocks().len())]);
            }
        });
        assert_eq!(arena.stats().blocks, 3_000);
        live.free_all(true);
        assert_eq!(arena.stats().blocks, 0);
        arena.reset();
        assert!(arena.stats().chunks <= 1);
        assert_eq!(stats().pinned_chunks, before);
    }
}

#[test]
fn what_escapes_stays_valid_after_a_reset() {
    let _alone = alone();
    let mut rng = Rng(7);
    let before = stats().pinned_chunks;
    let mut live = Live::new(&GLOBAL, ROOM);
    let mut arena = RequestArena::new();
    for round in 0..300 {
        arena.run(|| {
            for _ in 0..1 + rng.below(200) {
                let block = live.alloc(1 + rng.below(700), 1 << rng.below(6));
                if rng.below(20) != 0 {
                    live.free(block);
                }
            }
        });
        assert!(arena.stats().blocks <= live.blocks().len() as u64);
        arena.reset();
        assert_eq!((arena.stats().blocks, arena.stats().bytes), (0, 0));
        live.check();
        while live.blocks().len() > 1_000 || (round % 3 == 0 && live.blocks().len() > 500) {
            live.free(live.blocks()[rng.below(live.blocks().len())]);
        }
    }
    drop(arena);
    churn();
    assert!(stats().pinned_chunks > before);
    live.free_all(false);
    assert_eq!(stats().pinned_chunks, before);
}

#[test]
fn big_objects_bypass_the_arena() {
    let _alone = alone();
    let before = stats();
    let arena = RequestArena::new();
    let sizes = [16_384, 16_385, 100_000, 1 << 20, (1 << 20) + 1, 5 << 20];
    let mut live = Live::new(&GLOBAL, 10);
    arena.run(|| sizes.map(|size| live.alloc(size, 8)));
    let inside = arena.stats();
    assert_eq!((inside.blocks, inside.bypassed_blocks), (1, sizes.len() as u64 - 1));
    assert_eq!(inside.bypassed_bytes, sizes[1..].iter().sum::<usize>() as u64);
    drop(arena);
    let after = stats();
    assert_eq!(after.bypassed_blocks - before.bypassed_blocks, sizes.len() as u64 - 1);
    assert_eq!(after.bypassed_bytes - before.bypassed_bytes, inside.bypassed_bytes);
    assert_eq!(after.pinned_chunks, before.pinned_chunks + 1, "only the one of 16 KiB");
    churn();
    live.free_all(true);
}

#[test]
fn the_mode_may_change_inside_a_scope() {
    let _alone = alone();
    let before = stats().pinned_chunks;
    let mut live = Live::new(&GLOBAL, ROOM);
    let mut rng = Rng(8);
    for _ in 0..100 {
        let arena = RequestArena::new();
        let guard = arena.enter();
        for _ in 0..50 {
            set_mode([Mode::Standard, Mode::Slab, Mode::Arena][rng.below(3)]);
            let block = live.alloc(1 + rng.below(3_000), 8);
            if rng.below(2) == 0 {
                live.realloc(block, 1 + rng.below(6_000));
            }
            with_request_arena(|| live.alloc(20, 8));
            live.free(live.blocks()[rng.below(live.blocks().len())]);
        }
        drop(guard);
        set_mode(Mode::Arena);
        if rng.below(2) == 0 {
            drop(arena);
        }
        live.check();
        live.free_all(rng.below(2) == 0);
    }
    assert_eq!(stats().pinned_chunks, before);
}

#[test]
fn forgotten_guards_of_dropped_arenas_use_up_no_places() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, ROOM);
    for round in 0..100 {
        let forgotten = RequestArena::new();
        mem::forget(forgotten.enter());
        live.alloc(24, 8);
        drop(forgotten);
        assert!(current_arena_stats().is_none(), "nothing is in an arena that is gone");
        let arena = RequestArena::new();
        assert_eq!(arena.run(|| added(&arena, || live.alloc(40, 8))), 1, "after {round} forgotten guards");
    }
    live.check();
    live.free_all(false);
}

#[test]
fn the_next_arena_starts_over_when_what_was_left_is_gone() {
    let _alone = alone();
    let place = || {
        let block = with_request_arena(|| {
            drop(black_box(vec![1u8; 500]));
            black_box(Box::new([2u8; 100]))
        });
        (block.as_ptr().addr(), block)
    };
    let (first, block) = place();
    drop(block);
    let (second, survivor) = place();
    assert_eq!(second, first, "the chunk is used from its start again");
    let (third, block) = place();
    assert!(third > second, "it goes on behind what has survived");
    assert_eq!((survivor[0], block[99]), (2, 2));
}

/// What the thread keeps of an arena, for the next one, must count no block that is gone.
#[test]
fn arenas_whose_blocks_are_gone_leave_nothing() {
    let _alone = alone();
    let before = stats();
    for round in 0..10 {
        with_request_arena(|| {
            let blocks: Vec<_> = (0..round).map(|number| black_box(Box::new(number))).collect();
            // The blocks are counted where they are when a scope inside begins, and freed after that.
            outside_arena(|| ());
            drop(blocks);
        });
        with_request_arena(|| (0..round).for_each(|number| drop(black_box(Box::new(number)))));
        let after = stats();
        assert_eq!(
            (after.arena.blocks, after.arena.bytes),
            (before.arena.blocks, before.arena.bytes),
            "{round}"
        );
        assert_eq!(after.pinned_chunks, before.pinned_chunks);
    }
    assert_eq!(stats().arenas_closed, before.arenas_closed + 20);
}
