//! Futures in arenas on tokio's runtime of several threads: tasks that migrate, that are cancelled at any point, that wait for
//! blocking work and for each other. Every block has contents that are checked, while other arenas write over what is free.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shockwave_alloc::{
    ArenaFutureExt, ArenaHandle, RequestArena, Shockwave, current_arena_stats, outside_arena, stats,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking, yield_now};
use tokio::time::{sleep, timeout};

use common::{Block, Live, Rng, alone, churn};

mod common;

// What is tested here is what becomes of blocks in arenas; pretenuring would place those that escape outside.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// A runtime of four threads, and a thread that writes over free memory until this is dropped.
struct Busy {
    runtime: Option<Runtime>,
    churning: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn start() -> Busy {
        let churning = Arc::new(AtomicBool::new(true));
        let going_on = Arc::clone(&churning);
        let thread = std::thread::spawn(move || {
            while going_on.load(Ordering::Relaxed) {
                churn();
                std::thread::yield_now();
            }
        });
        let runtime = Builder::new_multi_thread().worker_threads(4).enable_time().build().expect("a runtime");
        Busy { runtime: Some(runtime), churning, thread: Some(thread) }
    }

    /// Runs a task to its end, on a worker.
    fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = self.runtime.as_ref().expect("it runs");
        runtime.block_on(async { tokio::spawn(task).await.expect("no panic") })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // With it end the tasks that nobody has waited for.
        drop(self.runtime.take());
        self.churning.store(false, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Runs a test: afterwards no arena may be open that was not before.
fn test<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> T {
    let _alone = alone();
    let open = stats().open_arenas;
    let busy = Busy::start();
    let output = busy.run(task);
    drop(busy);
    assert_eq!(stats().open_arenas, open, "an arena was not closed");
    output
}

fn in_arena() -> bool {
    current_arena_stats().is_some()
}

/// Blocks that are freed however their owner ends, after a look at their contents.
struct Blocks(Live<Shockwave>);

impl Blocks {
    fn new() -> Blocks {
        Blocks(outside_arena(|| Live::new(&GLOBAL, 100)))
    }

    /// Allocates, frees and changes some blocks.
    fn change(&mut self, rng: &mut Rng) {
        for _ in 0..20 {
            let blocks = self.0.blocks();
            match rng.below(4) {
                0 if !blocks.is_empty() => self.0.free(blocks[rng.below(blocks.len())]),
                1 if !blocks.is_empty() => {
                    let block = blocks[rng.below(blocks.len())];
                    _ = self.0.realloc(block, 1 + rng.below(3000));
                }
                _ if self.0.has_room(1) => _ = self.0.alloc(1 + rng.below(1000), rng.align().min(64)),
                _ => {}
            }
        }
    }

    /// All but the first `count` are freed, these are the caller's.
    fn keep(mut self, count: usize) -> Vec<Block> {
        let kept = (0..count.min(self.0.blocks().len()))
            .map(|_| {
                let block = self.0.blocks()[0];
                self.0.take(block)
            })
            .collect();
        self.0.free_all(true);
        kept
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.0.free_all(false);
    }
}

/// Frees blocks of another owner.
fn free_all(blocks: Vec<Block>) {
    let mut here = Blocks::new();
    for block in blocks {
        here.0.adopt(block);
        here.0.free(block);
    }
}

/// The work of a request with `pauses` awaits, after which it checks what it has. Three blocks outlive it.
async fn request(seed: u64, pauses: usize) -> Vec<Block> {
    let mut rng = Rng(seed);
    let mut blocks = Blocks::new();
    for _ in 0..pauses {
        assert!(in_arena());
        blocks.change(&mut rng);
        match rng.below(8) {
            0 => sleep(Duration::from_micros(rng.below(300) as u64)).await,
            1 => blocks.change(&mut rng),
            _ => yield_now().await,
        }
        assert!(in_arena());
        blocks.0.check();
    }
    blocks.keep(3)
}

#[test]
fn tasks_of_a_join_set_migrate_and_what_they_return_stays() {
    test(async {
        let mut requests = JoinSet::new();
        for seed in 0..300 {
            requests.spawn(request(seed, 10).in_request_arena());
        }
        let mut kept = Vec::new();
        while let Some(blocks) = requests.join_next().await {
            assert!(!in_arena());
            kept.extend(blocks.expect("no panic"));
        }
        assert!(kept.len() > 600);
        free_all(kept);
    });
}

#[test]
fn tasks_that_are_aborted_free_in_their_arena() {
    test(async {
        let mut rng = Rng(3);
        for round in 0..30 {
            let mut requests = JoinSet::new();
            for seed in 0..10 {
                requests.spawn(
                    async move {
                        loop {
                            free_all(request(seed, 5).await);
                        }
                    }
                    .in_request_arena(),
                );
            }
            // Some are aborted before their first poll, some while they are polled, some while they wait.
            match round % 3 {
                0 => {}
                1 => yield_now().await,
                _ => sleep(Duration::from_micros(rng.below(1000) as u64)).await,
            }
            requests.abort_all();
            while let Some(ended) = requests.join_next().await {
                assert!(ended.expect_err("it runs for ever").is_cancelled());
            }
        }
    });
}

#[test]
fn the_loser_of_a_select_is_dropped_in_its_arena() {
    test(async {
        for seed in 0..200u64 {
            let (one, two) = (1 + seed as usize % 7, 1 + seed as usize % 5);
            // Both are polled by turns, in one task.
            let blocks = tokio::select! {
                blocks = request(seed, one).in_request_arena() => blocks,
                blocks = request(seed + 1000, two).in_request_arena() => blocks,
            };
            assert!(!in_arena());
            free_all(blocks);
        }
    });
}

#[test]
fn a_select_inside_an_arena_drops_its_loser_there() {
    test(async {
        let cancelled = async {
            let mut kept = Vec::new();
            for seed in 0..100 {
                tokio::select! {
                    biased;
                    blocks = request(seed, 4) => free_all(blocks),
                    () = async { for _ in 0..seed % 6 { yield_now().await } } => {}
                }
                assert!(in_arena());
                kept.push(format!("round {seed}"));
            }
            kept
        };
        let kept = cancelled.in_request_arena().await;
        assert!(kept.iter().zip(0..).all(|(text, seed)| *text == format!("round {seed}")));
    });
}

#[test]
fn timeouts_around_and_inside_an_arena() {
    test(async {
        for seed in 0..40 {
            let endless = async move {
                loop {
                    free_all(request(seed, 3).await);
                }
            };
            timeout(Duration::from_micros(seed * 50), endless.in_request_arena()).await.expect_err("endless");
            assert!(!in_arena());
            let inside = async {
                let text = format!("before {seed}");
                let elapsed = timeout(Duration::from_micros(seed * 50), std::future::pending::<()>()).await;
                assert!(in_arena() && elapsed.is_err());
                text
            };
            assert_eq!(inside.in_request_arena().await, format!("before {seed}"));
        }
    });
}

#[test]
fn spawned_tasks_and_blocking_work_do_not_inherit() {
    test(
        async {
            let words: Vec<String> = (0..50).map(|n| format!("word {n}")).collect();
            assert!(in_arena());
            let task = tokio::spawn(async { (in_arena(), vec![String::from("of the task"); 20]) });
            let blocking = spawn_blocking(|| (in_arena(), vec![String::from("of a thread"); 20]));
            let ((task_in, task), (blocking_in, blocking)) = (task.await.unwrap(), blocking.await.unwrap());
            assert!(in_arena() && !task_in && !blocking_in);
            assert!(task.iter().all(|text| text == "of the task"));
            assert!(blocking.iter().all(|text| text == "of a thread"));
            assert!(words.iter().zip(0..).all(|(word, n)| *word == format!("word {n}")));
        }
        .in_request_arena(),
    );
}

#[test]
fn a_handle_lets_blocking_work_join_and_keeps_the_arena_open() {
    test(async {
        let (finish, finished) = oneshot::channel::<()>();
        let (sender, mut receiver) = mpsc::channel(1);
        let arena = ArenaHandle::from(RequestArena::new());
        let joined = arena.clone();
        async move {
            let own = vec![1u8; 300];
            let inside = joined.clone();
            // While the request waits, the thread can enter.
            let text = spawn_blocking(move || {
                inside.run(|| (in_arena(), format!("{} in the request's arena", "blocking work")))
            });
            let (was_in, text) = text.await.unwrap();
            assert!(was_in && own == [1; 300]);
            // A task that goes on when the request is done.
            tokio::spawn(
                async move {
                    let text = format!("{text}, and a task");
                    let _ = finished.await;
                    assert!(in_arena());
                    sender.send(text).await.unwrap();
                }
                .in_arena(joined),
            );
        }
        .in_arena(arena)
        .await;
        yield_now().await;
        finish.send(()).unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "blocking work in the request's arena, and a task");
    });
}

#[test]
fn tasks_that_join_one_arena_at_once_run_inside_or_outside() {
    test(async {
        for round in 0..20 {
            let arena = ArenaHandle::from(RequestArena::new());
            let mut tasks = JoinSet::new();
            for seed in 0..8 {
                tasks.spawn(
                    async move {
                        let mut rng = Rng(seed + round * 100);
                        let mut blocks = Blocks::new();
                        let mut inside = 0;
                        for _ in 0..20 {
                            inside += u32::from(in_arena());
                            blocks.change(&mut rng);
                            yield_now().await;
                            blocks.0.check();
                        }
                        inside
                    }
                    .in_arena(arena.clone()),
                );
            }
            let mut inside = 0;
            while let Some(polls) = tasks.join_next().await {
                inside += polls.expect("no panic");
            }
            assert!(inside > 0, "nobody ever got in");
            // What the runtime itself made in there and keeps, its lists of wakers, is a block or two per worker.
            assert!(arena.stats().expect("nobody is in it").blocks <= 8);
        }
    });
}

#[test]
fn a_future_that_blocks_on_others_inside_a_poll() {
    test(async {
        let mut tasks = JoinSet::new();
        for seed in 0..20 {
            tasks.spawn(
                async move {
                    let before = format!("before {seed}");
                    // Another worker takes over this one's tasks, and this thread runs an executor inside the poll.
                    let blocks = tokio::task::block_in_place(|| {
                        Handle::current().block_on(request(seed, 5).in_request_arena())
                    });
                    assert!(in_arena());
                    assert_eq!(before, format!("before {seed}"));
                    free_all(blocks);
                    yield_now().await;
                    assert_eq!(before, format!("before {seed}"));
                }
                .in_request_arena(),
            );
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no panic");
        }
    });
}

#[test]
fn a_task_that_panics_closes_its_arena_and_spares_its_worker() {
    test(async {
        for seed in 0..50 {
            let task = tokio::spawn(
                async move {
                    let mut blocks = Blocks::new();
                    blocks.change(&mut Rng(seed));
                    yield_now().await;
                    // Not through the hook, which would print.
                    std::panic::resume_unwind(Box::new(format!("panic {seed}")));
                }
                .in_request_arena(),
            );
            let payload = task.await.expect_err("it panics").into_panic();
            assert_eq!(*payload.downcast::<String>().expect("the payload"), format!("panic {seed}"));
            // Whatever worker it was has no arena entered.
            assert!(!tokio::spawn(async { in_arena() }).await.unwrap());
        }
    });
}

#[test]
fn wakers_timers_and_channel_blocks_outlive_the_request_that_made_them() {
    test(async {
        let notify = Arc::new(Notify::new());
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut waiting = JoinSet::new();
        for seed in 0..50usize {
            let (notify, sender) = (Arc::clone(&notify), sender.clone());
            waiting.spawn(
                async move {
                    // Blocks of the channel's list are made by whoever sends.
                    for number in 0..40 {
                        sender.send(format!("message {number} of {seed}")).expect("somebody receives");
                    }
                    let notified = notify.notified();
                    let _ = timeout(Duration::from_millis(seed as u64 % 5), notified).await;
                }
                .in_request_arena(),
            );
        }
        drop(sender);
        notify.notify_waiters();
        while waiting.join_next().await.is_some() {}
        churn();
        let mut received = 0;
        while let Some(text) = receiver.recv().await {
            assert!(text.starts_with("message "), "{text}");
            received += 1;
        }
        assert_eq!(received, 50 * 40);
    });
}

#[test]
fn a_runtime_that_ends_drops_its_tasks_in_their_arenas() {
    let _alone = alone();
    let open = stats().open_arenas;
    let busy = Busy::start();
    for seed in 0..20 {
        busy.run(async move {
            tokio::spawn(
                async move {
                    loop {
                        free_all(request(seed, 5).await);
                    }
                }
                .in_request_arena(),
            );
        });
    }
    drop(busy);
    assert_eq!(stats().open_arenas, open);
}
