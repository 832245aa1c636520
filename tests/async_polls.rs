//! Futures in arenas, polled by hand: where the arena is entered, that it is left again, whatever the future does, and threads
//! it moves between.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::thread;

use shockwave_alloc::{
    ArenaFutureExt, ArenaHandle, ArenaStats, RequestArena, Shockwave, current_arena_stats, outside_arena,
    stats, with_request_arena,
};

use common::{Live, Rng, alone, churn};

mod common;

// Which block goes where is what is tested; pretenuring would change it.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// Polls once, with a waker that does nothing.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls until it is ready.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = poll_once(future.as_mut()) {
            return output;
        }
    }
}

/// Gives way once.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Runs `f` in a thread of its own to its end.
fn in_thread<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(f).join()).expect("no panic")
}

fn allocations() -> Option<u64> {
    current_arena_stats().map(|stats| stats.allocations)
}

/// Writes down, when it is dropped, what the arena of that moment had allocated.
struct Dropped<'a>(&'a mut Option<Option<u64>>);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        *self.0 = Some(allocations());
    }
}

#[test]
fn the_arena_is_entered_at_each_poll_and_not_between() {
    let _alone = alone();
    let mut kept = pin!(
        async {
            let mut kept = Vec::with_capacity(3);
            for round in 0..3 {
                kept.push(format!("round {round}"));
                assert_eq!(allocations(), Some(round + 2));
                pause().await;
            }
            kept
        }
        .in_request_arena()
    );
    for round in 0..3 {
        assert!(poll_once(kept.as_mut()).is_pending());
        assert_eq!(allocations(), None);
        // What others allocate in between does not go there.
        with_request_arena(|| drop(vec![0u8; 100 + round]));
        assert_eq!(kept.arena().stats().blocks, round as u64 + 2);
    }
    let Poll::Ready(words) = poll_once(kept.as_mut()) else { panic!("not ready") };
    churn();
    assert_eq!(words, ["round 0", "round 1", "round 2"]);
}

#[test]
fn the_inner_future_is_dropped_in_the_arena() {
    let _alone = alone();
    for polls in 0..3 {
        let mut seen = None;
        let dropped = Dropped(&mut seen);
        let mut future = Box::pin(
            async move {
                let _dropped = dropped;
                let _block = Box::new([1u8; 50]);
                pause().await;
                let _block = Box::new([1u8; 50]);
                pause().await;
            }
            .in_request_arena(),
        );
        for _ in 0..polls {
            assert!(poll_once(future.as_mut()).is_pending());
        }
        assert_eq!(allocations(), None);
        drop(future);
        assert_eq!(seen, Some(Some(polls)));
        assert_eq!(allocations(), None);
    }
}

#[test]
fn a_future_moves_between_threads() {
    let _alone = alone();
    let open = stats().open_arenas;
    for rounds in [1, 2, 10] {
        for finished in [true, false] {
            let seed = rounds as u64 * 2 + u64::from(finished);
            let mut future = Box::pin(work(seed, rounds).in_request_arena());
            for _ in 0..rounds {
                future = in_thread(move || {
                    assert!(poll_once(future.as_mut()).is_pending());
                    assert_eq!(allocations(), None);
                    future
                });
                churn();
            }
            assert_eq!(stats().open_arenas, open + 1);
            // It ends in yet another thread: done, or dropped on its way.
            in_thread(move || {
                if finished {
                    assert!(poll_once(future.as_mut()).is_ready());
                }
                drop(future);
                assert_eq!(allocations(), None);
            });
            assert_eq!(stats().open_arenas, open);
        }
    }
}

/// Blocks with contents that are checked, changed before each of `pauses` pauses; freed however it ends.
async fn work(seed: u64, pauses: usize) {
    struct Freed(Live<Shockwave>);
    impl Drop for Freed {
        fn drop(&mut self) {
            self.0.free_all(false);
        }
    }
    let mut rng = Rng(seed);
    let mut live = Freed(outside_arena(|| Live::new(&GLOBAL, 200)));
    for _ in 0..pauses {
        for _ in 0..40 {
            let blocks = live.0.blocks();
            match rng.below(4) {
                0 if !blocks.is_empty() => live.0.free(blocks[rng.below(blocks.len())]),
                1 if !blocks.is_empty() => {
                    let block = blocks[rng.below(blocks.len())];
                    _ = live.0.realloc(block, rng.size());
                }
                _ if live.0.has_room(1) => _ = live.0.alloc(rng.size(), rng.align()),
                _ => {}
            }
        }
        pause().await;
        live.0.check();
    }
}

