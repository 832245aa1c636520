//! A backing allocator that opens scopes of its own, called with no room in the reservation, by what steps outside of an arena.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use shockwave_alloc::{ArenaHandle, RequestArena, Shockwave, current_arena_stats, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave<Scoped> = Shockwave::with_backing(Scoped).with_reservation(6 << 20);

/// The system's memory, with a scope around nothing in each call.
struct Scoped;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicUsize = AtomicUsize::new(0);

thread_local!(static WITHIN: Cell<bool> = const { Cell::new(false) });

impl Scoped {
    fn use_scopes(&self) {
        if WITHIN.replace(true) {
            return;
        }
        CALLS.fetch_add(1, Ordering::Relaxed);
        let before = usize::from(current_arena_stats().is_some());
        with_request_arena(|| std::hint::black_box(Box::new(1u8)));
        let after = usize::from(current_arena_stats().is_some());
        INSIDE.fetch_add(before + after, Ordering::Relaxed);
        WITHIN.set(false);
    }
}

// SAFETY: all calls are those of `System`.
unsafe impl GlobalAlloc for Scoped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.use_scopes();
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        self.use_scopes();
        // SAFETY: passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[test]
fn the_backing_allocator_finds_no_way_into_an_arena() {
    let arena = RequestArena::new();
    let block = arena.run(|| Box::new([7u8; 100]));
    let mut blocks = Vec::with_capacity(1 << 20);
    for size in (16..1024).step_by(16) {
        let before = stats().fallbacks;
        while stats().fallbacks == before {
            blocks.extend((0..100).map(|_| Vec::<u8>::with_capacity(size)));
        }
    }
    let calls = CALLS.load(Ordering::Relaxed);
    let served = arena.stats().allocations;
    // A handle is for others too, so it is made outside of the arena that is entered.
    let handles = arena.run(|| [0; 10].map(|_| ArenaHandle::from(RequestArena::new())));
    assert!(CALLS.load(Ordering::Relaxed) >= calls + 10, "the handles are in the reservation");
    assert_eq!(INSIDE.load(Ordering::Relaxed), 0);
    assert_eq!(arena.stats().allocations, served);
    drop((handles, blocks));
    assert!(block.iter().all(|&byte| byte == 7));
}
