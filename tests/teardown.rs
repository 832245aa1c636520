//! The end of a thread, and of the process: destructors of thread-locals that run before and after the
//! allocator's own, and what runs after `main`.
//!
//! Thread-locals are destroyed in the reverse order of their first use. The allocator registers its
//! destructor at the thread's first allocation, so a thread-local used before that is destroyed after it
//! ("late"), any other before it ("early"). The tests check that this is so: in a late destructor a scope has
//! no effect any more.

mod bare_thread;
mod child;
mod churn;

use std::cell::RefCell;
use std::ffi::c_int;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use churn::{Block, Random, poison};
use shockwave_alloc::{ArenaGuard, RequestArena, Shockwave, Stats, stats, with_request_arena};

// Without pretenuring, so that what is allocated in a scope is in its arena.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// Statistics are the process's, so tests run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs a closure when the thread ends.
struct AtEnd(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(closure) = self.0.take() {
            closure();
        }
    }
}

thread_local! {
    static LATE: AtEnd = const { AtEnd(RefCell::new(None)) };
    static EARLY: AtEnd = const { AtEnd(RefCell::new(None)) };
}

/// Registers [`LATE`]'s destructor. Must come before the thread's first allocation.
fn register_late() {
    LATE.with(|_| ());
}

fn when_late(closure: impl FnOnce() + 'static) {
    LATE.with(|late| late.0.replace(Some(Box::new(closure))));
}

fn when_early(closure: impl FnOnce() + 'static) {
    EARLY.with(|early| early.0.replace(Some(Box::new(closure))));
}

/// Whether a scope still has an effect in this thread.
fn scopes_work() -> bool {
    let arena = RequestArena::new();
    let block = arena.run(|| std::hint::black_box(Box::new(1u8)));
    let counted = arena.stats().blocks;
    drop(block);
    counted > 0
}

/// Allocations of all kinds, in and out of a scope.
fn blocks(seed: u64) -> Vec<Block> {
    let mut random = Random::new(seed);
    let mut blocks: Vec<Block> = (0..30).map(|_| Block::new(1 + random.below(1000), 8, seed)).collect();
    blocks.push(Block::new(40 << 10, 8, seed));
    blocks
        .extend(with_request_arena(|| (0..30).map(|n| Block::new(1 + n * 10, 8, seed)).collect::<Vec<_>>()));
    blocks
}

/// Frees, reallocates and allocates.
fn work(mut blocks: Vec<Block>, seed: u64) -> Vec<Block> {
    blocks.iter_mut().step_by(2).for_each(|block| block.resize(block.size() / 2 + 300));
    blocks.truncate(40);
    let more = self::blocks(seed);
    blocks.iter().chain(&more).for_each(Block::check);
    drop(blocks);
    more
}

/// Panics if there is notably more memory than before.
fn assert_flat(before: &Stats, heaps: u64) {
    let now = stats();
    assert!(now.resident_bytes <= before.resident_bytes + (8 << 20), "resident\n{before}\n{now}");
    assert!(now.slab_pages <= before.slab_pages + 100, "pages\n{before}\n{now}");
    assert!(now.slab.blocks <= before.slab.blocks + 200, "blocks\n{before}\n{now}");
    assert!(now.heaps <= before.heaps + heaps, "heaps\n{before}\n{now}");
    assert_eq!((now.mid, now.large), (before.mid, before.large));
    assert_eq!(now.pinned_chunks, before.pinned_chunks, "{before}\n{now}");
}

/// Runs `body` in `rounds` bare threads, one after the other, and checks that memory stays flat.
fn many_threads(rounds: u64, body: fn(&mut u64)) {
    let _alone = alone();
    let mut warm = Stats::default();
    for round in 0..rounds {
        let mut seed = round;
        bare_thread::run(&mut seed, body);
        if round == rounds / 10 {
            warm = stats();
        }
        if round % 100 == 0 {
            poison();
        }
    }
    assert_flat(&warm, 1);
}

