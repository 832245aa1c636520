//! What the workloads are made of: blocks of a size chosen at run time, and cheap random numbers.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::hint::black_box;
use std::ptr::NonNull;

/// A block of the global allocator, of a size that the compiler does not know.
///
/// The first eight bytes are written, as every program writes what it allocates; the rest is left alone,
/// because filling it costs the same with every allocator and would hide the difference.
pub(crate) struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block owns its memory, has no interior mutability, and `GlobalAlloc` lets any thread free it.
unsafe impl Send for Block {}

impl Block {
    /// The smallest size, in bytes; also the alignment of every block.
    pub(crate) const MIN_SIZE: usize = size_of::<u64>();

    /// Allocates `size` bytes, at least [`MIN_SIZE`](Self::MIN_SIZE).
    #[inline]
    pub(crate) fn new(size: usize) -> Self {
        debug_assert!(size >= Self::MIN_SIZE, "size {size} is below {}", Self::MIN_SIZE);
        let size = size.max(Self::MIN_SIZE);
        // SAFETY: the alignment is a power of two, and no workload comes near `isize::MAX`.
        let layout = unsafe { Layout::from_size_align_unchecked(size, Self::MIN_SIZE) };
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // SAFETY: the block holds eight bytes at least and is aligned for them.
        unsafe { start.cast::<u64>().write(size as u64) };
        // Without this the compiler may remove a pair of allocation and free whose content nobody reads.
        Self { start: black_box(start), layout }
    }

    /// The same, with every byte written: for memory that has to be resident.
    #[inline]
    pub(crate) fn filled(size: usize) -> Self {
        let block = Self::new(size);
        // SAFETY: the block is as long as its layout says.
        unsafe { block.start.write_bytes(1, block.layout.size()) };
        block
    }

    /// Makes it larger or smaller, and writes the first eight bytes again.
    #[inline]
    pub(crate) fn resize(&mut self, size: usize) {
        let size = size.max(Self::MIN_SIZE);
        // SAFETY: `start` is a live block of this layout; the size is not zero and far below `isize::MAX`.
        let start = unsafe { realloc(self.start.as_ptr(), self.layout, size) };
        // SAFETY: the alignment is that of the old layout, and no workload comes near `isize::MAX`.
        let layout = unsafe { Layout::from_size_align_unchecked(size, Self::MIN_SIZE) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // SAFETY: the block holds eight bytes at least and is aligned for them.
        unsafe { start.cast::<u64>().write(size as u64) };
        self.start = black_box(start);
        self.layout = layout;
    }

    /// The first eight bytes.
    #[inline]
    pub(crate) fn read_word(&self) -> u64 {
        // SAFETY: the block holds eight bytes at least, `new` has written them, and it is aligned for them.
        unsafe { self.start.cast::<u64>().read() }
    }

    /// Writes the first eight bytes.
    #[inline]
    pub(crate) fn write_word(&mut self, word: u64) {
        // SAFETY: the block holds eight bytes at least, is aligned for them, and nobody has a reference into it.
        unsafe { self.start.cast::<u64>().write(word) };
    }

    /// Its size, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.layout.size()
    }

    /// Where it begins.
    #[cfg(test)]
    pub(crate) fn address(&self) -> usize {
        self.start.addr().get()
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout, and a value is dropped once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// Marsaglia's xorshift generator with a 64-bit state (Journal of Statistical Software 8, 2003; shifts 13, 7,
/// 17): three shifts per number, so that the allocator is measured and not the generator.
pub(crate) struct Random(u64);

impl Random {
    /// A generator that always yields the same sequence for the same `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the one state it never leaves; the odd multiplier spreads small seeds over all bits.
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next 64 bits.
    #[inline]
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Maps the upper 32 of `bits` to `0..bound` without a division.
#[inline]
pub(crate) fn below(bits: u64, bound: usize) -> usize {
    (((bits >> 32) * bound as u64) >> 32) as usize
}

/// Maps the lower 32 of `bits` to a size of `2^from` up to, and not including, `2^to` bytes. Every power of
/// two is equally likely and sizes within it are even, so small sizes are as frequent as they are in
/// programs.
#[inline]
pub(crate) fn skewed_size(bits: u64, from: u32, to: u32) -> usize {
    let exponent = from + (((bits & 0xFF) as u32 * (to - from)) >> 8);
    let low = 1 << exponent;
    low + ((bits as usize >> 8) & (low - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_layout_through_a_resize() {
        let mut block = Block::filled(8);
        block.write_word(7);
        assert_eq!((block.size(), block.read_word()), (8, 7));
        for size in [2000, 16, 8] {
            block.resize(size);
            assert_eq!((block.size(), block.read_word()), (size, size as u64));
        }
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        let mut random = Random::new(1);
        let mut seen = [false; 8];
        for _ in 0..10_000 {
            let bits = random.bits();
            assert!(below(bits, 20_000) < 20_000);
            let size = skewed_size(bits, 3, 11);
            assert!((8..2048).contains(&size), "{size}");
            seen[size.ilog2() as usize - 3] = true;
            let size = skewed_size(bits, 12, 20);
            assert!((4096..1 << 20).contains(&size), "{size}");
        }
        assert_eq!(seen, [true; 8]);
    }
}
