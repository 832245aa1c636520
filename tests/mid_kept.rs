//! Mid-size blocks that a thread keeps for its next requests go back when it purges or ends.

use std::thread;

use common::Live;
use shockwave_alloc::{Shockwave, purge, stats};

mod common;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

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
fn what_a_thread_keeps_goes_back_when_it_purges_or_ends() {
    purge();
    let (begin, purged) = (stats(), || purge() as u64);
    use_some();
    let kept = stats();
    assert_eq!((kept.mid, kept.dirty_bytes), (begin.mid, 0), "some of it is kept, with the span around");
    assert!(purged() >= 4 << 20, "the span is free again");
    thread::spawn(use_some).join().expect("no panic");
    assert!(purged() >= 4 << 20, "the span of the thread that ended is free again");
}
