//! The program of the binary of one allocator: measures one row, once.

use std::time::Duration;

use crate::bench::{Figures, Reading};
use crate::paths::Path;
use crate::process::peak_bytes;
use crate::{Clock, Effort, Outcome, Row, Scope};

/// Asks for what stands beside the time, instead of the time.
const FIGURES: &str = "figures";

/// Asks for one of [`Path`], instead of a row.
const PATH: &str = "path";

/// Measures the row that the command line names and prints its [`Outcome`] on one line.
///
/// The command line is `ROW MILLISECONDS IDLE_MILLISECONDS`, the two parts of [`Effort`]. `S` surrounds each
/// operation of the rows that are requests. With `figures ROW`, and a row of the report, it prints [`Figures`]
/// instead; with `path PATH TIMES` it goes that [`Path`] and prints nothing.
pub fn run<S: Scope>() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(FIGURES), Some(Ok(Row::Bench(workload)))) =
        (arguments.next().as_deref(), arguments.next().map(|name| name.parse()))
    {
        println!("{}", Figures::measure::<S::Requests>(workload, read_counters, || {}));
        return;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [PATH, name, times] = *words.iter().map(String::as_str).collect::<Vec<_>>()
        && let (Some(path), Ok(times)) =
            (Path::ALL.into_iter().find(|path| path.name() == name), times.parse())
    {
        path.run::<S>(times);
        return;
    }
    let outcome = parse(std::env::args().skip(1)).and_then(|(row, effort)| row.measure::<S>(&effort));
    match outcome {
        Ok(outcome) => println!("{}", Outcome { peak: peak_bytes(), ..outcome }),
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

/// Reads `ROW MILLISECONDS IDLE_MILLISECONDS`.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Row, Effort), String> {
    let (Some(row), Some(time), Some(idle), None) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("accepted are exactly three arguments: ROW MILLISECONDS IDLE_MILLISECONDS".to_owned());
    };
    let effort = Effort { clock: Clock::new(milliseconds(&time, 1)?), idle: milliseconds(&idle, 0)? };
    Ok((row.parse()?, effort))
}

/// Reads a time of at least `least` milliseconds.
fn milliseconds(text: &str, least: u64) -> Result<Duration, String> {
    let number = text.parse().ok().filter(|number| *number >= least);
    number
        .map(Duration::from_millis)
        .ok_or_else(|| format!("'{text}' is no time; accepted: milliseconds, an integer from {least}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<(Row, Effort), String> {
        parse(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn reads_a_row_and_two_times() {
        let (row, effort) = parsed(&["trace", "20", "0"]).unwrap();
        assert_eq!((row, effort.clock.time()), (Row::Trace, Duration::from_millis(20)));
        assert_eq!(effort.idle, Duration::ZERO);
    }

    #[test]
    fn says_what_is_accepted() {
        assert!(parsed(&["trace", "20"]).unwrap_err().contains("ROW MILLISECONDS"));
        assert!(parsed(&["tracee", "20", "0"]).unwrap_err().contains("accepted: pair, batch"));
        assert!(parsed(&["trace", "0", "0"]).unwrap_err().contains("from 1"));
    }
}