#[test]
fn the_allocator_works_in_late_destructors() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    many_threads(1200, |seed| {
        register_late();
        let seed = *seed;
        let alive = blocks(seed);
        when_late(move || {
            assert!(!scopes_work(), "the destructor is not late");
            let more = work(alive, seed + 1);
            work(more, seed + 2).truncate(3);
            RAN.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(RAN.load(Ordering::Relaxed), 1200);
}

#[test]
fn the_allocator_works_in_early_destructors() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    many_threads(1200, |seed| {
        let seed = *seed;
        let alive = blocks(seed);
        when_early(move || {
            assert!(scopes_work(), "the destructor is not early");
            let more = work(alive, seed + 1);
            work(more, seed + 2).truncate(3);
            RAN.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(RAN.load(Ordering::Relaxed), 1200);
}

#[test]
fn the_first_allocation_of_a_thread_is_in_a_destructor() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    static HANDED: Mutex<Vec<Block>> = Mutex::new(Vec::new());

    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            // The allocator's destructor is registered now and runs when this one has ended.
            assert!(scopes_work());
            let mut handed = HANDED.lock().unwrap();
            let seed = u64::from(RAN.fetch_add(1, Ordering::Relaxed));
            *handed = work(std::mem::take(&mut *handed), seed);
        }
    }
    thread_local!(static ONLY: Late = const { Late });

    many_threads(1200, |_| ONLY.with(|_| ()));
    assert_eq!(RAN.load(Ordering::Relaxed), 1200);
    HANDED.lock().unwrap().clear();
}

/// An arena and the guard that has it entered, both dropped when the thread ends.
struct Entered {
    guard: ManuallyDrop<ArenaGuard<'static>>,
    arena: ManuallyDrop<Box<RequestArena>>,
    arena_first: bool,
}

impl Entered {
    fn new(arena_first: bool) -> Entered {
        let arena = Box::new(RequestArena::new());
        // SAFETY: the guard only needs the arena's record to live on, which records do; `drop` may drop the
        // arena first exactly because a forgotten guard must be harmless.
        let borrowed: &'static RequestArena = unsafe { &*ptr::from_ref(&*arena) };
        Entered { guard: ManuallyDrop::new(borrowed.enter()), arena: ManuallyDrop::new(arena), arena_first }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // SAFETY: each is dropped once, or the guard not at all.
        unsafe {
            if !self.arena_first {
                ManuallyDrop::drop(&mut self.guard);
            }
            ManuallyDrop::drop(&mut self.arena);
        }
    }
}

#[test]
fn guards_and_arenas_are_dropped_by_late_and_early_destructors() {
    fn keep(seed: u64, when: impl FnOnce(Box<dyn FnOnce()>)) {
        let before = blocks(seed);
        let entered = Entered::new(seed.is_multiple_of(2));
        let in_scope: Vec<Block> = (0..100).map(|n| Block::new(1 + n, 8, seed)).collect();
        when(Box::new(move || {
            let more: Vec<Block> = (0..100).map(|n| Block::new(1 + n, 8, seed)).collect();
            drop(entered);
            let after = work(more, seed);
            in_scope.iter().chain(&before).for_each(Block::check);
            drop((in_scope, before, after));
        }));
    }
    many_threads(1200, |seed| {
        register_late();
        keep(*seed, when_late);
    });
    many_threads(1000, |seed| keep(*seed, when_early));
}

#[test]
fn a_scope_that_is_still_entered_when_the_thread_ends_is_left() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    many_threads(1200, |seed| {
        register_late();
        let seed = *seed;
        let arena = Box::new(RequestArena::new());
        std::mem::forget(arena.enter());
        let alive = blocks(seed);
        when_late(move || {
            let more = blocks(seed);
            alive.iter().for_each(Block::check);
            // The chunks are still the arena's until it is dropped, after the thread's heap is gone.
            drop(alive);
            drop(arena);
            drop(more);
            RAN.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(RAN.load(Ordering::Relaxed), 1200);
}

#[test]
fn an_arena_whose_guard_was_forgotten_is_free_when_its_thread_has_ended() {
    let open = {
        let _alone = alone();
        stats().open_arenas
    };
    many_threads(1000, |seed| {
        let mut handed = (*seed, None::<RequestArena>);
        bare_thread::run(&mut handed, |(seed, handed)| {
            let arena = RequestArena::new();
            std::mem::forget(arena.enter());
            let blocks = blocks(*seed);
            *handed = Some(arena);
            drop(blocks);
        });
        // This thread may use it as its own.
        let arena = handed.1.expect("the thread has made one");
        let block = arena.run(|| Block::new(100, 8, *seed));
        assert!(arena.stats().blocks >= 1);
        drop(arena);
        block.check();
    });
    let _alone = alone();
    assert_eq!(stats().open_arenas, open);
}

unsafe extern "C" {
    fn atexit(callback: extern "C" fn()) -> c_int;
}

/// What the main thread of a child leaves for its end. Runs before `main`, because the harness gives tests
/// another thread.
extern "C" fn before_main() {
    register_late();
    if std::env::var_os("SHOCKWAVE_TEST_PART").is_none() {
        return;
    }
    let alive = blocks(1);
    let also_alive = blocks(2);
    when_early(move || {
        assert!(scopes_work());
        work(alive, 3);
        say("early");
    });
    when_late(move || {
        assert!(!scopes_work());
        work(also_alive, 4);
        say("late");
    });
    // SAFETY: the callback takes nothing and may run at any time.
    assert_eq!(unsafe { atexit(at_exit) }, 0);
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn at_exit() {
    let kept = KEPT.lock().unwrap().take().expect("the test has left its blocks");
    let more = work(work(kept, 5), 6);
    more.iter().for_each(Block::check);
    poison();
    say("at exit");
}

static KEPT: Mutex<Option<Vec<Block>>> = Mutex::new(None);

/// Standard output is captured, and perhaps gone already.
fn say(what: &str) {
    writeln!(std::io::stderr(), "{what}").expect("standard error is open");
}

#[test]
fn the_allocator_works_when_the_process_ends() {
    if child::part().is_some() {
        // Freed by the callback, long after this thread has ended.
        *KEPT.lock().unwrap() = Some(blocks(7));
        return;
    }
    let command = child::command("the_allocator_works_when_the_process_ends", "ends");
    let (_, stderr) = child::run(command);
    assert_eq!(stderr.lines().collect::<Vec<_>>(), ["early", "late", "at exit"]);
}

#[test]
fn the_allocator_works_when_the_process_exits_in_a_test() {
    if child::part().is_some() {
        *KEPT.lock().unwrap() = Some(blocks(7));
        when_early(|| {
            work(blocks(8), 9);
            say("early");
        });
        std::process::exit(3);
    }
    let mut command = child::command("the_allocator_works_when_the_process_exits_in_a_test", "exits");
    let output = command.output().expect("the child starts");
    assert_eq!(output.status.code(), Some(3));
    // Here the destructors of the thread that calls `exit` run, and then the callback.
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().collect::<Vec<_>>(), ["early", "at exit"]);
}
