//! Scopes and threads: arenas that move, blocks that are freed elsewhere, guards that are forgotten, threads that end,
//! and memory that comes back from all of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::mem;
use std::sync::mpsc;
use std::thread;

use shockwave_alloc::{RequestArena, Shockwave, stats, with_request_arena};

use common::{Block, Live, Rng, alone, churn};

mod bare_thread;
mod common;

// What is tested here is what becomes of escaped blocks in arenas; pretenuring would place them outside.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// Room in the shadow of most tests.
const ROOM: usize = 4_000;

/// Runs `f` in a thread of its own to its end.
fn in_thread<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(f).join()).expect("no panic")
}

/// Frees a block as another owner would.
fn free(block: Block) {
    let mut live = Live::new(&GLOBAL, 1);
    live.adopt(block);
    live.free(block);
}

#[test]
fn an_arena_moves_between_threads() {
    let _alone = alone();
    let before = stats();
    let mut arena = RequestArena::new();
    let mut blocks = VecDeque::new();
    for round in 0..30 {
        let (returned, block) = in_thread(move || {
            let mut live = Live::new(&GLOBAL, 1);
            let block = arena.run(|| live.alloc(104, 4));
            (arena, live.take(block))
        });
        arena = returned;
        if round % 2 == 1 {
            // It goes on where the other thread stopped.
            let previous: &Block = blocks.back().expect("one of the round before");
            assert_eq!(block.addr(), previous.addr() + 104);
        }
        blocks.push_back(block);
        assert_eq!(arena.stats().blocks, blocks.len() as u64);
        let mut here = Live::new(&GLOBAL, 1);
        let block = arena.run(|| here.alloc(104, 4));
        blocks.push_back(here.take(block));
        if round % 3 == 0 {
            blocks.pop_front().into_iter().for_each(free);
        }
    }
    in_thread(move || drop(arena));
    assert_eq!(stats().open_arenas, before.open_arenas);
    churn();
    blocks.iter().for_each(Block::check);
    blocks.into_iter().for_each(free);
    assert_eq!(stats().pinned_chunks, before.pinned_chunks);
}

#[test]
fn a_free_from_elsewhere_does_not_move_an_active_cursor() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, ROOM);
    let arena = RequestArena::new();
    arena.run(|| {
        for size in [8, 64, 1_000] {
            let top = live.alloc(size, 8);
            let gone = live.take(top);
            in_thread(move || free(gone));
            let next = live.alloc(8, 8);
            assert!(next.addr() >= top.addr() + size, "{next:?} in {top:?}");
            // Nor does a scope around another arena on this thread.
            let top = live.alloc(size, 8);
            with_request_arena(|| live.free(top));
            assert!(live.alloc(8, 8).addr() >= top.addr() + size);
        }
    });
    assert_eq!(arena.stats().blocks, live.blocks().len() as u64);
    live.free_all(true);
    assert_eq!(arena.stats().blocks, 0);
}

#[test]
fn frees_race_with_the_end_of_the_scope() {
    let _alone = alone();
    let before = stats();
    let (sender, receiver) = mpsc::channel::<Vec<Block>>();
    let freeing = thread::spawn(move || receiver.into_iter().flatten().for_each(free));
    let mut rng = Rng(1);
    let mut arena = RequestArena::new();
    for round in 0..3_000 {
        let mut live = Live::new(&GLOBAL, 300);
        let guard = arena.enter();
        for _ in 0..rng.below(300) {
            live.alloc(1 + rng.below(900), 8);
        }
        // Some before the end, some after it, some across it.
        let mut blocks = live.blocks().to_vec();
        let later = blocks.split_off(rng.below(blocks.len() + 1));
        sender.send(blocks).expect("the other thread lives");
        if round % 3 == 0 {
            later.iter().step_by(2).for_each(|&block| live.free(block));
        }
        drop(guard);
        match round % 2 {
            0 => arena.reset(),
            _ => arena = RequestArena::new(),
        }
        let later = later.into_iter().enumerate().filter(|(n, _)| round % 3 != 0 || n % 2 == 1);
        sender.send(later.map(|(_, block)| block).collect()).expect("the other thread lives");
    }
    drop((sender, arena));
    freeing.join().expect("no block was damaged");
    let after = stats();
    assert_eq!((after.pinned_chunks, after.open_arenas), (before.pinned_chunks, before.open_arenas));
    assert_eq!(after.arena, before.arena);
}

