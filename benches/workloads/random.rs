//! Cheap random numbers.

/// Marsaglia's xorshift generator with a 64-bit state (Journal of Statistical Software 8, 2003; shifts 13, 7,
/// 17): three shifts per number, so that the allocator is measured and not the generator.
pub struct Random(u64);

impl Random {
    /// A generator that always yields the same sequence for the same `seed`, which must not be 0.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper half, mapped without a division.
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }
}
