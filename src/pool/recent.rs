//! A decayed 95th percentile of sizes, in four bytes.
//!
//! The estimate moves up 19 steps when a size is above it and down one step when it is not, so it rests where one size in
//! twenty is above: frugal streaming (Ma, Muthukrishnan and Sandler, 2013). A step is 1/64 of a doubling. One size, however
//! big, moves it by less than a third of a doubling; 17 big ones in a row raise it 32 times, 320 small ones take it back.
#![forbid(unsafe_code)]

/// Steps in a doubling.
const STEPS: u32 = 64;

/// Steps up for a size above the estimate; one step down for any other.
const UP: u32 = 19;

/// The logarithm of the greatest size.
const LOG_MAX: u32 = usize::BITS * STEPS - 1;

/// The estimate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    /// Logarithm of the estimate.
    log: u32,
}

impl Recent {
    /// All bits are zero, so that a static pool takes no room in the program's file.
    pub(super) const NEW: Recent = Recent { log: 0 };

    /// Takes a size in bytes into account. The estimate does not fall below `floor` bytes.
    pub(super) fn record(&mut self, size: usize, floor: usize) {
        let moved = if log(size) > self.log { self.log + UP } else { self.log.saturating_sub(1) };
        self.log = moved.max(log(floor)).min(LOG_MAX);
    }

    /// The estimate in bytes.
    pub(super) fn bytes(self) -> usize {
        let (octave, fraction) = (self.log / STEPS, self.log % STEPS);
        ((u128::from(STEPS + fraction) << octave) / u128::from(STEPS)) as usize
    }
}

/// Logarithm to the base 2 in steps, linear between powers of two. That of 0 is 0.
fn log(size: usize) -> u32 {
    let size = size.max(1) as u128;
    let octave = size.ilog2();
    let fraction = ((size * u128::from(STEPS)) >> octave) as u32 - STEPS;
    octave * STEPS + fraction
}

#[cfg(test)]
mod tests {
    use super::{Recent, log};

    fn after(sizes: impl IntoIterator<Item = usize>) -> usize {
        let mut recent = Recent::NEW;
        sizes.into_iter().for_each(|size| recent.record(size, 1024));
        recent.bytes()
    }

    #[test]
    fn the_logarithm_is_monotonic_and_invertible_to_one_part_in_64() {
        let mut last = 0;
        for size in (0..100_000).chain((17..63).map(|shift| 1 << shift)).chain([usize::MAX]) {
            let log = log(size);
            assert!(log >= last, "{size}");
            last = log;
            let back = Recent { log }.bytes();
            assert!(back <= size.max(1) && back as f64 >= size as f64 * (1.0 - 1.0 / 64.0), "{size} {back}");
        }
    }

    #[test]
    fn it_is_near_the_95th_percentile() {
        // 1 KiB to 65 KiB, evenly: the percentile is 61.8 KiB.
        let mut state = 1u64;
        let estimate = after((0..20_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            1024 + (state >> 33) as usize % (64 << 10)
        }));
        assert!((50_000..80_000).contains(&estimate), "{estimate}");
    }

    #[test]
    fn one_outlier_hardly_moves_it_and_a_new_load_does() {
        assert!(after([10 << 20]) < 1400);
        assert!(after(std::iter::repeat_n(2000, 1000).chain([10 << 20])) < 3200);
        // One in fifty stays below the percentile.
        let rare = (0..5000).map(|n| if n % 50 == 49 { 10 << 20 } else { 1000 });
        assert!(after(rare) < 2000);
        assert!(after(std::iter::repeat_n(10 << 20, 60)) >= 10 << 20);
        // And down again.
        assert!(after(std::iter::repeat_n(10 << 20, 60).chain(std::iter::repeat_n(1000, 1000))) < 1100);
    }

    #[test]
    fn the_greatest_sizes_do_not_overflow() {
        assert_eq!(after(std::iter::repeat_n(usize::MAX, 10_000)) >> 62, 0b11);
    }
}
