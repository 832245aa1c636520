//! Counts of the feature `contention`: nothing for requests of one thread, and something for everything that is counted.
#![cfg(feature = "contention")]

use std::hint::black_box;
use std::time::Duration;

use shockwave_alloc::contention::{Contention, contention, moved_lines, reset};
use shockwave_alloc::{
    Mode, ScavengerConfig, Shockwave, purge, set_mode, start_scavenger, with_request_arena,
};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

fn counted(work: impl FnOnce()) -> Contention {
    reset();
    work();
    contention()
}

/// Small objects, and a buffer that grows through the slab into mid-size blocks and there, too.
fn request() {
    let names: Vec<String> = (0..50).map(|number| format!("name {number}")).collect();
    let mut body = Vec::new();
    for name in names.iter().cycle().take(20_000) {
        body.extend_from_slice(name.as_bytes());
    }
    black_box((names, body));
}

// One test, since the counts are of the whole process.
#[test]
fn what_stays_on_its_thread_is_free_and_the_rest_is_counted() {
    // No round by the way.
    let _scavenger = start_scavenger(ScavengerConfig::DEFAULT.decay(Duration::from_secs(3600))).unwrap();
    std::thread::sleep(Duration::from_millis(50));

    for mode in [Mode::Slab, Mode::Arena] {
        set_mode(mode);
        (0..100).for_each(|_| with_request_arena(request));
        let counts = counted(|| (0..100).for_each(|_| with_request_arena(request)));
        let Contention { read_modify_writes, locks, system_calls, line_transfers, unplaced, .. } = counts;
        let all = [read_modify_writes, locks, system_calls, line_transfers, unplaced];
        assert_eq!(all, [0; 5], "{mode:?}: {counts:?}");
    }

    // More than any cache of a thread has.
    let locked = counted(|| drop(black_box((0..8).map(|_| vec![1u8; 900 << 10]).collect::<Vec<_>>())));
    assert!(locked.locks >= 8 && locked.read_modify_writes >= 2 * locked.locks, "{locked:?}");
    assert_eq!(locked.shared_lines_written, 0, "{locked:?}");

    let purged = counted(|| assert!(purge() > 0));
    assert!(purged.system_calls > 0, "{purged:?}");

    let blocks: Vec<Box<[u8; 64]>> = (0..1000).map(|_| Box::new([1; 64])).collect();
    let remote = counted(|| {
        // Joined, so that the end of the thread is counted, too.
        std::thread::spawn(|| drop(blocks)).join().unwrap();
        black_box((0..2000).map(|_| Box::new([1u8; 64])).collect::<Vec<_>>());
    });
    // Chains of 64 blocks, each sent by one exchange.
    assert!((1000 / 64..400).contains(&remote.read_modify_writes), "{remote:?}");
    assert!(remote.line_transfers > 0 && remote.shared_lines_written > 0, "{remote:?}");
    assert_eq!(moved_lines().map(|(_, times)| times).sum::<u64>(), remote.line_transfers);
}
