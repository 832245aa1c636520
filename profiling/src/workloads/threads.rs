//! Blocks that change the thread. Unlike elsewhere the time is wall time, since one thread waits for another;
//! it is divided by the operations of all threads.

use std::array;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::blocks::{Block, Random, below};
use crate::process::Stopwatch;
use crate::{Clock, Sample};

/// Blocks handed over at once in [`xfree`].
const BATCH: usize = 256;

/// Size of each of them.
const BLOCK_BYTES: usize = 64;

/// Batches that may be under way at once.
const BATCHES: usize = 8;

/// Looks at a flag before the thread yields its core.
const SPINS: u32 = 100;

/// Threads that run at once in [`larson`].
const CHAINS: usize = 2;

/// Live blocks of each of these threads, the number of the original.
const SLOTS: usize = 5000;

/// Replacements after which a thread ends and hands its slots on. The original takes 100 per slot and runs
/// for five seconds; with 20 a fifth of a second sees as many hand-overs.
const REPLACEMENTS: usize = 20 * SLOTS;

/// One operation: one thread allocates a block of 64 B, another one frees it. Blocks travel in batches of
/// 256, at most 8 of them at once, so that neither thread runs away. After the producers and consumers of
/// xmalloc-test (Lever and Boreham, 2000; mimalloc-bench runs it with 64 B).
pub fn xfree(clock: &Clock) -> Sample {
    hand_over(clock.warm_up());
    hand_over(clock.time())
}

/// One place of the ring: blocks on their way, and whether it is the consumer's turn.
struct Place {
    full: AtomicBool,
    blocks: Mutex<Vec<Block>>,
}

/// Runs producer and consumer for `time`.
fn hand_over(time: Duration) -> Sample {
    let ring: [Place; BATCHES] = array::from_fn(|_| Place {
        full: AtomicBool::new(false),
        blocks: Mutex::new(Vec::with_capacity(BATCH)),
    });
    let stopped_after = AtomicU64::new(u64::MAX);
    let watch = Stopwatch::start();
    let mut batches = 0;
    thread::scope(|scope| {
        scope.spawn(|| consume(&ring, &stopped_after));
        for place in ring.iter().cycle() {
            if watch.elapsed() >= time {
                break;
            }
            wait_until(|| !place.full.load(Ordering::Acquire));
            let mut blocks = place.blocks.lock().expect("no thread panics with the lock");
            blocks.extend((0..BATCH).map(|_| Block::new(BLOCK_BYTES)));
            drop(blocks);
            place.full.store(true, Ordering::Release);
            batches += 1;
        }
        stopped_after.store(batches, Ordering::Release);
    });
    watch.stop(batches * BATCH as u64)
}

/// Frees batches until as many have passed as the producer made.
fn consume(ring: &[Place], stopped_after: &AtomicU64) {
    for (place, taken) in ring.iter().cycle().zip(0..) {
        wait_until(|| place.full.load(Ordering::Acquire) || stopped_after.load(Ordering::Acquire) == taken);
        if !place.full.load(Ordering::Acquire) {
            return;
        }
        place.blocks.lock().expect("no thread panics with the lock").clear();
        place.full.store(false, Ordering::Release);
    }
}

/// Waits without allocating, and lets other programs run where there are fewer cores than threads.
fn wait_until(ready: impl Fn() -> bool) {
    let mut spins = 0;
    while !ready() {
        if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}

/// One operation: a thread replaces one of its 5000 live blocks by one of 8 to 1000 B, at random. After
/// 100,000 of them it ends and a new thread takes its slots over, so most blocks are freed by a thread that
/// did not allocate them and whose maker is gone. Two such chains run at once. After Larson and Krishnan,
/// "Memory allocation for long-running server applications" (1998), with the parameters of mimalloc-bench.
pub fn larson(clock: &Clock) -> Sample {
    run_chains(clock.warm_up());
    run_chains(clock.time())
}

/// What the threads of [`larson`] share.
struct Chains {
    deadline: Instant,
    operations: AtomicU64,
}

/// Runs all chains for `time`; filling the slots and dropping them at the end is not timed.
fn run_chains(time: Duration) -> Sample {
    let filled: [Vec<Block>; CHAINS] = array::from_fn(|chain| {
        let mut random = Random::new(chain as u64);
        (0..SLOTS).map(|_| Block::new(larson_size(random.bits()))).collect()
    });
    let watch = Stopwatch::start();
    let chains = Arc::new(Chains { deadline: Instant::now() + time, operations: AtomicU64::new(0) });
    let (ended, ends) = mpsc::channel();
    for (chain, slots) in filled.into_iter().enumerate() {
        let (chains, ended) = (Arc::clone(&chains), ended.clone());
        thread::spawn(move || generation(slots, chain as u64, chains, ended));
    }
    // Else a thread that panics would leave the other end waiting.
    drop(ended);
    let rest: Vec<Vec<Block>> = ends.iter().collect();
    let sample = watch.stop(chains.operations.load(Ordering::Relaxed));
    assert_eq!(rest.len(), CHAINS, "every chain hands its slots back");
    sample
}

/// The life of one thread, which ends by handing its slots to the next.
fn generation(mut slots: Vec<Block>, seed: u64, chains: Arc<Chains>, ended: mpsc::Sender<Vec<Block>>) {
    let mut random = Random::new(seed);
    for _ in 0..REPLACEMENTS {
        let bits = random.bits();
        slots[below(bits, SLOTS)] = Block::new(larson_size(bits));
    }
    chains.operations.fetch_add(REPLACEMENTS as u64, Ordering::Relaxed);
    if Instant::now() < chains.deadline {
        thread::spawn(move || generation(slots, seed + CHAINS as u64, chains, ended));
    } else {
        // The receiver waits for it, except when the process is ending.
        let _ = ended.send(slots);
    }
}

/// 8 to 1000 B, all equally likely, from the lower half of `bits`.
fn larson_size(bits: u64) -> usize {
    Block::MIN_SIZE + below(bits << 32, 1001 - Block::MIN_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_arrives() {
        let sample = hand_over(Duration::from_millis(5));
        assert_eq!(sample.operations % BATCH as u64, 0);
        assert!(sample.operations > 0);
    }

    #[test]
    fn chains_hand_their_slots_back() {
        let sample = run_chains(Duration::from_millis(5));
        assert_eq!(sample.operations % REPLACEMENTS as u64, 0);
        assert!(sample.operations >= (CHAINS * REPLACEMENTS) as u64);
    }
}
