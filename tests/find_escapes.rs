//! The escapes that are planted in `examples/find_escapes.rs` are found, and nothing else.
#![cfg(feature = "escape-trace")]

#[path = "../examples/find_escapes.rs"]
mod example;

use std::hint::black_box;

use example::{MISSES, NEW_NAMES, REQUESTS};
use shockwave_alloc::{
    EscapeReport, RequestArena, clear_escape_report, escape_report, stats, trace_escapes, with_request_arena,
};

/// Blocks and pinned bytes of the call stacks that go through the function of that name.
fn through(report: &EscapeReport, function: &str) -> (u64, u64) {
    let sites = report
        .sites
        .iter()
        .filter(|site| site.frames.iter().take(3).any(|frame| frame.function.ends_with(function)));
    sites.fold((0, 0), |(count, pinned), site| (count + site.count, pinned + site.pinned_bytes))
}

// One test: the table is the process's.
#[test]
fn planted_escapes_are_named_and_counted() {
    let report = example::run();
    let text = report.to_string();
    assert_eq!(report.arenas, REQUESTS as u64);
    let (cached, cached_pinned) = through(&report, "insert_into_cache");
    let (names, names_pinned) = through(&report, "remember_name");
    assert_eq!(cached, (REQUESTS / MISSES) as u64, "{text}");
    assert_eq!(names, (REQUESTS / NEW_NAMES) as u64, "{text}");
    assert!(cached_pinned > 0 && names_pinned > 0, "{text}");
    assert_eq!(through(&report, "render").0, 0, "{text}");
    assert_eq!(report.sites.iter().map(|site| site.count).sum::<u64>(), cached + names, "{text}");
    assert!(text.contains("insert_into_cache") && text.contains("remember_name"), "{text}");
    // The profile `release` of this crate has no debug information, from which lines come.
    assert!(text.contains("find_escapes.rs:") || !cfg!(debug_assertions), "{text}");
    // What the two planted functions allocate is all that is left, and it is as big as it says.
    let bytes: u64 = report.sites.iter().map(|site| site.bytes).sum();
    assert!((5_000..50_000).contains(&bytes), "{text}");
    assert!(!report.to_pprof().is_empty());

    clear_escape_report();
    assert!(escape_report().sites.is_empty());
    with_request_arena(|| drop(black_box(vec![1u8; 10])));
    assert_eq!(escape_report().arenas, 0, "tracing is off again");

    // Blocks that grow, shrink and move are followed, and what other threads free meanwhile is counted.
    trace_escapes(2);
    let before = stats().escaped_blocks;
    let kept: Vec<Vec<u8>> = (0..10)
        .map(|number| {
            let arena = RequestArena::new();
            let kept = arena.run(|| {
                let mut grows = Vec::new();
                (0..500).for_each(|_| grows.push(number));
                grows.shrink_to_fit();
                black_box(grows)
            });
            assert!(kept.iter().all(|&byte| byte == number));
            kept
        })
        .collect();
    trace_escapes(0);
    let report = escape_report();
    assert_eq!(report.arenas, 5);
    assert_eq!(report.sites.iter().map(|site| site.count).sum::<u64>(), 5, "{report}");
    assert!(stats().escaped_blocks >= before + 5);
    drop(kept);

    // What is freed before the arena ends has not escaped, wherever that happens.
    clear_escape_report();
    trace_escapes(1);
    let arena = RequestArena::new();
    let (here, there) = arena.run(|| (black_box(vec![1u8; 100]), black_box(vec![2u8; 100])));
    drop(here);
    std::thread::spawn(move || drop(there)).join().expect("no panic");
    assert_eq!(arena.close().escaped_blocks, 0);
    assert!(escape_report().sites.is_empty(), "{}", escape_report());

    // Arenas that go on in a chunk with survivors pin it once. The last one may still be in use.
    let before = stats().pinned_bytes;
    let kept: Vec<Vec<u8>> = (0..1000)
        .map(|number| {
            with_request_arena(|| {
                let _garbage = black_box(vec![0u8; 500]);
                if number % 4 == 0 { black_box(vec![1u8; 100]) } else { Vec::new() }
            })
        })
        .collect();
    trace_escapes(0);
    let (report, chunk) = (escape_report(), 64 << 10);
    let pinned: u64 = report.sites.iter().map(|site| site.pinned_bytes).sum();
    let real = stats().pinned_bytes - before;
    assert!(real >= 2 * chunk && pinned + chunk >= real && pinned <= real + chunk, "{real}: {report}");
    drop(kept);
}
