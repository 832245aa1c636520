//! How many requests come at what time of day.

use crate::blocks::Random;

/// Days of a run.
pub const DAYS: f64 = 2.0;

/// Hours of a day.
const HOURS: f64 = 24.0;

/// The time of day at which a run begins, in hours: each day of it ends with its night.
const MORNING: f64 = 6.0;

/// Hours since the morning at which the night begins; it lasts until the next morning.
const NIGHT: f64 = 16.0;

/// Requests per second as a part of those of the day's height, at hours since the morning; straight lines between.
const LEVELS: [(f64, f64); 9] = [
    (0.0, 0.05),
    (1.0, 0.1),
    (4.0, 1.0),
    (6.5, 0.75),
    (8.0, 1.0),
    (11.0, 0.9),
    (13.0, 0.6),
    (NIGHT, 0.05),
    (HOURS, 0.05),
];

/// When the requests of spikes begin to come beside the others, in hours since the morning: 08:00, 15:00, 20:00, 01:00.
const SPIKES: [f64; 4] = [2.0, 9.0, 14.0, 19.0];

/// Requests per second that a spike adds, as a part of those of the day's height.
const SPIKE: f64 = 1.5;

/// How long a spike lasts, in seconds, unless the day is so short that it is this part of it.
const SPIKE_SECONDS: f64 = 4.0;
const SPIKE_SHARE: f64 = 1.0 / 60.0;

/// The load of a run: two days, each with a height, a night and four spikes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve {
    /// How long the run lasts, in seconds.
    seconds: f64,
    /// Requests per second at the day's height.
    rate: f64,
}

impl Curve {
    /// A run of `seconds` with `rate` requests per second at the day's height.
    pub fn new(seconds: f64, rate: f64) -> Self {
        Self { seconds, rate }
    }

    /// How long the run lasts, in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// How long one of its days lasts, in seconds.
    pub fn day(&self) -> f64 {
        self.seconds / DAYS
    }

    /// Requests per second at `at` seconds since the beginning.
    pub fn rate(&self, at: f64) -> f64 {
        let hour = self.hours_since_morning(at);
        let length = SPIKE_SECONDS.min(self.day() * SPIKE_SHARE) * HOURS / self.day();
        let spikes = SPIKES.iter().any(|spike| (*spike..spike + length).contains(&hour));
        self.rate * (level(hour) + if spikes { SPIKE } else { 0.0 })
    }

    /// More requests per second than these never come.
    fn most(&self) -> f64 {
        self.rate * (1.0 + SPIKE)
    }

    /// The time of day at `at` seconds, in hours: 0 up to, and not including, 24.
    pub fn hour(&self, at: f64) -> f64 {
        (self.hours_since_morning(at) + MORNING) % HOURS
    }

    /// The night in whose last third `at` seconds is, counted from 0; `None` outside of it.
    pub fn late_night(&self, at: f64) -> Option<usize> {
        let from = NIGHT + (HOURS - NIGHT) * 2.0 / 3.0;
        (self.hours_since_morning(at) >= from).then_some((at / self.day()) as usize)
    }

    fn hours_since_morning(&self, at: f64) -> f64 {
        (at / self.day()).fract() * HOURS
    }
}

/// What [`LEVELS`] say about an hour since the morning.
fn level(hour: f64) -> f64 {
    let after = LEVELS.iter().position(|(at, _)| hour < *at).unwrap_or(LEVELS.len() - 1);
    let [(from, low), (to, high)] = [LEVELS[after.max(1) - 1], LEVELS[after]];
    low + (high - low) * ((hour - from) / (to - from)).clamp(0.0, 1.0)
}

/// When the requests of one thread come, in seconds since the beginning: at random, and at the same moments whenever the
/// numbers are the same.
///
/// A Poisson process whose rate changes, made by thinning (Lewis and Shedler, Naval Research Logistics Quarterly 26, 1979).
pub struct Arrivals {
    curve: Curve,
    /// The part of all requests that comes to this thread.
    share: f64,
    random: Random,
    at: f64,
}

