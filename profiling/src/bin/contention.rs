//! What threads do to each other, per 1,000 requests of the steady state, counted by the allocator itself: `contention` prints a
//! table, `contention --lines` also the cache lines that moved. `contention --check` fails if there is anything to count where requests
//! stay on their thread, or more than is promised for a batch of blocks that is freed elsewhere.

use std::hint::black_box;
use std::mem;
use std::process::ExitCode;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use shockwave_alloc::contention::{Contention, contention, moved_lines, reset};
use shockwave_alloc::{
    Mode, ScavengerConfig, Shockwave, set_mode, start_scavenger, stats, with_request_arena,
};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// How many threads serve at once.
const THREADS: [usize; 4] = [1, 2, 8, 64];

/// Requests of a thread before and while it is counted.
const WARM_UP: usize = 1_000;
const REQUESTS: usize = 1_000;

/// Blocks that travel together, and of which size.
const BATCH: usize = 256;
type Block = Box<[u8; 64]>;

/// What a request is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// A document is parsed, changed and printed; a body grows up to so many KiB. All of it is freed by its thread.
    Here { body_kib: usize },
    /// A batch of blocks is allocated, and freed by the next thread.
    Elsewhere,
}

/// The kinds of requests and their names.
const WORK: [(Work, &str); 3] = [
    (Work::Here { body_kib: 24 }, "JSON, 24 KiB"),
    (Work::Here { body_kib: 96 }, "JSON, 96 KiB"),
    (Work::Elsewhere, "256 blocks freed elsewhere"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) =
        arguments.iter().find(|argument| !["--check", "--lines"].contains(&argument.as_str()))
    {
        eprintln!("error: '{unknown}' is not understood; accepted: --check, --lines");
        return ExitCode::from(2);
    }
    let wanted = |option: &str| arguments.iter().any(|argument| argument == option);
    // Returning memory goes by time, not by requests, and would be another share of each run.
    let scavenger = start_scavenger(ScavengerConfig::DEFAULT.decay(Duration::from_secs(3600)));
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "mode",
        "request",
        "threads",
        "read-modify-writes",
        "locks",
        "system calls",
        "lines moved",
        "shared lines",
    ]);
    let mut too_many = Vec::new();
    for (mode, name) in [(Mode::Slab, "slab"), (Mode::Arena, "arena")] {
        set_mode(mode);
        for (work, what) in WORK {
            for threads in THREADS {
                if work == Work::Elsewhere && threads == 1 {
                    continue;
                }
                let counts = steady(threads, work);
                let per = |count: u64| format!("{:.2}", count as f64 * 1000.0 / (threads * REQUESTS) as f64);
                table.add_row([
                    name,
                    what,
                    &threads.to_string(),
                    &per(counts.read_modify_writes),
                    &per(counts.locks),
                    &per(counts.system_calls),
                    &per(counts.line_transfers),
                    &counts.shared_lines_written.to_string(),
                ]);
                if wanted("--lines") {
                    println!("{name}, {what}, {threads}: {counts:?}");
                    for (address, times) in moved_lines() {
                        println!("  line {address:#x}: {times} times");
                    }
                }
                if !is_as_promised(work, threads, &counts) {
                    too_many.push(format!("{name}, {what}, {threads} threads: {counts:?}"));
                }
            }
        }
    }
    drop(scavenger);
    for index in 2..8 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    if wanted("--check") && !too_many.is_empty() {
        eprintln!("error: more than is promised: {}", too_many.join("; "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Zero of each where a request stays on its thread. Where it does not, one compare-and-swap for a chain of 64 blocks, and three that hand a
/// page with such chains to its owner; in an arena a batch begins in the middle of a chunk, and so belongs to two pages at times.
fn is_as_promised(work: Work, threads: usize, counts: &Contention) -> bool {
    let Contention { read_modify_writes, locks, system_calls, line_transfers, unplaced, .. } = *counts;
    unplaced == 0
        && match work {
            Work::Here { .. } => [read_modify_writes, locks, system_calls, line_transfers] == [0; 4],
            Work::Elsewhere => {
                read_modify_writes <= (BATCH / 64 + 2 * 3) as u64 * (threads * REQUESTS) as u64
            }
        }
}

/// Passes after which the steady state has to be reached.
const PASSES: usize = 5;

/// The counts of the first pass in which no thread took more memory, or else of the last one. Where blocks travel, some always does.
fn steady(threads: usize, work: Work) -> Contention {
    let passes = if work == Work::Elsewhere { 1 } else { PASSES };
    for _ in 1..passes {
        let before = stats().slabs;
        let counts = count(threads, work);
        if stats().slabs == before {
            return counts;
        }
    }
    count(threads, work)
}

/// The counts of `threads` threads with `REQUESTS` requests each.
fn count(threads: usize, work: Work) -> Contention {
    let barrier = Barrier::new(threads + 1);
    let crossing = Barrier::new(threads);
    let places: Vec<Mutex<Vec<Block>>> =
        (0..threads).map(|_| Mutex::new(Vec::with_capacity(BATCH))).collect();
    let serve = |number: usize, requests: usize| {
        // The batch on its way, whose buffer goes to and fro.
        let mut batch = Vec::with_capacity(BATCH);
        for _ in 0..requests {
            match work {
                Work::Here { body_kib } => {
                    black_box(with_request_arena(|| request(body_kib)));
                }
                Work::Elsewhere => {
                    with_request_arena(|| batch.extend((0..BATCH).map(|_| Block::new([1; 64]))));
                    let swap = |place: usize, batch: &mut Vec<Block>| {
                        mem::swap(&mut *places[place].lock().expect("no thread panics"), batch);
                    };
                    swap((number + 1) % threads, &mut batch);
                    crossing.wait();
                    swap(number, &mut batch);
                    batch.clear();
                    crossing.wait();
                }
            }
        }
    };
    thread::scope(|scope| {
        let (barrier, serve) = (&barrier, &serve);
        let spawn = |number| {
            scope.spawn(move || {
                serve(number, WARM_UP);
                barrier.wait();
                barrier.wait();
                serve(number, REQUESTS);
                barrier.wait();
                barrier.wait();
            })
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        barrier.wait();
        reset();
        barrier.wait();
        barrier.wait();
        let counts = contention();
        barrier.wait();
        // A scope's end does not wait for what threads do when they have ended, and the next pass would count that.
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
        counts
    })
}

/// Parses a document, changes it, prints it, and reads a body of so many KiB in pieces into a buffer that grows.
fn request(body_kib: usize) -> usize {
    let text = r#"{"user":{"name":"a name","roles":["reader","writer"],"visits":[1,2,3,4,5,6,7,8,9]},"items":[
        {"id":1,"title":"the first","price":1.5},{"id":2,"title":"the second","price":2.5}]}"#;
    let mut document: serde_json::Value = serde_json::from_str(black_box(text)).expect("is valid");
    document["items"].as_array_mut().expect("is one").push(serde_json::json!({"id": 3, "title": "one more"}));
    let mut body = Vec::new();
    for _ in 0..body_kib {
        body.extend_from_slice(black_box(&[b'x'; 1024]));
    }
    let headers: Vec<(String, String)> =
        (0..12).map(|number| (format!("x-header-{number}"), "v".repeat(number * 9))).collect();
    black_box(document.to_string()).len() + black_box(body).len() + black_box(headers).len()
}
