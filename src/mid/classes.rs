//! Size classes of mid-size blocks: whole units of 4 KiB, one class for each number of units up to 64 KiB, then eight per
//! doubling up to 1 MiB.
//!
//! Pure arithmetic: no unsafe code.
#![forbid(unsafe_code)]

use crate::size_class::SMALL_MAX;

/// Largest block of a class, in bytes.
pub(crate) const MID_MAX: usize = 1 << 20;

/// Bytes of a unit.
pub(super) const UNIT: usize = 4 << 10;

/// Units of the smallest class, which is the first to be longer than what the slab serves.
const LEAST: usize = SMALL_MAX / UNIT + 1;
/// Up to here every number of units has a class.
const LINEAR_MAX: usize = 16;
/// Classes per doubling above.
const STEPS: usize = 8;
/// Classes up to [`LINEAR_MAX`].
const LINEAR: usize = LINEAR_MAX - LEAST + 1;

/// Number of classes.
pub(super) const CLASSES: usize =
    LINEAR + STEPS * (MID_MAX / UNIT).ilog2().abs_diff(LINEAR_MAX.ilog2()) as usize;

/// Units of a block of each class.
const UNITS: [u16; CLASSES] = {
    let mut units = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        units[class] = if class < LINEAR {
            class + LEAST
        } else {
            let base = LINEAR_MAX << ((class - LINEAR) / STEPS);
            base + base / STEPS * ((class - LINEAR) % STEPS + 1)
        } as u16;
        class += 1;
    }
    units
};

/// Class of each number of units, less one.
const CLASS_OF: [u8; MID_MAX / UNIT] = {
    let mut table = [0; MID_MAX / UNIT];
    let mut class = 0;
    let mut index = 0;
    while index < table.len() {
        while (UNITS[class] as usize) < index + 1 {
            class += 1;
        }
        table[index] = class as u8;
        index += 1;
    }
    table
};

/// The class that serves `size` bytes, which are more than the slab serves and at most [`MID_MAX`].
#[inline]
pub(super) const fn class_of(size: usize) -> usize {
    CLASS_OF[(size - 1) / UNIT] as usize
}

/// Units of a block of `class`.
#[inline]
pub(super) const fn units_of_class(class: usize) -> usize {
    UNITS[class] as usize
}

/// Bytes of a block of `class`.
#[inline]
pub(super) const fn size_of_class(class: usize) -> usize {
    units_of_class(class) * UNIT
}

// Ends at both limits; each class serves its own size, while one byte more goes to the next.
const _: () = {
    assert!(class_of(SMALL_MAX + 1) == 0);
    assert!(size_of_class(CLASSES - 1) == MID_MAX);
    let mut class = 0;
    while class < CLASSES {
        let size = size_of_class(class);
        assert!(class_of(size) == class);
        if class + 1 < CLASSES {
            assert!(class_of(size + 1) == class + 1);
            // Less than a unit more than what is asked for, or at most 12.5 %.
            let step = size_of_class(class + 1) - size;
            assert!(step == UNIT || step * STEPS <= size);
        }
        class += 1;
    }
};