#[test]
fn futures_that_take_turns_on_a_thread_keep_to_their_arenas() {
    let _alone = alone();
    let mut futures: Vec<_> =
        (0..20).map(|seed| Box::pin(work(seed, 1 + seed as usize % 7).in_request_arena())).collect();
    let mut rng = Rng(7);
    while !futures.is_empty() {
        let index = rng.below(futures.len());
        if poll_once(futures[index].as_mut()).is_ready() {
            drop(futures.swap_remove(index));
        }
        assert_eq!(allocations(), None);
    }
}

#[test]
fn a_panic_passes_through_and_leaves_the_arena() {
    let _alone = alone();
    let outer = RequestArena::new();
    let before = outer.run(|| {
        let mut seen = None;
        let dropped = Dropped(&mut seen);
        let mut future = Box::pin(
            async move {
                let _dropped = dropped;
                let text = format!("{} of the future", "a panic");
                pause().await;
                std::panic::panic_any(text);
            }
            .in_request_arena(),
        );
        let before = allocations();
        assert!(poll_once(future.as_mut()).is_pending());
        let panicked = catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut()))).expect_err("it panics");
        assert_eq!(allocations(), before, "the outer arena is entered again, and has got nothing");
        // The panic dropped what the future held, in the arena. The payload has outlived it.
        drop(future);
        assert!(seen.flatten().is_some_and(|allocations| allocations > 0));
        churn();
        assert_eq!(*panicked.downcast::<String>().expect("the payload"), "a panic of the future");
        before
    });
    assert!(before.is_some());
    assert_eq!(allocations(), None);
}

#[test]
fn a_panic_while_the_future_is_dropped_leaves_and_closes_the_arena() {
    struct Explosive;
    impl Drop for Explosive {
        fn drop(&mut self) {
            panic!("on drop");
        }
    }
    let _alone = alone();
    let open = stats().open_arenas;
    let explosive = Explosive;
    let mut future = Box::pin(
        async move {
            let _explosive = explosive;
            let _block = Box::new([1u8; 50]);
            pause().await;
        }
        .in_request_arena(),
    );
    assert!(poll_once(future.as_mut()).is_pending());
    assert_eq!(stats().open_arenas, open + 1);
    catch_unwind(AssertUnwindSafe(|| drop(future))).expect_err("it panics");
    assert_eq!(allocations(), None);
    assert_eq!(stats().open_arenas, open);
}

#[test]
fn an_executor_inside_a_poll_has_arenas_of_its_own() {
    let _alone = alone();
    run(async {
        let before = Box::new(String::from("outer"));
        let inner: String = run(async {
            // The executor's thread is in the outer arena, the future in its own.
            assert_eq!(allocations(), Some(0));
            let text = String::from("inner");
            pause().await;
            assert_eq!(allocations(), Some(1));
            text
        }
        .in_request_arena());
        assert_eq!(allocations(), Some(2), "what ran inside has not allocated here");
        pause().await;
        churn();
        assert_eq!((before.as_str(), inner.as_str()), ("outer", "inner"));
    }
    .in_request_arena());
}

#[test]
fn stepping_outside_lasts_as_long_as_the_future_polled_there() {
    let _alone = alone();
    let cached = run(async {
        let cached = async {
            assert_eq!(allocations(), None);
            pause().await;
            assert_eq!(allocations(), None);
            vec![3u8; 1000]
        }
        .outside_arena()
        .await;
        assert_eq!(allocations(), Some(0));
        cached
    }
    .in_request_arena());
    assert_eq!(cached, [3; 1000]);
}

