//! Size classes of the slab: which block size serves a request.
//!
//! Steps of 8 B up to 128 B, then eight classes per doubling up to 16 KiB. A request of `size` bytes aligned to
//! `align` is served by the class of `size` rounded up to a multiple of `align`. Every class is a multiple of every
//! power of two that such a rounded size can be a multiple of, so a block at a multiple of its class size from the
//! start of a page is aligned without padding: alignment is part of the class.
//!
//! Pure arithmetic: no unsafe code, proved at compile time below.
#![forbid(unsafe_code)]

/// Largest block the slab serves, in bytes.
pub(crate) const SMALL_MAX: usize = 16 << 10;
/// Number of size classes.
pub(crate) const CLASSES: usize = 16 + 7 * STEPS;
/// Classes per doubling above [`LINEAR_MAX`].
const STEPS: usize = 8;
/// Up to here classes are 8 B apart.
const LINEAR_MAX: usize = 128;

/// Block size of each class in bytes.
const SIZES: [u16; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        sizes[class] = if class < 16 {
            (class as u16 + 1) * 8
        } else {
            let doubling = (class - 16) / STEPS;
            let step = (class - 16) % STEPS + 1;
            let base = LINEAR_MAX << doubling;
            (base + base / STEPS * step) as u16
        };
        class += 1;
    }
    sizes
};

/// Class of each small `extent >> 3`; see [`extent`]. At run time it is read from [`Routes`](crate::startup::Routes).
pub(crate) const CLASS_OF: [u8; SMALL_MAX / 8] = {
    let mut table = [0; SMALL_MAX / 8];
    let mut class = 0;
    let mut index = 0;
    while index < table.len() {
        // The largest request of this table entry has (index + 1) * 8 bytes.
        while (SIZES[class] as usize) < (index + 1) * 8 {
            class += 1;
        }
        table[index] = class as u8;
        index += 1;
    }
    table
};

/// `size` rounded up to a multiple of `align`, less one. A request is small if this is below [`SMALL_MAX`].
///
/// A `size` of zero, which callers may not ask for, gives a value that is never small.
#[inline]
pub(crate) const fn extent(size: usize, align: usize) -> usize {
    size.wrapping_sub(1) | (align - 1)
}

/// Block size of `class` in bytes.
#[inline]
pub(crate) const fn size_of_class(class: usize) -> usize {
    SIZES[class] as usize
}

// Strictly increasing, ending at SMALL_MAX.
const _: () = {
    let mut class = 1;
    while class < CLASSES {
        assert!(SIZES[class - 1] < SIZES[class]);
        class += 1;
    }
    assert!(SIZES[CLASSES - 1] as usize == SMALL_MAX);
};

// Round trip: a class serves its own size, and one byte more goes to the next class.
const _: () = {
    let mut class = 0;
    while class < CLASSES {
        let size = SIZES[class] as usize;
        assert!(CLASS_OF[(size - 1) >> 3] as usize == class);
        if size < SMALL_MAX {
            assert!(CLASS_OF[size >> 3] as usize == class + 1);
        }
        class += 1;
    }
};

// Natural alignment: every multiple of `align` is served by a class that is a multiple of `align`.
const _: () = {
    let mut align = 1;
    while align <= SMALL_MAX {
        let mut size = align;
        while size <= SMALL_MAX {
            assert!((SIZES[CLASS_OF[(size - 1) >> 3] as usize] as usize).is_multiple_of(align));
            // Multiples of 8 reach every table entry; below 8 the table does not distinguish.
            size += if align < 8 { 8 } else { align };
        }
        align *= 2;
    }
};

// Waste of at most 12.5 % of the request above 128 B.
const _: () = {
    let mut class = 16;
    while class < CLASSES {
        let smallest = SIZES[class - 1] as usize + 1;
        assert!((SIZES[class] as usize - smallest) * 8 <= smallest);
        class += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_request_fits_its_block_and_its_alignment() {
        for align in (0..15).map(|shift| 1usize << shift) {
            for size in 1..=SMALL_MAX {
                let extent = extent(size, align);
                assert_eq!(extent + 1, size.next_multiple_of(align));
                if extent < SMALL_MAX {
                    let block = size_of_class(CLASS_OF[extent >> 3] as usize);
                    assert!(block >= size, "{size} B in a block of {block} B");
                    assert_eq!(block % align, 0, "{size} B aligned to {align} in {block} B");
                }
            }
        }
    }

    #[test]
    fn zero_is_never_small() {
        assert!(extent(0, 8) >= SMALL_MAX);
    }
}
