//! `SHOCKWAVE_TRACE`: the lines, field by field.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::hint::black_box;
use std::process::Command;

use shockwave_alloc::{RequestArena, Shockwave};

/// Shockwave, and how often a thread asks it for memory: writing the trace must not ask.
struct Counted(Shockwave);

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands every call on as it is.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(block, layout) }
    }
}

// Without pretenuring, so that what is allocated in a scope is in its arena.
#[global_allocator]
static GLOBAL: Counted = Counted(Shockwave::new().with_pretenuring(false));

/// What the child does: 25 arenas on one thread, each with one block that escapes, one object that is too big and `garbage`
/// blocks that die with it; and a run of pages that is purged.
fn work(garbage: usize) {
    for round in 0..25 {
        let arena = RequestArena::new();
        let kept = arena.run(|| {
            (0..garbage).for_each(|_| drop(black_box(Box::new(round))));
            (format!("request {round}"), vec![1u8; 100_000])
        });
        let asked = ASKED.get();
        drop(arena);
        assert_eq!(ASKED.get(), asked, "closing an arena, and the line about it, allocates");
        drop(kept);
    }
    let big = black_box(vec![1u8; 64 << 20]);
    let asked = ASKED.get();
    drop(big);
    shockwave_alloc::purge();
    assert_eq!(ASKED.get(), asked, "a purge, and the line about it, allocates");
}

/// Standard error of a run of `work` without garbage, with `SHOCKWAVE_TRACE` set to `value`.
fn trace(value: &str) -> Vec<String> {
    trace_with(value, "0")
}

fn trace_with(value: &str, garbage: &str) -> Vec<String> {
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "lines_tell_what_happened", "--nocapture", "--test-threads=1"])
        .env("SHOCKWAVE_TRACE", value)
        .env("TRACE_CHILD", garbage)
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

/// The names of the fields of a line, after a check that it is about `event`.
fn names<'line>(line: &'line str, event: &str) -> Vec<&'line str> {
    let fields = line.strip_prefix("shockwave: ").and_then(|line| line.strip_prefix(event));
    let fields = fields.unwrap_or_else(|| panic!("no {event} in {line:?}"));
    fields.split_whitespace().map(|field| field.split_once('=').expect("name=value").0).collect()
}

#[test]
fn lines_tell_what_happened() {
    if let Ok(garbage) = std::env::var("TRACE_CHILD") {
        return work(garbage.parse().expect("a number"));
    }
    assert_eq!(trace("0"), [""; 0]);

    let lines = trace("10");
    let arenas: Vec<&String> = lines.iter().filter(|line| line.starts_with("shockwave: arenas ")).collect();
    assert_eq!(arenas.len(), 2, "{lines:#?}");
    for (line, closed) in arenas.iter().zip([10, 20]) {
        assert_eq!(names(line, "arenas"), ["heap", "closed", "bytes", "escaped", "bypassed"]);
        assert_eq!(field(line, "closed"), closed);
        assert_eq!(field(line, "escaped"), 10);
        assert_eq!(field(line, "bypassed"), 10);
        assert!(field(line, "bytes") >= 90, "{line}");
    }
    // One block escapes from each arena, which is more than a twentieth of what it allocates.
    let warnings: Vec<&String> =
        lines.iter().filter(|line| line.starts_with("shockwave: warning ")).collect();
    assert_eq!(warnings.len(), 2, "{lines:#?}");
    assert_eq!(names(warnings[0], "warning"), ["heap", "escaped_percent"]);
    assert!((6..=100).contains(&field(warnings[0], "escaped_percent")), "{lines:#?}");
    // One of 40 is not.
    let quiet = trace_with("10", "39");
    assert!(quiet.iter().any(|line| line.starts_with("shockwave: arenas ")), "{quiet:#?}");
    assert!(quiet.iter().all(|line| !line.starts_with("shockwave: warning ")), "{quiet:#?}");
    // 64 MiB were freed, more than what stays cached.
    let purges: Vec<&String> = lines.iter().filter(|line| line.starts_with("shockwave: purge ")).collect();
    purges.iter().for_each(|line| assert_eq!(names(line, "purge"), ["bytes", "kept"]));
    let purged: u64 = purges.iter().map(|line| field(line, "bytes")).sum();
    assert!(purged >= 64 << 20, "{lines:#?}");
    assert!(
        purges.iter().any(|line| field(line, "kept") == 0),
        "one was asked for and keeps nothing: {lines:#?}"
    );

    let exit = lines.last().expect("a line at exit");
    assert_eq!(
        names(exit, "exit"),
        ["closed", "bytes", "escaped", "bypassed", "pinned", "committed", "resident", "backing"]
    );
    assert_eq!(field(exit, "closed"), 25);
    assert_eq!(field(exit, "escaped"), 25);
    assert_eq!(field(exit, "bypassed"), 25);
    assert_eq!(field(exit, "pinned"), 0);
    assert!(field(exit, "resident") > 0 && field(exit, "committed") > 0);
    assert_eq!(field(exit, "backing"), 0);

    // 1 stands for a line every 10,000 arenas.
    let lines = trace("1");
    assert!(lines.iter().all(|line| !line.starts_with("shockwave: arenas ")), "{lines:#?}");
    assert!(lines.last().is_some_and(|line| line.starts_with("shockwave: exit ")), "{lines:#?}");

    let lines = trace("often");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("SHOCKWAVE_TRACE=often") && lines[0].contains("accepted: 0 (off), 1 (on)"));
}
