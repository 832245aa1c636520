//! A child forked while other threads close traced arenas may close traced arenas of its own.
#![cfg(all(feature = "escape-trace", unix))]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use shockwave_alloc::{Shockwave, escape_report, trace_escapes, with_request_arena};

// Without pretenuring: arenas go on to have survivors.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

#[test]
fn a_child_traces_after_a_fork() {
    trace_escapes(1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(with_request_arena(|| (0..50).map(|part| vec![part as u8; 20]).collect::<Vec<_>>()));
            }
        });
        let mut failed = Vec::new();
        for _ in 0..200 {
            // SAFETY: the child only allocates and frees, which the allocator allows, and ends without running anything else.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "fork");
            if child == 0 {
                // SAFETY: ends the child if it hangs.
                unsafe { libc::alarm(10) };
                drop(black_box(with_request_arena(|| vec![1u8; 30])));
                // SAFETY: has no preconditions.
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: the child is this process's own and the pointer valid.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            if status != 0 {
                failed.push(status);
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(failed, [0; 0], "a child hung or died");
    });
    trace_escapes(0);
    assert!(escape_report().arenas > 0);
}