#[test]
fn a_connection_has_an_arena_and_each_of_its_requests_one_inside() {
    let _alone = alone();
    let before = stats();
    let connection = async {
        let mut answers = Vec::with_capacity(10);
        for number in 0..10usize {
            let own = current_arena_stats().map_or(0, |stats| stats.allocations);
            let length = async {
                assert_eq!(allocations(), Some(0));
                let parts: Vec<String> = (0..number).map(|part| format!("part {part}")).collect();
                pause().await;
                parts.concat().len()
            }
            .in_request_arena()
            .await;
            assert_eq!(allocations(), Some(own), "a request leaves nothing in the connection's arena");
            answers.push(length);
            pause().await;
        }
        answers
    };
    assert_eq!(run(connection.in_request_arena()), (0..10).map(|n| n * 6).collect::<Vec<_>>());
    assert_eq!(stats().arenas_closed - before.arenas_closed, 11);
}

/// What the arena of a handle has done so far.
fn figures(handle: &ArenaHandle) -> ArenaStats {
    handle.stats().expect("nobody has it entered")
}

#[test]
fn a_handle_is_one_arena_for_all_who_have_it() {
    let _alone = alone();
    let open = stats().open_arenas;
    let handle = ArenaHandle::from(RequestArena::new());
    let mut first = Box::pin(work(1, 3).in_arena(handle.clone()));
    assert!(poll_once(first.as_mut()).is_pending());
    let allocations = figures(&handle).allocations;
    assert!(allocations > 0);
    let block = in_thread({
        let handle = handle.clone();
        move || handle.run(|| vec![5u8; 500])
    });
    assert_eq!(figures(&handle).allocations, allocations + 1);
    drop((handle, first));
    assert_eq!(stats().open_arenas, open, "it closes with its last owner, not with its blocks");
    churn();
    assert_eq!(block, [5; 500]);
}

#[test]
fn a_handle_is_entered_by_one_thread_at_a_time() {
    let _alone = alone();
    let handle = ArenaHandle::from(RequestArena::new());
    handle.run(|| {
        let block = vec![7u8; 300];
        in_thread(|| {
            with_request_arena(|| {
                handle
                    .run(|| assert_eq!(allocations_outside(), None, "outside of any, not in the one around"));
            });
            assert!(handle.stats().is_none());
        });
        // The same thread enters it again, and is still in it afterwards: nobody else has got in.
        let own = allocations();
        assert!(own.is_some_and(|own| own > 0));
        handle.run(|| assert_eq!(allocations(), own));
        assert_eq!(allocations(), own);
        in_thread(|| handle.run(|| assert_eq!(allocations_outside(), None)));
        assert_eq!(block, [7; 300]);
    });
    in_thread(|| handle.run(|| assert!(allocations_outside().is_some())));
}

/// [`allocations`] in a closure that allocates something first.
fn allocations_outside() -> Option<u64> {
    std::hint::black_box(vec![1u8; 200]);
    allocations()
}

#[test]
fn a_handle_that_panics_gives_its_turn_back() {
    let _alone = alone();
    let handle = ArenaHandle::from(RequestArena::new());
    catch_unwind(AssertUnwindSafe(|| handle.run(|| panic!("in the arena")))).expect_err("it panics");
    assert_eq!(allocations(), None);
    in_thread(|| handle.run(|| assert!(allocations().is_some())));
}

#[test]
fn a_handle_of_no_arena_runs_outside() {
    let _alone = alone();
    let none = ArenaHandle::none();
    assert!(!none.is_some() && none.stats().is_none() && !none.over_limit());
    with_request_arena(|| none.run(|| assert_eq!(allocations(), None)));
}

#[test]
fn threads_that_share_a_handle_keep_their_contents() {
    let _alone = alone();
    let handle = ArenaHandle::from(RequestArena::new());
    thread::scope(|scope| {
        for seed in 0..4 {
            let handle = handle.clone();
            scope.spawn(move || {
                for round in 0..100 {
                    run(work(seed * 1000 + round, 4).in_arena(handle.clone()));
                }
            });
        }
    });
    assert_eq!(figures(&handle).blocks, 0);
}