#[test]
fn what_escapes_outlives_its_thread() {
    let _alone = alone();
    let before = stats();
    let blocks = in_thread(|| {
        let mut live = Live::new(&GLOBAL, ROOM);
        with_request_arena(|| {
            (0..300).for_each(|size| {
                live.alloc(1 + size, 2);
            })
        });
        let arena = RequestArena::new();
        // Never left: the thread ends inside.
        mem::forget(arena.enter());
        (0..300).for_each(|size| {
            live.alloc(1 + size, 2);
        });
        drop(arena);
        live.blocks().to_vec()
    });
    churn();
    in_thread(churn);
    assert!(stats().pinned_chunks > before.pinned_chunks);
    blocks.iter().for_each(Block::check);
    blocks.into_iter().for_each(free);
    let after = stats();
    assert_eq!((after.pinned_chunks, after.open_arenas), (before.pinned_chunks, before.open_arenas));
}

/// What is done with an arena whose guard was forgotten.
#[derive(Clone, Copy, Debug)]
enum After {
    Drop,
    Reset,
    EnterAgain,
    UseElsewhere,
    DropElsewhere,
    ResetElsewhere,
}

#[test]
fn a_forgotten_guard_makes_nothing_invalid() {
    use After::{Drop, DropElsewhere, EnterAgain, Reset, ResetElsewhere, UseElsewhere};
    let _alone = alone();
    for after in [Drop, Reset, EnterAgain, UseElsewhere, DropElsewhere, ResetElsewhere] {
        // A thread of its own: some of these keep the scope until its end.
        let blocks = in_thread(|| {
            let mut live = Live::new(&GLOBAL, ROOM);
            let outer = RequestArena::new();
            let outer_guard = outer.enter();
            let mut arena = RequestArena::new();
            mem::forget(arena.enter());
            for _ in 0..100 {
                live.alloc(100, 4);
            }
            match after {
                Drop => drop(arena),
                Reset => arena.reset(),
                EnterAgain => arena.run(|| {
                    live.alloc(100, 4);
                }),
                UseElsewhere => {
                    let used = in_thread(move || {
                        let mut live = Live::new(&GLOBAL, ROOM);
                        arena.run(|| {
                            (0..500).for_each(|_| {
                                live.alloc(100, 4);
                            })
                        });
                        churn();
                        live.check();
                        assert_eq!(arena.stats().blocks, 500, "it is an arena like any other");
                        live.blocks().to_vec()
                    });
                    used.into_iter().for_each(|block| live.adopt(block));
                }
                DropElsewhere => in_thread(move || drop(arena)),
                ResetElsewhere => in_thread(move || arena.reset()),
            }
            // The scope is still the innermost one, or the outer one is again. Either way new blocks and new arenas keep
            // apart.
            for _ in 0..100 {
                live.alloc(100, 4);
                with_request_arena(|| live.alloc(100, 4));
            }
            churn();
            live.check();
            // An outer scope ends it, and works as ever.
            drop(outer_guard);
            let fresh = RequestArena::new();
            fresh.run(|| live.alloc(100, 4));
            assert_eq!(fresh.stats().blocks, 1, "{after:?}");
            let before = outer.stats().blocks;
            outer.run(|| live.alloc(100, 4));
            assert_eq!(outer.stats().blocks, before + 1, "{after:?}");
            live.blocks().to_vec()
        });
        churn();
        blocks.into_iter().for_each(free);
    }
}

#[test]
fn an_arena_is_usable_again_after_the_thread_that_forgot_its_guard() {
    let _alone = alone();
    let (arena, blocks) = in_thread(|| {
        let mut live = Live::new(&GLOBAL, ROOM);
        let arena = RequestArena::new();
        mem::forget(arena.enter());
        (0..100).for_each(|_| {
            live.alloc(100, 4);
        });
        (arena, live.blocks().to_vec())
    });
    let mut live = Live::new(&GLOBAL, ROOM);
    blocks.into_iter().for_each(|block| live.adopt(block));
    arena.run(|| {
        (0..1_000).for_each(|_| {
            live.alloc(100, 4);
        })
    });
    assert_eq!(arena.stats().blocks, 1_100);
    live.free_all(true);
    assert_eq!(arena.stats().blocks, 0);
}

/// Uses scopes when its thread ends.
struct Late {
    arena: RefCell<Option<RequestArena>>,
    report: RefCell<Option<mpsc::Sender<Vec<Block>>>>,
}

