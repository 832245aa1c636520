//! Size classes of mid-size blocks: eight per doubling from 16 KiB to 1 MiB, so at most 12.5 % of a request more.
//!
//! Pure arithmetic: no unsafe code.
#![forbid(unsafe_code)]

use crate::size_class::SMALL_MAX;

/// Largest block of a class, in bytes.
pub(crate) const MID_MAX: usize = 1 << 20;

/// Number of classes.
pub(super) const CLASSES: usize = STEPS * (MID_MAX.ilog2() - SMALL_MAX.ilog2()) as usize;

/// Classes per doubling.
const STEPS: usize = 8;

/// The class that serves `size` bytes, which are above [`SMALL_MAX`] and at most [`MID_MAX`].
#[inline]
pub(super) const fn class_of(size: usize) -> usize {
    let last = size - 1;
    let log = last.ilog2();
    // The three bits behind the highest one count the steps of its doubling.
    let step = (last >> (log - STEPS.ilog2())) & (STEPS - 1);
    (log - SMALL_MAX.ilog2()) as usize * STEPS + step
}

/// Bytes of a block of `class`.
#[inline]
pub(super) const fn size_of_class(class: usize) -> usize {
    let base = SMALL_MAX << (class / STEPS);
    base + base / STEPS * (class % STEPS + 1)
}

// Ends at both limits, and each class serves its own size while one byte more goes to the next.
const _: () = {
    assert!(class_of(SMALL_MAX + 1) == 0);
    assert!(size_of_class(CLASSES - 1) == MID_MAX);
    let mut class = 0;
    while class < CLASSES {
        let size = size_of_class(class);
        assert!(class_of(size) == class);
        if class + 1 < CLASSES {
            assert!(class_of(size + 1) == class + 1);
            // Waste of at most 12.5 % of the request.
            assert!((size_of_class(class + 1) - size) * STEPS <= size);
        }
        class += 1;
    }
};
