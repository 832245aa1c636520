//! A heap that has been in use for long.

use crate::blocks::{Block, Random, below, skewed_size};

/// Blocks that are live at once while it ages.
const LIVE: usize = 100_000;

/// Replacements while it ages: as many as an allocation every millisecond makes in an hour.
const REPLACEMENTS: usize = 3_600_000;

/// Blocks that are left, one in so many.
const LEFT: usize = 4;

/// Ages the heap and returns what is still live: of 100,000 blocks of 16 B to 2 KiB random ones are replaced 3.6 million
/// times, which gives them lifetimes as from requests that come at random; then three in four, at random, are freed.
pub(super) fn aged_heap() -> Vec<Block> {
    let mut random = Random::new(3600);
    let mut blocks: Vec<Block> = (0..LIVE).map(|_| Block::new(skewed_size(random.bits(), 4, 11))).collect();
    for _ in 0..REPLACEMENTS {
        let bits = random.bits();
        blocks[below(bits, LIVE)] = Block::new(skewed_size(bits, 4, 11));
    }
    blocks.retain(|_| below(random.bits(), LEFT) == 0);
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_in_four_is_left() {
        let left = aged_heap().len();
        assert!((LIVE / LEFT - 1000..LIVE / LEFT + 1000).contains(&left), "{left}");
    }
}
