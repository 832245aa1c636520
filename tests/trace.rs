//! `SHOCKWAVE_TRACE`: the lines, field by field.

use std::process::Command;

use shockwave_alloc::{Shockwave, with_request_arena};

// Without pretenuring, so that what is allocated in a scope is in its arena.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// What the child does: 25 arenas on one thread, each with one block that escapes and one object that is too big.
fn work() {
    for round in 0..25 {
        let (escaped, big) = with_request_arena(|| (format!("request {round}"), vec![1u8; 100_000]));
        drop((escaped, big));
    }
    drop(std::hint::black_box(vec![1u8; 64 << 20]));
}

/// Standard error of a run of `work` with `SHOCKWAVE_TRACE` set to `value`.
fn trace(value: &str) -> Vec<String> {
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "lines_tell_what_happened", "--nocapture", "--test-threads=1"])
        .env("SHOCKWAVE_TRACE", value)
        .env("TRACE_CHILD", "1")
        .env_remove("SHOCKWAVE_MODE")
        .output()
        .expect("the child starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    text.lines().filter(|line| line.starts_with("shockwave:")).map(String::from).collect()
}

/// The value of a field of a line.
fn field(line: &str, name: &str) -> u64 {
    line.split(' ')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no field {name} in {line:?}"))
}

#[test]
fn lines_tell_what_happened() {
    if std::env::var_os("TRACE_CHILD").is_some() {
        return work();
    }
    assert_eq!(trace("0"), [""; 0]);

    let lines = trace("10");
    let arenas: Vec<&String> = lines.iter().filter(|line| line.starts_with("shockwave: arenas ")).collect();
    assert_eq!(arenas.len(), 2, "{lines:#?}");
    for (line, closed) in arenas.iter().zip([10, 20]) {
        assert_eq!(field(line, "closed"), closed);
        assert_eq!(field(line, "escaped"), 10);
        assert_eq!(field(line, "bypassed"), 10);
        assert!(field(line, "bytes") >= 90, "{line}");
    }
    // One block escapes from each arena, which is more than a twentieth of what it allocates.
    let warnings: Vec<&String> =
        lines.iter().filter(|line| line.starts_with("shockwave: warning ")).collect();
    assert_eq!(warnings.len(), 2, "{lines:#?}");
    assert!((6..=100).contains(&field(warnings[0], "escaped_percent")), "{lines:#?}");
    // 64 MiB were freed, more than what stays cached.
    let purged: u64 = lines
        .iter()
        .filter(|line| line.starts_with("shockwave: purge "))
        .map(|line| field(line, "bytes"))
        .sum();
    assert!(purged >= 32 << 20, "{lines:#?}");

    let exit = lines.last().expect("a line at exit");
    assert!(exit.starts_with("shockwave: exit "), "{lines:#?}");
    assert_eq!(field(exit, "closed"), 25);
    assert_eq!(field(exit, "escaped"), 25);
    assert_eq!(field(exit, "bypassed"), 25);
    assert_eq!(field(exit, "pinned"), 0);
    assert!(field(exit, "resident") > 0 && field(exit, "committed") > 0);
    assert_eq!(field(exit, "backing"), 0);

    let lines = trace("often");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("SHOCKWAVE_TRACE=often") && lines[0].contains("accepted: 0 (off), 1 (on)"));
}
