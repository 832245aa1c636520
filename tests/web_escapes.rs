//! What of a plain JSON request outlives its arena, in servers on axum, hyper and tonic, and what stays pinned.
#![cfg(all(feature = "escape-trace", feature = "tower", feature = "tracing"))]

use std::sync::Mutex;

use example::{CASES, bytes, pinned::pinned, run, run_traced};

#[allow(dead_code, reason = "the example prints more than is looked at here")]
#[path = "../examples/web_escapes/main.rs"]
mod example;

/// The counters are the process's.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn less_than_one_percent_of_a_plain_json_request_escapes() {
    let _alone = ALONE.lock();
    for case in CASES.iter().filter(|case| case.is_plain()) {
        let (left, report) = run_traced(*case, 200).expect("right answers");
        assert_eq!(left.arenas, 200, "{case:?}");
        assert!(left.bytes > 200 * 3_000, "{left:?}");
        assert!(bytes(&report) * 100 < left.bytes, "{} of {left:?}: {report}", bytes(&report));
        assert!(left.escaped_blocks * 50 < 200, "{left:?}: {report}");
    }
    // As it runs there is nothing to learn from, either.
    let left = run(CASES[0], 2_000).expect("right answers");
    assert!(left.escaped_blocks * 50 < 2_000 && left.pretenured_bytes * 100 < left.bytes, "{left:?}");
}

#[test]
fn pinned_memory_is_flat() {
    let _alone = ALONE.lock();
    // From the first requests on: later ones would be helped by pretenuring.
    let after: Vec<u64> = (1..=20).map(|tens| tens * 10).chain([2_000, 10_000, 20_000]).collect();
    let pinned = pinned(&after).expect("right answers");
    // What is queued outlives its arena, but is not in it.
    assert!(pinned.iter().all(|&bytes| bytes == 0), "{pinned:?}");
}
