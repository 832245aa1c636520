//! Which OS pages of a slab page could be purged, and which blocks lie in those that were: arithmetic on offsets.
#![forbid(unsafe_code)]

use core::ops::Range;

use crate::space::PAGE_SIZE;

/// Bytes of an OS page. Where they are bigger no holes are purged.
pub(crate) const OS_PAGE: usize = 4 << 10;

/// OS pages of a slab page; as many bits has a set of them.
const PAGES: usize = PAGE_SIZE / OS_PAGE;

/// Blocks that touch the OS pages `pages`, of those that were carved.
fn blocks_of(pages: Range<usize>, size: usize, carved: usize) -> Range<usize> {
    let first = (pages.start * OS_PAGE / size).min(carved);
    first..(pages.end * OS_PAGE).div_ceil(size).min(carved).max(first)
}

/// The OS pages that a block at `offset` touches.
pub(super) fn pages_of(offset: usize, size: usize) -> u16 {
    let (first, last) = (offset / OS_PAGE, (offset + size - 1) / OS_PAGE);
    ((1u32 << (last + 1)) - (1u32 << first)) as u16
}

/// The runs of adjacent pages in a set.
pub(super) fn runs(mut set: u16) -> impl Iterator<Item = Range<usize>> {
    core::iter::from_fn(move || {
        let start = (set != 0).then(|| set.trailing_zeros())?;
        let len = (set >> start).trailing_ones();
        set &= !(((1u32 << (start + len)) - (1u32 << start)) as u16);
        Some(start as usize..(start + len) as usize)
    })
}

/// For a set of holes that is not empty: the blocks in its first OS page, or in the first few if no block ends there, and the holes that
/// are left. A block that touches one of these stays in them.
pub(super) fn first(holes: u16, size: usize, carved: usize) -> (Range<usize>, u16) {
    let start = holes.trailing_zeros() as usize;
    let mut end = start + 1;
    loop {
        let rest = (u32::from(holes) & !((1u32 << end) - 1)) as u16;
        let mut blocks = blocks_of(start..end, size, carved);
        // Only the last of them can reach into the next OS page.
        while !blocks.is_empty() && pages_of((blocks.end - 1) * size, size) & rest != 0 {
            blocks.end -= 1;
        }
        if !blocks.is_empty() || rest == 0 {
            return (blocks, rest);
        }
        end += 1;
    }
}

/// Counts which OS pages have live blocks.
pub(super) struct Occupied {
    size: usize,
    /// Live blocks that touch each page; in pages that are holes or were never carved it means nothing.
    blocks: [u16; PAGES],
    /// Pages that may be purged once no live block touches them.
    candidates: u16,
}

impl Occupied {
    /// All `carved` blocks are taken to be alive, but those that touch one of the `holes`.
    pub(super) fn new(size: usize, carved: usize, holes: u16) -> Occupied {
        let mut occupied = Occupied { size, blocks: [0; PAGES], candidates: 0 };
        for page in 0..PAGES {
            let blocks = blocks_of(page..page + 1, size, carved);
            if !blocks.is_empty() && holes & 1 << page == 0 {
                occupied.candidates |= 1 << page;
            }
            occupied.blocks[page] = blocks.len() as u16;
        }
        // Free blocks that touch a hole and a candidate beside it: the first and last of each run, if at all.
        for run in runs(holes) {
            let blocks = blocks_of(run, size, carved);
            let ends = [Some(blocks.start), (blocks.len() > 1).then(|| blocks.end - 1)];
            for block in ends.into_iter().flatten().filter(|_| !blocks.is_empty()) {
                occupied.free(block * size);
            }
        }
        occupied
    }

    /// The block at `offset` is free.
    pub(super) fn free(&mut self, offset: usize) {
        let last = (offset + self.size - 1) / OS_PAGE;
        for blocks in self.blocks.iter_mut().take(last + 1).skip(offset / OS_PAGE) {
            *blocks = blocks.wrapping_sub(1);
        }
    }

