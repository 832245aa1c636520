//! What one process finds out about one row, and what the number means.

use std::fmt;
use std::str::FromStr;

use crate::Sample;

/// Stands for a number that the system does not tell.
const UNKNOWN: &str = "-";

/// What the number of a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds per operation.
    Nanoseconds,
    /// Resident bytes as a multiple of the bytes that the program keeps.
    OverKept,
    /// Resident KiB for each request that is open.
    KibPerRequest,
    /// KiB by which the resident memory has grown.
    KibGrown,
    /// Resident KiB.
    Kib,
    /// Per cent of the peak's resident memory that went back to the system.
    PercentReturned,
}

impl Unit {
    /// Its name, for the head of a table.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::OverKept => "x kept",
            Unit::KibPerRequest => "KiB each",
            Unit::KibGrown => "KiB grown",
            Unit::Kib => "KiB",
            Unit::PercentReturned => "% returned",
        }
    }

    /// Whether the larger number is the better one.
    pub fn more_is_better(self) -> bool {
        self == Unit::PercentReturned
    }
}

/// What one process has measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The number of the row, in its [`Unit`].
    pub value: f64,
    /// Page faults per 1000 operations while the time ran; only rows that measure time have them.
    pub faults: Option<f64>,
    /// The most bytes that were resident at once in the process, setup included.
    pub peak: Option<u64>,
}

impl Outcome {
    /// A number about memory.
    pub fn of_memory(value: f64) -> Outcome {
        Outcome { value, faults: None, peak: None }
    }
}

impl From<Sample> for Outcome {
    fn from(sample: Sample) -> Outcome {
        let faults = sample.faults as f64 * 1000.0 / sample.operations as f64;
        Outcome { value: sample.per_operation(), faults: Some(faults), peak: None }
    }
}

/// `VALUE FAULTS PEAK` on one line, for a program that reads it back.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = self.faults.map_or(UNKNOWN.to_owned(), |faults| faults.to_string());
        let peak = self.peak.map_or(UNKNOWN.to_owned(), |peak| peak.to_string());
        write!(f, "{} {faults} {peak}", self.value)
    }
}

impl FromStr for Outcome {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let mut words = line.split_whitespace();
        let (Some(value), Some(faults), Some(peak), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(());
        };
        let value: f64 = value.parse().map_err(|_| ())?;
        if !value.is_finite() {
            return Err(());
        }
        Ok(Outcome { value, faults: optional(faults)?, peak: optional(peak)? })
    }
}

/// A number, or the sign that there is none.
fn optional<T: FromStr>(word: &str) -> Result<Option<T>, ()> {
    if word == UNKNOWN { Ok(None) } else { word.parse().map(Some).map_err(|_| ()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_pipe() {
        for outcome in [
            Outcome { value: 12.25, faults: Some(0.5), peak: Some(4096) },
            Outcome { value: -3.0, faults: None, peak: None },
        ] {
            assert_eq!(outcome.to_string().parse(), Ok(outcome));
        }
        for wrong in ["", "1 2", "1 2 3 4", "NaN - -", "1 - x"] {
            assert_eq!(wrong.parse::<Outcome>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_sample_is_time_and_faults_per_operation() {
        let outcome = Outcome::from(Sample { nanoseconds: 1200, operations: 300, faults: 30 });
        assert_eq!((outcome.value, outcome.faults), (4.0, Some(100.0)));
    }
}
