//! A block that is freed twice ends the process with one line, where that is noticed: going on could only do harm.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;

use shockwave_alloc::Shockwave;

mod child;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Makes `count` blocks, frees the first one twice and then all others.
fn free_one_twice(size: usize, align: usize, count: usize) {
    let layout = Layout::from_size_align(size, align).unwrap();
    // SAFETY: the layout has a size.
    let blocks: Vec<_> = (0..count).map(|_| black_box(unsafe { alloc(layout) })).collect();
    assert!(blocks.iter().all(|block| !block.is_null()));
    for block in blocks.first().into_iter().chain(&blocks) {
        // SAFETY: not at all for the second free, in a process that is there for nothing else.
        unsafe { dealloc(*block, layout) };
    }
}

/// Asserts that a child aborts which plays the part of the test `name`, with a line that contains `what`.
fn aborts(name: &str, what: &str, misuse: impl FnOnce()) {
    if child::part().is_some() {
        misuse();
        return;
    }
    let output =
        child::command_after("ulimit -c 0; ulimit -t 20", name, "misuse").output().expect("the child starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}\n{errors}", output.status);
    let lines: Vec<_> = errors.lines().filter(|line| line.starts_with("shockwave: ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(what), "{errors}");
}

#[test]
fn a_block_of_a_slab_page() {
    aborts("a_block_of_a_slab_page", "one was freed twice", || free_one_twice(64, 8, 1000));
}

#[test]
fn a_mid_size_block() {
    aborts("a_mid_size_block", "mid-size block that does not exist, or twice", || {
        free_one_twice(100_000, 8, 1)
    });
}

#[test]
fn an_aligned_block() {
    aborts("an_aligned_block", "aligned block that does not exist, or twice", || {
        free_one_twice(20_000, 8 << 10, 3)
    });
}

#[test]
fn a_large_block() {
    aborts("a_large_block", "block that does not exist, or twice", || free_one_twice(5 << 20, 8, 1));
}
