//! `SHOCKWAVE_ESCAPES`: what it switches on, and what it says when it is not understood.

use std::process::Command;

use shockwave_alloc::{Shockwave, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Output and standard error of the child with `SHOCKWAVE_ESCAPES` set to `value`.
fn run(value: &str) -> (String, String) {
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "the_variable_switches_tracing_on", "--nocapture", "--test-threads=1"])
        .env("SHOCKWAVE_ESCAPES", value)
        .env("ESCAPES_CHILD", "1")
        .env_remove("SHOCKWAVE_MODE")
        .output()
        .expect("the child starts");
    assert!(output.status.success(), "{output:?}");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn the_variable_switches_tracing_on() {
    if std::env::var_os("ESCAPES_CHILD").is_some() {
        (0..10).for_each(|_| drop(with_request_arena(|| vec![1u8; 10])));
        #[cfg(feature = "escape-trace")]
        println!("traced {}", shockwave_alloc::escape_report().arenas);
        return;
    }
    if cfg!(feature = "escape-trace") {
        for (value, traced) in [("0", 0), ("1", 10), ("5", 2)] {
            let (out, err) = run(value);
            assert!(out.contains(&format!("traced {traced}\n")), "{value}: {out}{err}");
            assert!(!err.contains("SHOCKWAVE_ESCAPES"), "{err}");
        }
    }
    // Without the feature no value is.
    let (_, err) = run("often");
    assert!(err.contains("SHOCKWAVE_ESCAPES=often is not understood; accepted: with the feature"), "{err}");
}
