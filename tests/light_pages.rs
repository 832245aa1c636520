//! A class of small blocks that begins does not take up a page that has been full, with all its memory.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use shockwave_alloc::{ScavengerConfig, Shockwave, purge, start_scavenger, stats};

mod resident;

use resident::is_resident;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const PAGE: usize = 64 << 10;

/// Classes of small blocks, of each of which a new thread makes one.
const CLASSES: usize = 24;

/// Pages that blocks of each class are in, one of each and as many as `bytes` bytes hold.
fn begin_classes(bytes: usize) -> BTreeSet<usize> {
    std::thread::spawn(move || {
        let sizes = (1..=16).map(|step| 8 * step).chain((9..=16).map(|step| 16 * step));
        let of_size = |size| (0..=bytes / size).map(move |_| black_box(vec![1u8; size]));
        let blocks: Vec<Vec<u8>> = sizes.flat_map(of_size).collect();
        assert!(blocks.len() >= CLASSES);
        blocks.iter().map(|block| block.as_ptr().addr() & !(PAGE - 1)).collect()
    })
    .join()
    .expect("it ends")
}

/// OS pages of `pages` that have memory.
fn resident(pages: &BTreeSet<usize>) -> usize {
    pages.iter().flat_map(|page| (*page..page + PAGE).step_by(4096)).filter(|page| is_resident(*page)).count()
}

// One test: it is about the whole process.
#[test]
fn classes_that_begin_take_little_memory_and_leave_it_to_each_other() {
    // No period ends.
    drop(start_scavenger(ScavengerConfig::DEFAULT.decay(Duration::from_secs(3600))).expect("a thread"));
    // 16 MiB of pages that have been full are free.
    std::thread::spawn(|| drop(black_box((0..4096).map(|_| vec![1u8; 4096]).collect::<Vec<_>>())))
        .join()
        .expect("it ends");
    let first = begin_classes(0);
    assert!(first.len() >= CLASSES - 4, "{} pages", first.len());
    // 4 KiB of each were made into blocks, and the harness may have begun some classes before.
    assert!(resident(&first) <= 3 * first.len(), "{} OS pages of {} pages", resident(&first), first.len());
    for _ in 0..20 {
        let next = begin_classes(0);
        assert!(next.intersection(&first).count() >= CLASSES - 6, "{next:x?} and at first {first:x?}");
    }
    // Whoever needs more is given ordinary pages before long: else each thread would take new ones.
    begin_classes(32 << 10);
    let before = stats().committed_bytes;
    for _ in 0..100 {
        begin_classes(32 << 10);
    }
    let grown = stats().committed_bytes - before;
    assert!(grown < 20 << 20, "{grown} B\n{}", stats());
    purge();
    assert!(resident(&first) <= first.len() / 2, "{} OS pages of {} pages", resident(&first), first.len());

    // Nobody needs those that wait: they go back, although nothing else has happened that would keep a scavenger awake.
    let config =
        ScavengerConfig::DEFAULT.decay(Duration::from_millis(20)).longest_sleep(Duration::from_secs(3600));
    let scavenger = start_scavenger(config).expect("a thread");
    std::thread::sleep(Duration::from_millis(500));
    let last = begin_classes(0);
    let begin = Instant::now();
    while resident(&last) > last.len() / 2 && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(resident(&last) <= last.len() / 2, "{} OS pages of {} pages", resident(&last), last.len());
    drop(scavenger);
}
