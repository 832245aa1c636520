//! Blocks that know their contents, and work that overwrites whatever is free.
//!
//! A block is filled with one byte and carries its seed, so that a block that overlaps another, or whose
//! memory was given to somebody else too early, is noticed when it is checked.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::alloc::{self, Layout};
use std::hint::black_box;

/// A generator of numbers that are random enough (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A size from all ranges the allocator treats differently: mostly small, at times above 16 KiB, seldom
    /// above 1 MiB.
    pub fn size(&mut self) -> usize {
        match self.below(1000) {
            0..700 => 1 + self.below(200),
            700..930 => 1 + self.below(2000),
            930..975 => 1 + self.below(16 << 10),
            975..996 => (16 << 10) + self.below(100 << 10),
            _ => (600 << 10) + self.below(1 << 20),
        }
    }

    /// An alignment, mostly an ordinary one.
    pub fn align(&mut self) -> usize {
        match self.below(100) {
            0..60 => 8,
            60..80 => 1 << self.below(4),
            80..97 => 16 << self.below(6),
            97..99 => 4096,
            _ => 64 << 10,
        }
    }
}

/// A block straight from the global allocator that checks itself when it is dropped.
#[derive(Debug)]
pub struct Block {
    ptr: *mut u8,
    layout: Layout,
    seed: u64,
}

// SAFETY: the block is memory that belongs to the value alone.
unsafe impl Send for Block {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Block {}

impl Block {
    pub fn new(size: usize, align: usize, seed: u64) -> Block {
        Block::try_new(size, align, seed).expect("there is memory")
    }

    /// `None` if there is no memory.
    pub fn try_new(size: usize, align: usize, seed: u64) -> Option<Block> {
        let layout = Layout::from_size_align(size, align).expect("a layout");
        // SAFETY: sizes are not 0.
        let ptr = unsafe { if seed % 4 == 3 { alloc::alloc_zeroed(layout) } else { alloc::alloc(layout) } };
        if ptr.is_null() {
            return None;
        }
        assert!(ptr.addr().is_multiple_of(align), "{ptr:?} is not aligned to {align}");
        let mut block = Block { ptr, layout, seed };
        if seed % 4 == 3 {
            assert!(same(block.bytes()) && block.bytes()[0] == 0, "{size} B are not zero");
        }
        block.fill();
        Some(block)
    }

    /// A block of random size and alignment.
    pub fn random(random: &mut Random) -> Block {
        let (size, align, seed) = (random.size(), random.align(), random.next());
        Block::new(size, align, seed)
    }

    /// A block of the slab or an arena.
    pub fn random_small(random: &mut Random) -> Block {
        let limit = if random.below(10) == 0 { 4000 } else { 300 };
        Block::new(1 + random.below(limit), 8, random.next())
    }

    pub fn size(&self) -> usize {
        self.layout.size()
    }

    pub fn address(&self) -> usize {
        self.ptr.addr()
    }

    fn fill(&mut self) {
        let fill = self.seed as u8;
        // SAFETY: the block has this size and belongs to `self`.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.ptr, self.layout.size()) };
        bytes.fill(fill);
        if let Some(head) = bytes.first_chunk_mut() {
            *head = self.seed.to_ne_bytes();
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the block has this size and is initialised.
        unsafe { std::slice::from_raw_parts(self.ptr, self.layout.size()) }
    }

    /// Panics if the first `size` bytes are not what was written.
    fn check_first(&self, size: usize) {
        let bytes = &self.bytes()[..size];
        let body = if self.layout.size() >= 8 {
            let head = &self.seed.to_ne_bytes()[..size.min(8)];
            assert_eq!(&bytes[..head.len()], head, "head of {} B at {:?}", self.layout.size(), self.ptr);
            &bytes[head.len()..]
        } else {
            bytes
        };
        let intact = body.is_empty() || (body[0] == self.seed as u8 && same(body));
        assert!(intact, "contents of {} B at {:?}", self.layout.size(), self.ptr);
    }

    pub fn check(&self) {
        self.check_first(self.layout.size());
    }

    /// Reallocates. What was in the block must still be there.
    pub fn resize(&mut self, new_size: usize) {
        self.check();
        let kept = self.layout.size().min(new_size);
        // SAFETY: the block was allocated with this layout and the new size is not 0.
        let ptr = unsafe { alloc::realloc(self.ptr, self.layout, new_size) };
        assert!(!ptr.is_null(), "there is memory");
        assert!(ptr.addr().is_multiple_of(self.layout.align()));
        let old_size = self.layout.size();
        self.ptr = ptr;
        self.layout = Layout::from_size_align(new_size, self.layout.align()).expect("a layout");
        if old_size >= 8 || new_size < 8 {
            // With less than 8 B before and more now there is no head yet.
            let head = if old_size >= 8 { kept.min(8) } else { 0 };
            assert_eq!(&self.bytes()[..head], &self.seed.to_ne_bytes()[..head], "head after realloc");
            let body = &self.bytes()[head..kept];
            assert!(body.is_empty() || (body[0] == self.seed as u8 && same(body)), "body after realloc");
        } else {
            assert!(self.bytes()[..kept].iter().all(|&byte| byte == self.seed as u8), "bytes after realloc");
        }
        self.fill();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
        // SAFETY: the block was allocated with this layout and is not used any more. What is written here is
        // what a stale user would see.
        unsafe {
            self.ptr.write_bytes(0xdd, self.layout.size());
            alloc::dealloc(self.ptr, self.layout);
        }
    }
}

/// Whether all bytes are equal.
fn same(bytes: &[u8]) -> bool {
    bytes.is_empty() || bytes[1..] == bytes[..bytes.len() - 1]
}

/// Takes and overwrites free memory of all kinds: blocks of this thread's slab pages, chunks, mid-size and
/// large ones.
pub fn poison() {
    shockwave_alloc::outside_arena(overwrite);
    shockwave_alloc::with_request_arena(overwrite);
}

fn overwrite() {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for size in [8, 16, 24, 32, 40, 48, 64, 80, 96, 104, 112, 128, 160, 256, 512, 1024, 4096, 12 << 10] {
        let count = (64 << 10) / size;
        blocks.extend((0..count.clamp(8, 300)).map(|_| vec![0xa5; size]));
    }
    blocks.extend([20 << 10, 100 << 10, 500 << 10, 1100 << 10].map(|size| vec![0xa5; size]));
    black_box(&blocks);
}
