//! A program whose memory swings by more than what is kept for it: it is given back once, and then kept.

use std::hint::black_box;
use std::time::Duration;

use shockwave_alloc::{ScavengerConfig, Shockwave, start_scavenger, stats};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Allocates 160 MiB and frees them. Returns the bytes that were given back to the OS meanwhile.
fn swing() -> u64 {
    let before = stats().purged_bytes;
    let blocks: Vec<Vec<u8>> = (0..20_000).map(|number| vec![number as u8; 8 << 10]).collect();
    drop(black_box(blocks));
    stats().purged_bytes - before
}

/// Ends many periods, in which what was learned is forgotten. Then none ends for long.
fn forget() {
    let short =
        ScavengerConfig::DEFAULT.decay(Duration::from_millis(2)).longest_sleep(Duration::from_millis(2));
    let scavenger = start_scavenger(short).expect("a thread");
    std::thread::sleep(Duration::from_secs(1));
    drop(scavenger);
    drop(start_scavenger(ScavengerConfig::DEFAULT.decay(Duration::from_secs(3600))));
}

// One test: it is about the whole process.
#[test]
fn what_was_needed_again_is_kept_the_next_time() {
    for _ in 0..2 {
        forget();
        let first = swing();
        assert!(first >= 80 << 20, "too much is dirty, so it goes back at once: {first} B\n{}", stats());
        let rest: u64 = (0..20).map(|_| swing()).sum();
        assert!(rest <= first, "{first} B at first, then {rest} B in 20 times\n{}", stats());
    }
}
