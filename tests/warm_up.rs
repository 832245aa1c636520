//! `warm_up`: what was prepared is there when it is needed.

use std::hint::black_box;

use shockwave_alloc::{Mode, RequestArena, Shockwave, set_mode, stats, warm_up};

// Without pretenuring, so that what is allocated in a scope is in its arena.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

const ARENAS: usize = 300;
const BYTES: usize = 100 << 10;

/// Page faults of this thread that needed no disk, so far.
fn minor_faults() -> u64 {
    // SAFETY: the structure consists of numbers, for which zero is a value, and the call writes to nothing else.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
        usage
    };
    usage.ru_minflt as u64
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
    assert_eq!(taken, 0, "page faults for {ARENAS} arenas");

    // They keep it: the second round, of other arenas, needs nothing either. (What the first round forgot to free is
    // pinned, so this one drops what it makes.)
    arenas.clear();
    assert_eq!(warm_up(ARENAS, BYTES), ARENAS);
    let pinned = stats().pinned_chunks;
    assert!(pinned >= ARENAS as u64, "the forgotten blocks keep their chunks: {pinned}");
    let slabs = stats().slabs;
    let use_again = |mut arenas: Vec<RequestArena>| {
        let faults = minor_faults();
        for _ in 0..3 {
            // Into the same vector, so that it is not what faults.
            arenas.clear();
            arenas.extend((0..ARENAS).map(|_| RequestArena::new()));
            for arena in &arenas {
                arena.run(|| drop(black_box((0..90).map(|n| vec![n as u8; 1024]).collect::<Vec<_>>())));
            }
        }
        minor_faults() - faults
    };
    let taken = use_again(arenas);
    assert!(stats().slabs <= slabs + 1);
    assert_eq!(taken, 0, "page faults in the second round");

    // And in another thread.
    assert_eq!(warm_up(ARENAS, BYTES), ARENAS);
    let taken = std::thread::spawn(move || {
        // First what the thread itself needs, and the vector.
        let arenas: Vec<RequestArena> = (0..ARENAS).map(|_| RequestArena::new()).collect();
        arenas[0].run(|| drop(black_box(vec![1u8; 1024])));
        use_again(arenas)
    });
    assert_eq!(taken.join().expect("no panic"), 0, "page faults in another thread");
}
