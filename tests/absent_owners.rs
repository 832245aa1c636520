//! What is freed for a thread that sleeps or has ended does not wait for it.

use std::hint::black_box;
use std::sync::mpsc;
use std::time::Duration;

use shockwave_alloc::{ScavengerConfig, Shockwave, on_thread_park, start_scavenger, stats};

mod common;

use common::{Alone, alone};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// No period ends, so nobody looks after other threads' memory because of that.
fn without_periods() -> Alone {
    let alone = alone();
    drop(start_scavenger(ScavengerConfig::DEFAULT.decay(Duration::from_secs(3600))).expect("a thread"));
    // But for the one that is running.
    std::thread::sleep(Duration::from_millis(600));
    on_thread_park();
    alone
}

/// `count` blocks whose bytes tell their number.
fn blocks(count: usize, size: impl Fn(usize) -> usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| black_box(vec![number as u8; size(number)])).collect()
}

fn are_whole(blocks: &[Vec<u8>]) -> bool {
    blocks.iter().enumerate().all(|(number, block)| block.iter().all(|&byte| byte == number as u8))
}

#[test]
fn what_was_freed_for_a_sleeping_thread_serves_others() {
    let _alone = without_periods();
    // 16 MiB.
    let some = || blocks(40_000, |number| 300 + number % 200);
    let (report, reports) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let sleeper = std::thread::spawn(move || {
        report.send(some()).expect("someone listens");
        wait.recv().expect("told to go on");
        // It goes on with what it has left.
        assert!(are_whole(&some()));
    });
    let foreign = reports.recv().expect("the sleeper is alive");
    let before = stats().slab_pages;
    assert!(before > 200, "{before} pages");
    drop(foreign);
    let own = some();
    let pages = stats().slab_pages;
    // A few are on their way, or were taken before anyone looked.
    assert!(pages < before + before / 3, "{before} pages before, {pages} now\n{}", stats());
    go_on.send(()).expect("the sleeper is alive");
    sleeper.join().expect("its blocks are whole");
    assert!(are_whole(&own));
}

#[test]
fn pages_of_a_thread_that_has_ended_go_back_with_their_last_block() {
    let _alone = without_periods();
    // All blocks of a page, of each of 40 classes.
    let foreign: Vec<_> = std::thread::spawn(|| {
        let sizes = (0..40).map(|class| (128 << (class / 8)) + (16 << (class / 8)) * (class % 8 + 1));
        sizes.map(|size| blocks((64 << 10) / size, |_| size)).collect()
    })
    .join()
    .expect("it ends");
    assert!(foreign.iter().all(|blocks| are_whole(blocks)));
    let held = || stats().slab_pages + stats().spare_bytes / (64 << 10);
    let before = held();
    drop(foreign);
    on_thread_park();
    let pages = held();
    // The harness may have blocks in some.
    assert!(pages + 60 < before, "{pages} of {before} pages\n{}", stats());
}
