//! Tracing escapes over a backing allocator that opens arenas for itself: its work for the trace is not traced.
#![cfg(all(feature = "escape-trace", unix))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use shockwave_alloc::{Shockwave, escape_report, stats, trace_escapes, with_request_arena};

struct Backing;

thread_local!(static WITHIN: Cell<bool> = const { Cell::new(false) });

/// Works in an arena, and leaves a block of it behind until that is closed.
fn work() {
    if !WITHIN.replace(true) {
        drop(with_request_arena(|| black_box(vec![3u8; 40])));
        WITHIN.set(false);
    }
}

// SAFETY: all calls are those of `System`.
unsafe impl GlobalAlloc for Backing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        work();
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        work();
        // SAFETY: passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

// So small that what the trace itself allocates comes to the backing allocator.
#[global_allocator]
static GLOBAL: Shockwave<Backing> = Shockwave::with_backing(Backing).with_reservation(4 << 20);

#[test]
fn a_backing_allocator_with_arenas_is_traced_without_a_deadlock() {
    // SAFETY: ends the process if the test hangs.
    unsafe { libc::alarm(60) };
    trace_escapes(1);
    let kept: Vec<Vec<Vec<u8>>> = (0..2000u32)
        .map(|round| with_request_arena(|| (0..8).map(|part| vec![(round + part) as u8; 200]).collect()))
        .collect();
    trace_escapes(0);
    assert!(stats().fallbacks > 1000, "the backing allocator is not reached");
    let report = escape_report();
    assert!(report.arenas >= 2000 && !report.sites.is_empty(), "{report}");
    for (round, parts) in kept.iter().enumerate() {
        for (part, bytes) in parts.iter().enumerate() {
            assert!(bytes.iter().all(|&byte| byte == (round + part) as u8));
        }
    }
}
