//! What the rounds of one allocator say, and whether two allocators differ.

/// The rounds of one allocator in one row, in the unit of the row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The smallest: of times, the round that other programs on the machine disturbed least.
    pub min: f64,
    /// The round in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
    /// The round that three quarters of all do not exceed; with up to four rounds, the largest.
    pub upper_quartile: f64,
    /// Largest minus smallest, over the smallest; 0 if that is not above 0.
    pub spread: f64,
}

impl Summary {
    /// Sums `rounds` up; `None` if there are none.
    pub fn of(rounds: &[f64]) -> Option<Summary> {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let last = sorted.len() - 1;
        let median = (sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0;
        let upper_quartile = sorted[(last * 3).div_ceil(4)];
        let spread = if min > 0.0 { (max - min) / min } else { 0.0 };
        Some(Summary { min, max, median, upper_quartile, spread })
    }

    /// Whether the rounds of the two tell them apart: the ranges from fastest round to upper quartile are
    /// disjoint.
    ///
    /// Not up to the slowest round, since one disturbed round would decide, and more rounds would make a
    /// difference harder to see instead of easier.
    pub fn differs_from(&self, other: &Summary) -> bool {
        self.upper_quartile < other.min || other.upper_quartile < self.min
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up() {
        let summary = Summary::of(&[14.0, 10.0, 12.0, 11.0, 20.0]).unwrap();
        let expected = Summary { min: 10.0, max: 20.0, median: 12.0, upper_quartile: 14.0, spread: 1.0 };
        assert_eq!(summary, expected);
        assert_eq!(Summary::of(&[4.0, 2.0]).unwrap().median, 3.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_disturbed_round_does_not_hide_a_difference() {
        let fast = Summary::of(&[10.0, 10.1, 10.2, 10.1, 90.0]).unwrap();
        let slow = Summary::of(&[11.0, 11.1, 11.2, 11.3, 11.4]).unwrap();
        let noisy = Summary::of(&[10.1, 10.3, 12.0, 12.5, 13.0]).unwrap();
        assert!(fast.differs_from(&slow) && slow.differs_from(&fast));
        assert!(!fast.differs_from(&noisy) && !noisy.differs_from(&fast));
    }
}
