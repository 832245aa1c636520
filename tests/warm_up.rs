//! `warm_up`: what was prepared is there when it is needed.

use std::hint::black_box;

use shockwave_alloc::{Mode, RequestArena, Shockwave, set_mode, stats, warm_up};

// Without pretenuring, so that what is allocated in a scope is in its arena.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

const ARENAS: usize = 300;
const BYTES: usize = 100 << 10;

/// Page faults of this process that needed no disk, so far.
fn minor_faults() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The fields behind the name, which ends with the last parenthesis: state is the first, minflt the eighth.
    let (_, fields) = text.rsplit_once(')').expect("a name");
    fields.split_whitespace().nth(7).and_then(|field| field.parse().ok()).expect("a number")
}

/// Fills an arena with blocks of 1 KiB and writes to every byte.
fn fill(arena: &RequestArena) {
    arena.run(|| {
        for _ in 0..(BYTES - 2048) / 1024 {
            std::mem::forget(black_box([1u8; 1024].to_vec()));
        }
    });
}

// One test: it is about the whole process.
#[test]
fn arenas_that_were_warmed_up_need_nothing_new() {
    set_mode(Mode::Slab);
    assert_eq!(warm_up(10, 1000), 0, "only arena mode has arenas");
    set_mode(Mode::Arena);
    let mut arenas: Vec<RequestArena> = (0..ARENAS).map(|_| RequestArena::new()).collect();
    assert_eq!(warm_up(ARENAS, BYTES), ARENAS);

    let before = stats();
    let faults = minor_faults();
    arenas.iter().for_each(fill);
    let taken = minor_faults() - faults;
    let after = stats();
    assert_eq!(after.committed_bytes, before.committed_bytes);
    // A size class that reading the counters needs for the first time may take a slab.
    assert!(after.slabs <= before.slabs + 1, "{before}\n{after}");
    assert_eq!(after.backing_calls, before.backing_calls);
    assert_eq!(after.open_arenas - before.open_arenas, ARENAS as u64);
    // Reading the counters themselves may touch a page or two; an arena that was not warm would take 25 each.
    assert!(taken < 20, "{taken} page faults for {ARENAS} arenas");

    // They keep it: the second round, of other arenas and in another thread, needs nothing either. (What the first
    // round forgot to free is pinned, so this one drops what it makes.)
    arenas.clear();
    assert_eq!(warm_up(ARENAS, BYTES), ARENAS);
    let pinned = stats().pinned_chunks;
    assert!(pinned >= ARENAS as u64, "the forgotten blocks keep their chunks: {pinned}");
    let faults = minor_faults();
    let slabs = stats().slabs;
    for _ in 0..3 {
        let arenas: Vec<RequestArena> = (0..ARENAS).map(|_| RequestArena::new()).collect();
        for arena in &arenas {
            arena.run(|| drop(black_box((0..90).map(|n| vec![n as u8; 1024]).collect::<Vec<_>>())));
        }
    }
    let taken = minor_faults() - faults;
    assert!(stats().slabs <= slabs + 1);
    assert!(taken < 20, "{taken} page faults in the second round");
}
