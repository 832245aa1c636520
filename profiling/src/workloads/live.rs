//! A set of live blocks in which random ones are replaced: a heap in steady state.

use crate::blocks::{Block, Random, below, skewed_size};
use crate::{Clock, Sample};

/// One operation: one of 20,000 live blocks is freed and another one of 8 B to 2 KiB (to 2047 B, all powers
/// of two equally likely) takes its place. Some 7.5 MB are live, more than most second cache levels hold.
pub fn random(clock: &Clock) -> Sample {
    replace(clock, 20_000, 3, 11)
}

/// One operation: one of 256 live blocks is freed and another one of 4 KiB to 1 MiB (all powers of two
/// equally likely) takes its place. Some 50 MB are live; of a block only the first eight bytes are written,
/// so that it is finding and returning address space that counts, and not filling it.
pub fn mid(clock: &Clock) -> Sample {
    replace(clock, 256, 12, 20)
}

/// Replaces random ones of `live` blocks by blocks of `2^from` to `2^to` bytes.
fn replace(clock: &Clock, live: usize, from: u32, to: u32) -> Sample {
    let mut random = Random::new(live as u64);
    let mut blocks: Vec<Block> =
        (0..live).map(|_| Block::new(skewed_size(random.bits(), from, to))).collect();
    clock.measure(1, || {
        let bits = random.bits();
        let block = &mut blocks[below(bits, live)];
        // The new block is made before the old one is freed, as an assignment does.
        *block = Block::new(skewed_size(bits, from, to));
        bits
    })
}
