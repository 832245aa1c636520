//! Overwriting memory in a way that is not optimised away.

use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};

/// Writes zeros over `bytes`, although nobody may read them.
pub(super) fn wipe(bytes: &mut [u8]) {
    // SAFETY: every bit pattern is a valid `u64`, and zeros written through one are valid `u8`s.
    let (start, words, end) = unsafe { bytes.align_to_mut::<u64>() };
    words.iter_mut().for_each(|word| write(word, 0));
    start.iter_mut().chain(end).for_each(|byte| write(byte, 0));
    // Later accesses are not moved before the writes.
    compiler_fence(Ordering::SeqCst);
}

fn write<T: Copy>(place: &mut T, value: T) {
    // SAFETY: a mutable reference is valid for writes and aligned, and `T` has no destructor. A volatile write is not dropped.
    unsafe { ptr::write_volatile(place, value) };
}

#[cfg(test)]
mod tests {
    use super::wipe;

    #[test]
    fn every_byte_and_no_other_is_zeroed() {
        for (from, to) in [(0, 0), (0, 1), (3, 5), (1, 64), (7, 63), (8, 64), (0, 100)] {
            let mut bytes = [0xA5u8; 100];
            wipe(&mut bytes[from..to]);
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(*byte == 0, (from..to).contains(&at), "{from}..{to} at {at}");
            }
        }
    }
}
