//! In slab mode, without a scavenger, requests see to it that memory goes back, though their threads' bins have all that they need.

use std::hint::black_box;
use std::time::{Duration, Instant};

use shockwave_alloc::{Mode, Shockwave, purge, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_mode(Mode::Slab);

/// A spike of 60 MiB, and `request` 50 times each 20 ms until most of it has gone back.
fn goes_back_with(request: impl Fn()) {
    purge();
    let resident = || stats().resident_bytes;
    let before = resident();
    let blocks: Vec<_> = (0..60_000).map(|_| black_box(vec![1u8; 1000])).collect();
    let peak = resident() - before;
    drop(blocks);
    // Its blocks are in the bins from here on.
    request();
    let begin = Instant::now();
    while resident() > before + peak * 2 / 5 && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
        (0..50).for_each(|_| request());
    }
    let left = resident().saturating_sub(before);
    assert!(left <= peak * 2 / 5, "{left} of {peak} left\n{}", stats());
}

// One test: it is about the whole process.
#[test]
fn memory_goes_back_with_traffic() {
    goes_back_with(|| with_request_arena(|| drop(black_box(vec![1u8; 100]))));
    goes_back_with(|| drop(black_box(vec![1u8; 32 << 10])));
}
