//! A backing allocator that works for itself through the global allocator, as profilers do: with containers,
//! scopes and statistics of its own.

mod backing;
mod child;
mod churn;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use churn::{Block, Random, poison};
use shockwave_alloc::{Mode, RequestArena, Shockwave, outside_arena, set_mode, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave<Recorder> = Shockwave::with_backing(Recorder);

backing_tests!();

/// Notes a line for each call and keeps a table of live blocks.
struct Recorder;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LIVE: Mutex<Option<HashMap<usize, Vec<u8>>>> = Mutex::new(None);
/// Whether calls are recorded at all, and whether scopes are used for that.
static ON: AtomicBool = AtomicBool::new(false);
static SCOPES: AtomicBool = AtomicBool::new(false);

thread_local!(static WITHIN: Cell<bool> = const { Cell::new(false) });

impl Recorder {
    fn record(&self, what: &str, add: Option<(usize, usize)>, remove: Option<usize>) {
        if !ON.load(Ordering::Relaxed) || WITHIN.replace(true) {
            return;
        }
        if SCOPES.load(Ordering::Relaxed) {
            // Every way into and out of a scope, and then allocations outside of these.
            let length = with_request_arena(|| what.repeat(3).len());
            outside_arena(|| LINES.lock().unwrap().push(format!("{what} with a name of {length} B")));
            let arena = RequestArena::new();
            let text = arena.run(|| what.to_owned());
            drop(arena);
            assert_eq!(text, what);
            std::hint::black_box(stats());
        } else {
            LINES.lock().unwrap().push(format!("{what} with a name of {} B", what.len() * 3));
        }
        let mut live = LIVE.lock().unwrap();
        let live = live.get_or_insert_default();
        if let Some(address) = remove {
            live.remove(&address);
        }
        if let Some((address, size)) = add {
            live.insert(address, size.to_ne_bytes().repeat(4));
        }
        WITHIN.set(false);
    }
}

// SAFETY: all calls are those of `System`.
unsafe impl GlobalAlloc for Recorder {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on.
        let block = unsafe { System.alloc(layout) };
        self.record("alloc", Some((block.addr(), layout.size())), None);
        block
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        self.record("dealloc", None, Some(ptr.addr()));
        // SAFETY: passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let address = ptr.addr();
        // SAFETY: passed on.
        let moved = unsafe { System.realloc(ptr, layout, new_size) };
        self.record("realloc", Some((moved.addr(), new_size)), Some(address));
        moved
    }
}

/// Has the recorder work while an arena is entered, and checks that neither disturbs the other.
fn record_in_scopes(scopes: bool) {
    const LIMIT: usize = 400;
    SCOPES.store(scopes, Ordering::Relaxed);
    let mut random = Random::new(1);
    set_mode(Mode::Standard);
    let mut old: Vec<Block> = (0..LIMIT).map(|_| Block::new(1 + random.below(300), 8, 5)).collect();
    set_mode(Mode::Arena);
    let before = stats();
    let arena = RequestArena::new();
    ON.store(true, Ordering::Relaxed);
    arena.run(|| {
        let mut own: Vec<Block> = Vec::with_capacity(LIMIT + 20);
        own.extend((0..20).map(|n| Block::new(64, 8, n)));
        let mut allocated = arena.stats();
        for block in &mut old {
            block.resize(1 + random.below(600));
            let now = arena.stats();
            assert_eq!((now.blocks, now.bytes), (allocated.blocks, allocated.bytes), "records in the arena");
            own.push(Block::new(64, 8, random.next()));
            allocated = arena.stats();
        }
        // What the program allocated in the arena is not where the recorder has written.
        own.iter().for_each(Block::check);
        own.drain(..).step_by(2).for_each(drop);
        old.truncate(LIMIT / 2);
    });
    ON.store(false, Ordering::Relaxed);
    drop(arena);
    assert!(scopes || stats().escaped_blocks == before.escaped_blocks);
    assert_eq!(stats().pinned_chunks, before.pinned_chunks);
    poison();

    let lines = std::mem::take(&mut *LINES.lock().unwrap());
    assert_eq!(lines.len(), LIMIT + LIMIT / 2);
    assert!(lines[..LIMIT].iter().all(|line| line == "realloc with a name of 21 B"));
    assert!(lines[LIMIT..].iter().all(|line| line == "dealloc with a name of 21 B"));
    let live = LIVE.lock().unwrap().take().unwrap();
    assert_eq!(live.len(), LIMIT / 2);
    assert!(old.iter().all(|block| live[&block.address()] == block.size().to_ne_bytes().repeat(4)));
}

#[test]
fn records_made_in_a_scope_stay_out_of_it() {
    if child::alone("records_made_in_a_scope_stay_out_of_it") {
        record_in_scopes(false);
    }
}

#[test]
fn the_backing_allocator_may_use_scopes_itself() {
    if child::alone("the_backing_allocator_may_use_scopes_itself") {
        record_in_scopes(true);
    }
}
