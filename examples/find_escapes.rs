//! Finds who allocates what outlives its request: `cargo run --example find_escapes --features escape-trace`.
//!
//! A small request loop with two such places, planted: an entry in a cache, and a global list of names that is built up lazily. All
//! else that it allocates dies with its request. The report names the two, with the call stacks that lead there.
//! An argument, a file name, writes the report as a profile for `pprof` as well.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;

use shockwave_alloc::{EscapeReport, Shockwave, escape_report, trace_escapes, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Requests that are handled.
pub const REQUESTS: usize = 1000;
/// One request in this many is for something that is not in the cache.
pub const MISSES: usize = 4;
/// One request in this many has a name that is new.
pub const NEW_NAMES: usize = 10;

static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Planted: the entry is made in the request's arena and stays in the cache.
#[inline(never)]
fn insert_into_cache(cache: &mut HashMap<usize, Box<str>>, key: usize, answer: &str) {
    cache.insert(key, answer.into());
}

/// Planted: names are kept for the rest of the process.
#[inline(never)]
fn remember_name(names: &mut Vec<String>, name: &str) {
    names.push(name.to_owned());
}

/// What requests do most of the time: nothing of it is left afterwards.
#[inline(never)]
fn render(number: usize) -> String {
    let parts: Vec<String> = (0..10).map(|part| format!("part {part} of {number}")).collect();
    parts.join(", ")
}

fn handle(number: usize, cache: &mut HashMap<usize, Box<str>>) {
    let page = render(number);
    if number.is_multiple_of(MISSES) {
        insert_into_cache(cache, number, &page);
    }
    if number.is_multiple_of(NEW_NAMES) {
        remember_name(&mut NAMES.lock().expect("not poisoned"), &format!("client {number}"));
    }
    black_box(page);
}

/// Handles the requests, each in its arena, all of them traced.
pub fn run() -> EscapeReport {
    let mut cache = HashMap::with_capacity(REQUESTS);
    NAMES.lock().expect("not poisoned").reserve(REQUESTS);
    trace_escapes(1);
    for number in 0..REQUESTS {
        with_request_arena(|| handle(number, &mut cache));
    }
    trace_escapes(0);
    escape_report()
}

#[allow(dead_code, reason = "the test of this example only runs it")]
fn main() -> std::io::Result<()> {
    let report = run();
    print!("{report}");
    if let Some(file) = std::env::args_os().nth(1) {
        std::fs::write(file, report.to_pprof())?;
    }
    Ok(())
}
