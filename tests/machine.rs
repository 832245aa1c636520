//! What the machine may withhold: memory, system calls, huge pages, threads. Nothing is lost then.
#![cfg(target_os = "linux")]

mod child;
mod common;

use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use common::{Rng, of_mapping};
use shockwave_alloc::{ScavengerConfig, Shockwave, purge, start_scavenger, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

fn fast() -> ScavengerConfig {
    ScavengerConfig::DEFAULT.decay(Duration::from_millis(2))
}

fn verify(number: usize, block: &[u8]) {
    assert!(block.iter().all(|byte| *byte == number as u8), "block {number} is damaged");
}

/// Blocks of all kinds, `bytes` in all, made and freed by several threads; one in fifty lives until the end of the next burst.
fn burst(bytes: usize, seed: u64, kept: &mut Vec<(usize, Vec<u8>)>) {
    const THREADS: usize = 3;
    let old = std::mem::take(kept);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut random = Rng(seed + thread as u64);
                    let (mut blocks, mut sum) = (Vec::new(), 0);
                    while sum < bytes / THREADS {
                        let number = random.below(1 << 20);
                        let size = match number % 100 {
                            0..90 => 1 + random.below(3000),
                            90..99 => random.below(60_000),
                            _ => random.below(1_500_000),
                        };
                        blocks.push((number, black_box(vec![number as u8; size])));
                        sum += size;
                    }
                    blocks.iter().for_each(|(number, block)| verify(*number, block));
                    with_request_arena(|| drop(black_box(blocks[0].1.clone())));
                    blocks
                        .into_iter()
                        .enumerate()
                        .filter(|(index, _)| index % 50 == 0)
                        .map(|(_, block)| block)
                        .collect()
                })
            })
            .collect();
        for thread in threads {
            let more: Vec<_> = thread.join().expect("it ends");
            kept.extend(more);
        }
    });
    assert!(!kept.is_empty());
    old.iter().for_each(|(number, block)| verify(*number, block));
}

/// `RLIMIT_DATA` counts all private memory that may be written to, ours and everybody's.
#[test]
fn bursts_fit_into_64_mib() {
    const NAME: &str = "bursts_fit_into_64_mib";
    if child::part().is_none() {
        child::run(child::command_after("ulimit -d 65536", NAME, "limited"));
        return;
    }
    let mut kept = Vec::new();
    for round in 0..60 {
        burst(8 << 20, round * 10, &mut kept);
    }
    let held = stats();
    assert!(held.committed_bytes < 64 << 20, "{held}");
}

/// What the mappings of this process would be charged with where overcommit is forbidden (`vm.overcommit_memory` is 2): the kernel marks
/// them with `ac`.
fn charged_bytes() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux");
    let (mut size, mut sum) = (0, 0);
    for line in maps.lines() {
        if let Some(kib) = line.strip_prefix("Size:") {
            size = kib.trim().trim_end_matches(" kB").parse().expect("a number");
        } else if line.strip_prefix("VmFlags:").is_some_and(|flags| flags.split(' ').any(|flag| flag == "ac"))
        {
            sum += size << 10;
        }
    }
    sum
}

#[test]
fn only_what_is_committed_is_charged_without_overcommit() {
    const NAME: &str = "only_what_is_committed_is_charged_without_overcommit";
    if !child::alone(NAME) {
        return;
    }
    let (before, charged_before) = (stats(), charged_bytes());
    let block = black_box(vec![7u8; 30 << 20]);
    let mut kept = Vec::new();
    burst(20 << 20, 1, &mut kept);
    let (after, charged) = (stats(), charged_bytes());
    let committed = after.committed_bytes - before.committed_bytes;
    assert!(committed >= 30 << 20, "{after}");
    // Besides there are the stacks of the burst's threads, of which the C library keeps some.
    let more = charged - charged_before;
    assert!(
        (committed..committed + (16 << 20)).contains(&more),
        "{more} B charged, {committed} B committed\n{after}"
    );
    assert!(charged < 128 << 20 && after.reserved_bytes > 1 << 30, "{charged} B charged\n{after}");
    drop((block, kept));
}

