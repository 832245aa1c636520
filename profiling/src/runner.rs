//! The program of the binary of one allocator: measures one row, once.

use std::time::Duration;

use crate::bench::{Figures, Reading};
use crate::{Clock, Row, Sample, Scope};

/// Asks for what stands beside the time, instead of the time.
const FIGURES: &str = "figures";

/// Measures the row that the command line names and prints `NANOSECONDS OPERATIONS`, both integers, on one
/// line.
///
/// The command line is `ROW MILLISECONDS`. `S` surrounds each operation of the rows that are requests. With
/// `figures ROW`, and a row of the report, it prints [`Figures`] instead.
pub fn run<S: Scope>() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(FIGURES), Some(Ok(Row::Bench(workload)))) =
        (arguments.next().as_deref(), arguments.next().map(|name| name.parse()))
    {
        println!("{}", Figures::measure::<S::Requests>(workload, read_counters, || {}));
        return;
    }
    match parse(std::env::args().skip(1)) {
        Ok((row, clock)) => {
            let Sample { nanoseconds, operations } = row.measure::<S>(&clock);
            println!("{nanoseconds} {operations}");
        }
        Err(message) => {
            eprintln!("error: {message}");
            std::process::exit(2);
        }
    }
}

/// The counters of Shockwave; zeros where another allocator is measured.
fn read_counters() -> Reading {
    #[cfg(feature = "shockwave")]
    {
        let stats = shockwave_alloc::stats();
        Reading {
            backing_calls: stats.backing_calls,
            arena_bytes: stats.arena_bytes,
            bypassed_bytes: stats.bypassed_bytes,
        }
    }
    #[cfg(not(feature = "shockwave"))]
    Reading::default()
}

/// Reads `ROW MILLISECONDS`.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Row, Clock), String> {
    let (Some(row), Some(milliseconds), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("accepted are exactly two arguments: ROW MILLISECONDS".to_owned());
    };
    let milliseconds: u64 =
        milliseconds.parse().ok().filter(|number| *number > 0).ok_or_else(|| {
            format!("'{milliseconds}' is no time; accepted: milliseconds, an integer above 0")
        })?;
    Ok((row.parse()?, Clock::new(Duration::from_millis(milliseconds))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<(Row, Clock), String> {
        parse(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn reads_a_row_and_a_time() {
        let (row, clock) = parsed(&["trace", "20"]).unwrap();
        assert_eq!((row, clock.time()), (Row::Trace, Duration::from_millis(20)));
    }

    #[test]
    fn says_what_is_accepted() {
        assert!(parsed(&["trace"]).unwrap_err().contains("ROW MILLISECONDS"));
        assert!(parsed(&["tracee", "20"]).unwrap_err().contains("accepted: pair, batch"));
        assert!(parsed(&["trace", "0"]).unwrap_err().contains("above 0"));
    }
}