    /// The set of pages that no live block touches.
    pub(super) fn empty_pages(&self) -> u16 {
        let mut empty = 0;
        for (page, blocks) in self.blocks.iter().enumerate() {
            empty |= u16::from(*blocks == 0) << page;
        }
        empty & self.candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Block {
        Live,
        Listed,
        InHole,
    }

    /// What `page.rs` does with these functions, on a page that is a list of blocks.
    struct Page {
        size: usize,
        holes: u16,
        blocks: Vec<Block>,
    }

    impl Page {
        fn alloc(&mut self) -> bool {
            if !self.blocks.contains(&Block::Listed) {
                if self.holes != 0 {
                    let (blocks, rest) = first(self.holes, self.size, self.blocks.len());
                    assert!(!blocks.is_empty() && rest < self.holes);
                    for block in &mut self.blocks[blocks] {
                        assert_eq!(*block, Block::InHole, "a block is carved a second time");
                        *block = Block::Listed;
                    }
                    self.holes = rest;
                } else {
                    let room = PAGE_SIZE / self.size - self.blocks.len();
                    let count = room.min((OS_PAGE / self.size).max(1));
                    self.blocks.extend(core::iter::repeat_n(Block::Listed, count));
                }
            }
            let free = self.blocks.iter().position(|block| *block == Block::Listed);
            free.map(|block| self.blocks[block] = Block::Live).is_some()
        }

        fn purge(&mut self) {
            let mut occupied = Occupied::new(self.size, self.blocks.len(), self.holes);
            for (number, _) in self.blocks.iter().enumerate().filter(|(_, block)| **block == Block::Listed) {
                occupied.free(number * self.size);
            }
            let purged = occupied.empty_pages();
            assert_eq!(purged & self.holes, 0, "an OS page is purged that was");
            self.holes |= purged;
            for (number, block) in self.blocks.iter_mut().enumerate() {
                if pages_of(number * self.size, self.size) & purged != 0 {
                    assert_ne!(*block, Block::Live, "a live block is purged");
                    *block = Block::InHole;
                }
            }
            // As much as possible: every OS page that has carved blocks and no live one.
            for page in 0..PAGES {
                let blocks = blocks_of(page..page + 1, self.size, self.blocks.len());
                let live = self.blocks[blocks.clone()].contains(&Block::Live);
                assert!(live || blocks.is_empty() || self.holes & 1 << page != 0, "page {page} is left");
            }
        }

        fn check(&self) {
            for (number, block) in self.blocks.iter().enumerate() {
                let in_hole = pages_of(number * self.size, self.size) & self.holes != 0;
                assert_eq!(in_hole, *block == Block::InHole, "block {number}");
            }
        }
    }

    #[test]
    fn no_block_is_lost_or_made_twice() {
        let mut random = 1u64;
        let mut below = |limit: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % limit
        };
        for size in [24, 128, 208, 512, 1024, 1536, 2048, 2560, 3072, 4096, 5120, 6144, 7168, 10240, 16384] {
            let mut page = Page { size, holes: 0, blocks: Vec::new() };
            // Small blocks are many.
            for _ in 0..(size / 4).clamp(8, 200) {
                match below(6) {
                    0..2 => {
                        for _ in 0..below(PAGE_SIZE / size + 1) {
                            page.alloc();
                        }
                    }
                    2..5 => {
                        let keep = below(20);
                        for block in page.blocks.iter_mut().filter(|block| **block == Block::Live) {
                            if below(20) >= keep {
                                *block = Block::Listed;
                            }
                        }
                    }
                    _ => page.purge(),
                }
                page.check();
            }
            // All of it can be had again.
            while page.alloc() {}
            assert!(page.holes == 0 && page.blocks.len() == PAGE_SIZE / size);
        }
    }
}
