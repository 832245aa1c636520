//! What a process tells about its days, line by line.

use std::fmt;
use std::str::FromStr;

use hdrhistogram::Histogram;

/// The longest time that is told apart, in nanoseconds: ten minutes.
const LONGEST: u64 = 600_000_000_000;

/// Digits that the histograms keep: they are small beside what is measured.
const DIGITS: u8 = 2;

/// Nanoseconds that half, 99 % and all of some requests took at most; zeros if there were none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// Half of them.
    pub half: u64,
    /// 99 % of them.
    pub most: u64,
    /// All of them.
    pub all: u64,
}

/// One second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Second {
    /// Its end, in seconds since the beginning.
    pub at: f64,
    /// Bytes that are resident at its end.
    pub resident: u64,
    /// Requests that ended in it.
    pub requests: u64,
    /// What they took.
    pub latency: Latency,
    /// Bytes that requests and the cache hold at its end.
    pub live: u64,
}

/// The whole run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Total {
    /// Requests that ended.
    pub requests: u64,
    /// What they took.
    pub latency: Latency,
    /// The most bytes that were resident at once.
    pub peak: u64,
    /// Processor time of all threads, in seconds.
    pub processor: f64,
    /// Entries of the cache whose content was compared when they expired.
    pub entries: u64,
}

/// One line of the output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Line {
    /// Another second is over.
    Second(Second),
    /// The run is over.
    Total(Total),
}

/// The word that a line about the whole run begins with.
const TOTAL: &str = "total";

/// Large enough from the start, so that recording does not allocate.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds and digits are accepted ones")
}

impl Latency {
    /// What a histogram says.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let [half, most] = [0.5, 0.99].map(|part| histogram.value_at_quantile(part));
        Self { half, most, all: histogram.max() }
    }

    fn parse(words: [&str; 3]) -> Option<Self> {
        let [half, most, all] = words.map(|word| word.parse().ok());
        Some(Self { half: half?, most: most?, all: all? })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.half, self.most, self.all)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Second(Second { at, resident, requests, latency, live }) => {
                write!(f, "{at:.3} {resident} {requests} {latency} {live}")
            }
            Line::Total(Total { requests, latency, peak, processor, entries }) => {
                write!(f, "{TOTAL} {requests} {latency} {peak} {processor:.3} {entries}")
            }
        }
    }
}

impl FromStr for Line {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        parse(line).ok_or(())
    }
}

fn parse(line: &str) -> Option<Line> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [TOTAL, requests, half, most, all, peak, processor, entries] => Some(Line::Total(Total {
            requests: requests.parse().ok()?,
            latency: Latency::parse([half, most, all])?,
            peak: peak.parse().ok()?,
            processor: processor.parse().ok()?,
            entries: entries.parse().ok()?,
        })),
        [at, resident, requests, half, most, all, live] => Some(Line::Second(Second {
            at: at.parse().ok()?,
            resident: resident.parse().ok()?,
            requests: requests.parse().ok()?,
            latency: Latency::parse([half, most, all])?,
            live: live.parse().ok()?,
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_the_pipe() {
        let latency = Latency { half: 1, most: 20, all: 300 };
        let second = Second { at: 1.25, resident: 4096, requests: 7, latency, live: 99 };
        let total = Total { requests: 8, latency, peak: 8192, processor: 0.5, entries: 3 };
        for line in [Line::Second(second), Line::Total(total)] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        for wrong in ["", "1 2 3", "total 1 2 3 4 5 6", "a 1 2 3 4 5 6"] {
            assert_eq!(wrong.parse::<Line>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut histogram = histogram();
        assert_eq!(Latency::of(&histogram), Latency::default());
        (1..=1000).for_each(|time| histogram.record(time).unwrap());
        let Latency { half, most, all } = Latency::of(&histogram);
        // Two digits: to one part in a hundred.
        for (found, expected) in [(half, 500.0), (most, 990.0), (all, 1000.0)] {
            assert!((found as f64 / expected - 1.0).abs() < 0.01, "{found}, not {expected}");
        }
    }
}