impl Drop for Late {
    fn drop(&mut self) {
        let mut live = Live::new(&GLOBAL, ROOM);
        let sizes = 1..200;
        with_request_arena(|| {
            sizes.clone().for_each(|size| {
                live.alloc(size, 1);
            })
        });
        if let Some(arena) = self.arena.take() {
            let guard = arena.enter();
            sizes.clone().for_each(|size| {
                live.alloc(size, 1);
            });
            // Forgotten, when there will be nobody to end the scope.
            mem::forget(guard);
            sizes.clone().for_each(|size| {
                live.alloc(size, 1);
            });
        }
        sizes.step_by(2).for_each(|_| live.free(live.blocks()[live.blocks().len() / 2]));
        churn();
        live.check();
        if let Some(report) = self.report.take() {
            report.send(live.blocks().to_vec()).expect("the test waits");
        }
    }
}

#[test]
fn scopes_in_destructors_of_thread_locals() {
    thread_local! {
        static EARLY: Late = const { Late { arena: RefCell::new(None), report: RefCell::new(None) } };
        static LATE: Late = const { Late { arena: RefCell::new(None), report: RefCell::new(None) } };
    }
    let _alone = alone();
    let before = stats();
    let (sender, receiver) = mpsc::channel();
    for _ in 0..20 {
        bare_thread::run(&mut [sender.clone(), sender.clone()], |senders| {
            // Destructors run in the opposite order: this one after the allocator's own, the other one before it.
            EARLY.with(|_| ());
            for (local, sender) in [&EARLY, &LATE].into_iter().zip(senders) {
                let arena = RequestArena::new();
                arena.run(|| mem::forget(black_box(Box::new(7))));
                local.with(|late| {
                    late.arena.replace(Some(arena));
                    late.report.replace(Some(sender.clone()));
                });
            }
        });
    }
    drop(sender);
    let reports: Vec<Vec<Block>> = receiver.into_iter().collect();
    assert_eq!(reports.len(), 40);
    churn();
    reports.iter().flatten().for_each(Block::check);
    reports.into_iter().flatten().for_each(free);
    let after = stats();
    assert_eq!(after.open_arenas, before.open_arenas, "arenas dropped late are closed as well");
    // The boxes that were forgotten, two in each round.
    assert_eq!(after.pinned_chunks - before.pinned_chunks, 40);
}

#[test]
fn chunks_are_used_again_when_what_escaped_from_them_dies() {
    let _alone = alone();
    let mut rng = Rng(2);
    let before = stats().pinned_chunks;
    let mut live = Live::new(&GLOBAL, ROOM);
    let mut escaped = VecDeque::with_capacity(200);
    let mut committed = 0;
    for round in 0..10_000 {
        with_request_arena(|| {
            for n in 0..20 {
                let block = live.alloc(1 + rng.below(2_000), 8);
                if n == 7 {
                    escaped.push_back(block);
                } else if n % 2 == 0 {
                    live.free(block);
                } else {
                    // Freed after the end.
                    escaped.push_front(block);
                }
            }
        });
        while escaped.len() > 100 || escaped.front().is_some_and(|block| block.layout.size() > 1_000) {
            escaped.pop_front().into_iter().for_each(|block| live.free(block));
        }
        // At most this many chunks can be pinned at a time, so memory is bounded from the start.
        assert!(stats().pinned_chunks <= before + 100);
        if round == 1_000 {
            committed = stats().committed_bytes;
        }
    }
    assert_eq!(stats().committed_bytes, committed, "later rounds need no more memory than the first");
    live.free_all(false);
    assert_eq!(stats().pinned_chunks, before);
}

#[test]
fn threads_with_scopes_come_and_go_without_growth() {
    let _alone = alone();
    let mut committed = 0;
    for round in 0..600 {
        let (left, arena) = in_thread(move || {
            let mut live = Live::new(&GLOBAL, ROOM);
            let arena = RequestArena::new();
            arena.run(|| {
                (0..200).for_each(|size| {
                    live.alloc(1 + size, 8);
                })
            });
            with_request_arena(|| {
                (0..200).for_each(|size| {
                    live.alloc(1 + size, 8);
                })
            });
            (live.blocks().to_vec(), arena)
        });
        if round % 2 == 0 {
            drop(arena);
            left.into_iter().for_each(free);
        } else {
            left.into_iter().for_each(free);
            in_thread(move || drop(arena));
        }
        if round == 100 {
            committed = stats().committed_bytes;
        }
    }
    assert_eq!(stats().committed_bytes, committed);
}
