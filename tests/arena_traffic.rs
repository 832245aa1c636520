//! In arena mode, without a scavenger, few requests see to it that much memory goes back.

use std::hint::black_box;
use std::time::Duration;

use shockwave_alloc::{Shockwave, purge, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Requests that come after the spike, 100 a second at most. One in 32 gives back 4 MiB of its own accord.
const REQUESTS: usize = 400;

// One test: it is about the whole process.
#[test]
fn memory_goes_back_with_few_requests() {
    purge();
    let resident = || stats().resident_bytes;
    let before = resident();
    let blocks: Vec<_> = (0..150_000).map(|_| black_box(vec![1u8; 1000])).collect();
    let peak = resident() - before;
    // One in 20 keeps its page, so that only what lies between them can go back.
    let survivors: Vec<_> = blocks.into_iter().step_by(20).collect();
    for _ in 0..REQUESTS {
        with_request_arena(|| drop(black_box(vec![1u8; 100])));
        std::thread::sleep(Duration::from_millis(10));
    }
    let left = resident().saturating_sub(before);
    assert!(left <= peak * 2 / 5, "{left} of {peak} left\n{}", stats());
    assert!(survivors.iter().all(|block| block.iter().all(|byte| *byte == 1)));
}
