//! Free pages that have memory are used before others.

use std::hint::black_box;
use std::sync::mpsc;
use std::time::Duration;

use shockwave_alloc::{ScavengerConfig, Shockwave, purge, start_scavenger, stats};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const PAGE: usize = 64 << 10;

/// No period ends, and nothing is free but what has no memory.
fn without_periods() {
    drop(start_scavenger(ScavengerConfig::DEFAULT.decay(Duration::from_secs(3600))).expect("a thread"));
    purge();
}

/// Blocks of four to a page, written from the first byte to the last.
fn fill_pages(pages: usize) -> Vec<Vec<u8>> {
    (0..4 * pages).map(|_| black_box(vec![1; PAGE / 4])).collect()
}

/// A run of pages of its own, written too.
fn run_of(pages: usize) -> Vec<u8> {
    black_box(vec![1; pages * PAGE])
}

/// Bytes by which the process grows when a new thread fills `pages` pages.
fn growth_with(pages: usize) -> u64 {
    let before = stats().resident_bytes;
    let thread = std::thread::spawn(move || {
        let blocks = fill_pages(pages);
        let now = stats().resident_bytes;
        drop(blocks);
        now
    });
    thread.join().expect("it ends").saturating_sub(before)
}

// One test: what the second leaves would serve the first.
#[test]
fn free_pages_that_have_memory_are_used_first() {
    the_end_of_a_run_that_has_memory_is_used_before_its_beginning_that_has_none();
    single_pages_with_memory_are_used_before_long_runs_without();
}

fn single_pages_with_memory_are_used_before_long_runs_without() {
    without_periods();
    let long = run_of(512);
    let (keep, kept) = mpsc::channel();
    let (free, freed) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // Every second page is freed by the thread they belong to, which ends then.
        for (number, block) in fill_pages(512).into_iter().enumerate() {
            let to = if (block.as_ptr().addr() / PAGE).is_multiple_of(2) { &keep } else { &free };
            to.send((number, block)).expect("someone listens");
        }
        freed
    });
    let freed = thread.join().expect("it ends");
    drop(long);
    purge();
    drop(freed);
    let growth = growth_with(192);
    assert!(growth < 3 << 20, "{growth} B more for 12 MiB, with 16 MiB free\n{}", stats());
    drop(kept);
}

fn the_end_of_a_run_that_has_memory_is_used_before_its_beginning_that_has_none() {
    without_periods();
    // The thread that grows has begun its sizes then.
    drop(fill_pages(8));
    let (first, second, third) = (run_of(40), run_of(40), run_of(40));
    assert_eq!(second.as_ptr().addr() - first.as_ptr().addr(), 40 * PAGE, "they are neighbours");
    drop(first);
    purge();
    drop(second);
    let growth = growth_with(32);
    assert!(growth < 1 << 20, "{growth} B more for 2 MiB, with 2.5 MiB free\n{}", stats());
    drop(third);
}
