//! A spike of requests, then silence: what goes back to the system.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use crate::Scope;
use crate::bench::Scope as _;
use crate::blocks::{Block, Random, below};
use crate::process::resident_bytes;

/// Sizes of the blocks of a request, which makes as many of each: mimalloc-pprof's burst of 150,000 blocks of 512 B,
/// 100,000 of 1 KiB and 50,000 of 2 KiB has the same shares.
const SIZES: [usize; 6] = [512, 1024, 512, 2048, 1024, 512];

/// Blocks of a request; they fill most of a chunk of 64 KiB.
const BLOCKS: usize = 10 * SIZES.len();

/// Requests that are open at once: 300,000 blocks, 281 MB.
const REQUESTS: usize = 5000;

/// One block in so many survives its request.
const SURVIVES: usize = 20;

/// Time from one small request to the next.
const TRAFFIC: Duration = Duration::from_millis(10);

/// What is left of the spike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing.
    None,
    /// One block in 20, picked at random, made by code that knows of no arena.
    Some,
}

/// What comes after the spike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Nothing.
    Silence,
    /// A request of 60 blocks every 10 ms.
    Traffic,
}

/// Per cent of the resident memory of 5000 requests open at once (281 MB in 300,000 blocks) that has gone back to the
/// system after all of them have ended and `idle` has passed. `None` if the system does not tell.
pub fn burst<S: Scope>(idle: Duration, survivors: Survivors, afterwards: Afterwards) -> Option<f64> {
    let mut random = Random::new(20);
    // One in `SURVIVES` at random; none if nothing is to survive. Written, and so resident, before the spike.
    let survives: Vec<bool> = (0..REQUESTS * BLOCKS)
        .map(|_| below(random.bits(), SURVIVES) == 0 && survivors == Survivors::Some)
        .collect();
    let mut blocks: Vec<Option<Block>> = Vec::new();
    blocks.resize_with(REQUESTS * BLOCKS, || None);
    let mut open = Vec::with_capacity(REQUESTS);
    black_box(&blocks);
    let before = resident_bytes()?;

    for request in blocks.chunks_mut(BLOCKS) {
        let ((), arena) = S::Requests::open(|| fill(request));
        open.push(arena);
    }
    let peak = resident_bytes()?.saturating_sub(before);
    for ((arena, request), survives) in
        open.drain(..).zip(blocks.chunks_mut(BLOCKS)).zip(survives.chunks(BLOCKS))
    {
        S::resume(&arena, || {
            for (block, _) in request.iter_mut().zip(survives).filter(|(_, survives)| !**survives) {
                *block = None;
            }
        });
    }
    match afterwards {
        Afterwards::Silence => thread::sleep(idle),
        Afterwards::Traffic => {
            let begin = Instant::now();
            while begin.elapsed() < idle {
                S::Requests::run(|| fill(&mut [const { None }; BLOCKS]));
                thread::sleep(TRAFFIC);
            }
        }
    }
    let after = resident_bytes()?.saturating_sub(before);
    black_box(&blocks);
    // What comes beside the blocks, the thread's own pages say, may make it a little more than before.
    Some((100.0 * (1.0 - after as f64 / peak as f64)).max(0.0))
}

/// Makes the blocks of a request.
fn fill(request: &mut [Option<Block>]) {
    for (block, size) in request.iter_mut().zip(SIZES.iter().cycle()) {
        *block = Some(Block::filled(*size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_the_original() {
        let count = |size| SIZES.iter().filter(|of| **of == size).count() * 10 * REQUESTS;
        assert_eq!([count(512), count(1024), count(2048)], [150_000, 100_000, 50_000]);
    }
}
