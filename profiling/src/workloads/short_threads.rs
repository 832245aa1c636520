//! Threads that come and go: what each leaves behind.

use std::hint::black_box;
use std::thread;

use crate::Scope;
use crate::bench::Scope as _;
use crate::blocks::{Block, Random, skewed_size};
use crate::process::resident_bytes;

/// Threads after which memory is looked at for the first time, and so many more for the second.
const WARM_UP: usize = 400;
const THREADS: usize = 4000;

/// Threads that run at once.
const TOGETHER: usize = 4;

/// Blocks that each of them allocates; it frees all but one.
const BLOCKS: usize = 200;

/// KiB by which the resident memory grows while 4000 threads come and go, four at a time. Each allocates 200 blocks of 8 B
/// to 2 KiB, in a scope, and frees them; one more block it hands to the thread that has started it, which frees it.
/// `None` if the system does not tell.
pub fn threads<S: Scope>() -> Option<f64> {
    come_and_go::<S>(WARM_UP);
    let before = resident_bytes()?;
    come_and_go::<S>(THREADS);
    let after = resident_bytes()?;
    Some(after.saturating_sub(before) as f64 / 1024.0)
}

/// Runs `count` threads.
fn come_and_go<S: Scope>(count: usize) {
    for first in (0..count).step_by(TOGETHER) {
        let running: [_; TOGETHER] = std::array::from_fn(|index| {
            thread::spawn(move || work::<S>(Random::new((first + index) as u64)))
        });
        for thread in running {
            drop(thread.join().expect("no thread panics"));
        }
    }
}

/// The life of one thread; the block that it hands over.
fn work<S: Scope>(mut random: Random) -> Block {
    S::Requests::run(|| {
        let blocks: Vec<Block> =
            (0..BLOCKS).map(|_| Block::filled(skewed_size(random.bits(), 3, 11))).collect();
        black_box(&blocks);
    });
    Block::new(Block::MIN_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoScope;

    #[test]
    fn a_thread_hands_one_block_over() {
        assert_eq!(work::<NoScope>(Random::new(1)).size(), Block::MIN_SIZE);
        come_and_go::<NoScope>(2 * TOGETHER);
    }
}
