//! `fork` while other threads allocate: the child may allocate and free.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use shockwave_alloc::{RequestArena, Shockwave, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Several of these share a run of pages with others.
#[repr(align(8192))]
struct Aligned([u8; 20_000]);

const FORKS: usize = 60;
/// Seconds after which a child that waits for a lock for ever is ended.
const PATIENCE: u32 = 20;

/// Uses every part of the allocator, each of which has a lock. Returns a checksum.
fn work(seed: usize) -> usize {
    let small: Vec<Box<usize>> = (0..200).map(|number| Box::new(number + seed)).collect();
    let pages: Vec<Vec<u8>> = (0..40).map(|number| vec![number as u8; 9_000]).collect();
    let mid: Vec<Vec<u8>> = (0..6).map(|number| vec![number as u8; 20_000 << number.min(5)]).collect();
    let aligned: Vec<Box<Aligned>> = (0..6).map(|number| Box::new(Aligned([number; 20_000]))).collect();
    let large = vec![1u8; 2 << 20];
    let escaped = with_request_arena(|| (0..50).map(|number| vec![number as u8; 900]).collect::<Vec<_>>());
    let arenas: Vec<RequestArena> = (0..80).map(|_| RequestArena::new()).collect();
    arenas.iter().for_each(|arena| arena.run(|| drop(black_box(vec![1u8; 100]))));
    let sum = small.iter().map(|number| **number - seed).sum::<usize>();
    let aligned: usize = aligned.iter().map(|block| usize::from(block.0[19_999])).sum();
    sum + aligned
        + pages.len()
        + mid.len()
        + large.iter().map(|&byte| usize::from(byte)).sum::<usize>()
        + escaped.len()
}

#[test]
fn children_of_a_busy_process_allocate_and_free() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let expected = work(0);
    let inherited: Vec<Vec<u8>> = (0..100).map(|number| vec![number as u8; 10 + number * 50]).collect();
    let mut threads: Vec<_> = (0..4)
        .map(|thread| {
            std::thread::spawn(move || {
                while !STOP.load(Ordering::Relaxed) {
                    assert!(work(thread) > 0);
                }
            })
        })
        .collect();
    // Its lock is the only one that is seldom held by those.
    threads.push(std::thread::spawn(|| {
        let layout = Layout::new::<Aligned>();
        while !STOP.load(Ordering::Relaxed) {
            // SAFETY: the block is freed with its layout, and not used.
            unsafe { GLOBAL.dealloc(black_box(GLOBAL.alloc(layout)), layout) };
        }
    }));
    for turn in 0..FORKS {
        // SAFETY: what the child does is what is tested: it allocates and frees, and ends without running anything else.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child == 0 {
            // SAFETY: `alarm` and `_exit` may be called in a child of a process with several threads.
            unsafe {
                libc::alarm(PATIENCE);
                let intact = inherited
                    .iter()
                    .enumerate()
                    .all(|(number, block)| block.iter().all(|&byte| byte == number as u8));
                drop(inherited);
                libc::_exit(if intact && work(turn) == expected { 0 } else { 1 });
            }
        }
        let mut status = 0;
        // SAFETY: `status` is valid for the call, the child is this process's own.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status), "child {turn} ended by signal {}", libc::WTERMSIG(status));
        assert_eq!(libc::WEXITSTATUS(status), 0, "child {turn}");
    }
    STOP.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
}