/// A filter for the child's system calls: `madvise` and `membarrier` fail.
fn refuse_calls() -> std::io::Result<()> {
    // Instructions of the classic packet filter, from the kernel's `uapi/linux/bpf_common.h` and `seccomp.h`.
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const FAIL: u32 = 0x0005_0000;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 2, 0, libc::SYS_madvise as u32),
        step(JUMP_IF_EQUAL, 1, 0, libc::SYS_membarrier as u32),
        step(RETURN, 0, 0, ALLOW),
        step(RETURN, 0, 0, FAIL | libc::EINVAL as u32),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter are valid for both calls.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn without_madvise_and_membarrier_everything_works_but_gives_nothing_back() {
    const NAME: &str = "without_madvise_and_membarrier_everything_works_but_gives_nothing_back";
    if child::part().is_none() {
        let mut command = child::command(NAME, "filtered");
        // SAFETY: the function makes two system calls and nothing else.
        unsafe { command.pre_exec(refuse_calls) };
        child::run(command);
        return;
    }
    let scavenger = start_scavenger(fast()).expect("a thread");
    let begin = Instant::now();
    let mut kept = Vec::new();
    for round in 0.. {
        burst(20 << 20, round * 10, &mut kept);
        assert!(vec![0u64; 300_000].iter().all(|word| *word == 0), "memory that was used counts as new");
        if round > 3 && begin.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    assert_eq!(purge(), 0);
    assert_eq!((stats().purges, stats().purged_bytes), (0, 0));
    drop(scavenger);
}

#[test]
fn no_huge_page_is_used_unasked() {
    let block = Box::new(1u64);
    let address = std::ptr::from_ref(&*block).addr();
    let flags = of_mapping(address, "VmFlags").expect("the kernel tells");
    // Kernels without huge pages know no such flag.
    let known = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    assert!(!known || flags.split_whitespace().any(|flag| flag == "nh"), "{flags}");
}

#[test]
fn a_thread_costs_less_than_100_kib() {
    const NAME: &str = "a_thread_costs_less_than_100_kib";
    const THREADS: usize = 100;
    if !child::alone(NAME) {
        return;
    }
    let before = stats().resident_bytes;
    let (ready, done) = (Arc::new(Barrier::new(THREADS + 1)), Arc::new(Barrier::new(THREADS + 1)));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (ready, done) = (ready.clone(), done.clone());
            std::thread::spawn(move || {
                let kept = black_box((vec![1u8; 100], String::from("kept")));
                with_request_arena(|| drop(black_box(vec![1u8; 100])));
                ready.wait();
                done.wait();
                drop(kept);
            })
        })
        .collect();
    ready.wait();
    let each = (stats().resident_bytes - before) / THREADS as u64;
    done.wait();
    threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    // Its stack is in it, of which it touches some 12 KiB.
    assert!(each < 100 << 10, "{each} bytes");
}

#[test]
fn a_child_of_a_process_with_a_scavenger_allocates_and_purges() {
    const NAME: &str = "a_child_of_a_process_with_a_scavenger_allocates_and_purges";
    if !child::alone(NAME) {
        return;
    }
    let mut scavenger = Some(start_scavenger(fast()).expect("a thread"));
    let mut kept = Vec::new();
    let mut random = Rng(3);
    for round in 0..150 {
        if round % 30 == 0 {
            burst(2 << 20, round * 10, &mut kept);
        }
        // This thread's heap has many pages with holes, which take a visitor some time.
        let blocks: Vec<_> = (0..3000).map(|number| black_box(vec![number as u8; 2000])).collect();
        let few: Vec<_> = blocks.into_iter().enumerate().filter(|(index, _)| index % 32 == 0).collect();
        std::thread::sleep(Duration::from_micros(1000 + random.below(3000) as u64));
        // SAFETY: the child does nothing but allocate, and ends without running anybody's destructors.
        match unsafe { libc::fork() } {
            -1 => panic!("no child: {}", std::io::Error::last_os_error()),
            0 => {
                // What hangs is ended by the signal.
                // SAFETY: it takes a number.
                unsafe { libc::alarm(90) };
                let whole =
                    kept.iter().all(|(number, block)| block.iter().all(|byte| *byte == *number as u8));
                drop(black_box((0..2000).map(|size| vec![1u8; size]).collect::<Vec<_>>()));
                drop(few);
                kept.clear();
                purge();
                // Its thread is not here.
                drop(scavenger.take());
                let again = black_box(vec![2u8; 100_000]);
                // SAFETY: it does not return.
                unsafe { libc::_exit(if whole && again[99_999] == 2 { 0 } else { 1 }) };
            }
            child => {
                let mut status = 0;
                // SAFETY: the place is valid.
                let ended = unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!((ended, status), (child, 0), "round {round}");
            }
        }
    }
    drop(scavenger);
}