impl Arrivals {
    /// The requests that come to one of `threads` threads.
    pub fn new(curve: Curve, threads: usize, seed: u64) -> Self {
        Self { curve, share: 1.0 / threads as f64, random: Random::new(seed), at: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let most = self.curve.most();
        loop {
            self.at -= (1.0 - unit(self.random.bits())).ln() / (most * self.share);
            if self.at >= self.curve.seconds() {
                return None;
            }
            if unit(self.random.bits()) * most < self.curve.rate(self.at) {
                return Some(self.at);
            }
        }
    }
}

/// Maps bits to 0 up to, and not including, 1.
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Maps bits to a number from `low` to `high`, whose logarithms are equally likely: of times, many short ones and few
/// long ones.
pub(super) fn spread(bits: u64, low: f64, high: f64) -> f64 {
    low * (high / low).powf(unit(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour of a day takes 75 s.
    const CURVE: Curve = Curve { seconds: 3600.0, rate: 400.0 };

    /// Seconds since the beginning at a time of the second day.
    fn at(hour: f64) -> f64 {
        1800.0 + (hour - MORNING).rem_euclid(HOURS) * 75.0
    }

    #[test]
    fn days_have_a_height_a_night_and_spikes() {
        let rates = [10.0, 12.5, 14.0, 23.0, 3.0].map(|hour| CURVE.rate(at(hour)).round());
        assert_eq!(rates, [400.0, 300.0, 400.0, 20.0, 20.0]);
        assert_eq!(CURVE.rate(at(12.0)), CURVE.rate(at(12.0) - 1800.0), "both days are the same");
        // In the night as well, and over after four seconds.
        assert_eq!([0.5, 3.5, 4.5].map(|after| CURVE.rate(at(1.0) + after).round()), [620.0, 620.0, 20.0]);
        let highest = (0..36_000).map(|tenth| CURVE.rate(f64::from(tenth) / 10.0)).fold(0.0, f64::max);
        assert!(highest <= CURVE.most() && highest > 2.0 * CURVE.rate, "{highest}");
        let short = Curve { seconds: 60.0, rate: 400.0 };
        assert!([0.4, 0.6].map(|after| short.rate(19.0 / 24.0 * 30.0 + after) > 600.0) == [true, false]);
    }

    #[test]
    fn knows_the_time_of_day() {
        assert_eq!((CURVE.hour(0.0), CURVE.hour(18.0 * 75.0), CURVE.hour(at(22.0))), (6.0, 0.0, 22.0));
        let nights = [at(3.0), at(3.4), at(5.9), at(6.1), at(3.4) - 1800.0].map(|at| CURVE.late_night(at));
        assert_eq!(nights, [None, Some(1), Some(1), None, Some(0)]);
    }

    #[test]
    fn as_many_requests_come_as_the_curve_says() {
        let arrivals: Vec<f64> = [1, 2].into_iter().flat_map(|seed| Arrivals::new(CURVE, 2, seed)).collect();
        let between =
            |from: f64, to: f64| arrivals.iter().filter(|at| (from..to).contains(*at)).count() as f64;
        let expected = |from: f64, to: f64| {
            (0..10_000).map(|step| CURVE.rate(from + (to - from) * f64::from(step) / 10_000.0)).sum::<f64>()
                * (to - from)
                / 10_000.0
        };
        // Everything, the second day's height, the first night.
        for (from, to) in [(0.0, 3600.0), (at(10.0), at(14.0)), (1200.0, 1800.0)] {
            let (found, expected) = (between(from, to), expected(from, to));
            assert!((found - expected).abs() < 5.0 * expected.sqrt(), "{found}, not {expected}");
        }
        let again: Vec<f64> = Arrivals::new(CURVE, 2, 1).collect();
        assert!(again.is_sorted() && arrivals.starts_with(&again));
    }

    #[test]
    fn spread_numbers_stay_in_their_range() {
        assert_eq!((spread(0, 0.1, 20.0), unit(0)), (0.1, 0.0));
        assert!(unit(u64::MAX) < 1.0);
        // Half of them are below the geometric mean.
        assert!((spread(1 << 63, 1.0, 100.0) - 10.0).abs() < 1e-9);
    }
}
