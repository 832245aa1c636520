//! Mid-size blocks that a thread keeps for its next requests: who gets them, and that they go back when it purges or ends.

use std::alloc::GlobalAlloc;
use std::thread;

use common::{Live, layout};
use shockwave_alloc::{Shockwave, purge, stats};

mod common;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const KIB: usize = 1 << 10;

/// Allocates blocks at once and frees them, of which the thread keeps some.
fn use_some() {
    let mut live = Live::new(&GLOBAL, 4);
    for _ in 0..4 {
        live.alloc(200 << 10, 8);
    }
    live.free_all(true);
}

// One test: what other threads keep would be in the way.
#[test]
fn what_a_thread_keeps() {
    it_goes_back_when_the_thread_purges_or_ends();
    what_shrinks_does_not_take_a_roomy_block();
}

fn it_goes_back_when_the_thread_purges_or_ends() {
    purge();
    let (begin, purged) = (stats(), || purge() as u64);
    use_some();
    let kept = stats();
    assert_eq!((kept.mid, kept.dirty_bytes), (begin.mid, 0), "some of it is kept, with the span around");
    assert!(purged() >= 1 << 20, "the span is free again");
    thread::spawn(use_some).join().expect("no panic");
    assert!(purged() >= 1 << 20, "the span of the thread that ended is free again");
}

fn what_shrinks_does_not_take_a_roomy_block() {
    // A new thread keeps nothing yet, and has freed nobody else's blocks.
    let test = || {
        // SAFETY: the blocks are used with their layouts, and only once.
        unsafe {
            let large = GLOBAL.alloc(layout(2048 * KIB, 8));
            let roomy = GLOBAL.alloc(layout(512 * KIB, 8));
            GLOBAL.dealloc(roomy, layout(512 * KIB, 8));
            let shrunk = GLOBAL.realloc(large, layout(2048 * KIB, 8), 40 * KIB);
            assert!(shrunk != large && shrunk != roomy);
            // It was there to be taken.
            let small = GLOBAL.alloc(layout(16 * KIB, 8));
            let grown = GLOBAL.realloc(small, layout(16 * KIB, 8), 40 * KIB);
            assert_eq!(grown, roomy);
            GLOBAL.dealloc(grown, layout(40 * KIB, 8));
            GLOBAL.dealloc(shrunk, layout(40 * KIB, 8));
        }
    };
    thread::spawn(test).join().expect("no panic");
}
