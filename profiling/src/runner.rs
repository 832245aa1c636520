//! The program of the binary of one allocator: measures one row, once.

use std::time::Duration;

use crate::bench::{Figures, Reading};
use crate::paths::Path;
use crate::process::peak_bytes;
use crate::workloads::day::{Curve, day};
use crate::workloads::tail::tail;
use crate::{Clock, Effort, Outcome, Row, Scope};

/// Asks for what stands beside the time, instead of the time.
const FIGURES: &str = "figures";

/// Asks for one of [`Path`], instead of a row.
const PATH: &str = "path";

/// Asks for [`tail`], instead of a row.
const TAIL: &str = "tail";

/// Asks for [`day`], instead of a row.
const DAY: &str = "day";

/// Measures the row that the command line names and prints its [`Outcome`] on one line.
///
/// The command line is `ROW MILLISECONDS IDLE_MILLISECONDS`, the two parts of [`Effort`]. `S` surrounds each
/// operation of the rows that are requests. With `figures ROW`, and a row of the report, it prints [`Figures`]
/// instead; with `path PATH TIMES` it goes that [`Path`] and prints nothing;
/// with `tail OPERATIONS` it prints the quantiles of [`tail`]; with `day SECONDS RATE` the lines of [`day`], each as soon as it is
/// there.
pub fn run<S: Scope>() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match answer::<S>(&words) {
        Ok(line) => print!("{line}"),
        Err(message) => {
            eprintln!("error: {message}");
            std::process::exit(2);
        }
    }
}

/// Does what the words of a command line ask for, and returns what is printed.
fn answer<S: Scope>(words: &[&str]) -> Result<String, String> {
    match words {
        [FIGURES, row] => match row.parse()? {
            Row::Bench(workload) => {
                let figures = Figures::measure::<S::Requests>(workload, read_counters, || {});
                Ok(format!("{figures}\n"))
            }
            row => Err(format!("{} is no row of the report, and has no figures", row.name())),
        },
        [PATH, name, times] => {
            let path = Path::ALL.into_iter().find(|path| path.name() == *name);
            path.ok_or_else(|| format!("unknown path '{name}'"))?.run::<S>(number(times, 0)? as usize);
            Ok(String::new())
        }
        [TAIL, operations] => Ok(format!("{}\n", tail::<S>(number(operations, 1)?))),
        [DAY, seconds, rate] => {
            let curve = Curve::new(number(seconds, 1)? as f64, number(rate, 1)? as f64);
            #[cfg(feature = "shockwave")]
            let _scavenger = scavenger();
            // Ends the process if nobody reads it any more.
            day::<S>(curve, &mut |line| println!("{line}"))?;
            Ok(String::new())
        }
        [row, time, idle] => {
            let [time, idle] = [(time, 1), (idle, 0)].map(|(text, least)| number(text, least));
            let [time, idle] = [time?, idle?].map(Duration::from_millis);
            let row = row.parse::<Row>()?;
            #[cfg(feature = "shockwave")]
            let _scavenger = row.has_scavenger().then(scavenger);
            let outcome = row.measure::<S>(&Effort { clock: Clock::new(time), idle })?;
            Ok(format!("{}\n", Outcome { peak: peak_bytes(), ..outcome }))
        }
        _ => Err("accepted are exactly three arguments: ROW MILLISECONDS IDLE_MILLISECONDS".to_owned()),
    }
}

/// Starts Shockwave's scavenger, as a server would that minds its memory, unless another allocator is measured: then there is nothing
/// for it to do, and one thread more would be another program.
#[cfg(feature = "shockwave")]
fn scavenger() -> Option<shockwave_alloc::Scavenger> {
    let stats = shockwave_alloc::stats();
    let is_measured = stats.backing_calls > 0 || stats.committed_bytes > 0;
    is_measured.then(|| {
        shockwave_alloc::start_scavenger(shockwave_alloc::ScavengerConfig::DEFAULT)
            .expect("the system has threads for the workload, too")
    })
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

/// Reads an integer of at least `least`.
fn number(text: &str, least: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number >= least);
    number.ok_or_else(|| format!("'{text}' is not accepted: an integer from {least}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoScope;

    #[test]
    fn answers_in_the_form_that_compare_reads() {
        let outcome = answer::<NoScope>(&["trace", "1", "0"]).unwrap();
        let outcome: Outcome = outcome.parse().unwrap();
        assert!(outcome.value > 0.0 && outcome.faults.is_some() && outcome.peak.is_some());
        assert_eq!(answer::<NoScope>(&["path", "cycle", "10"]).unwrap(), "");
        assert_eq!(answer::<NoScope>(&["day", "2", "100"]).unwrap(), "");
        assert_eq!(answer::<NoScope>(&["tail", "100"]).unwrap().split_whitespace().count(), 12);
        for row in ["throughput/1_thread", "typical_request/pooled"] {
            assert!(answer::<NoScope>(&["figures", row]).unwrap().parse::<Figures>().is_ok(), "{row}");
        }
    }

    #[test]
    fn says_what_is_accepted() {
        for (words, accepted) in [
            (&["trace", "20"][..], "ROW MILLISECONDS"),
            (&["tracee", "20", "0"], "accepted: pair, batch"),
            (&["trace", "0", "0"], "from 1"),
            (&["day", "0", "100"], "from 1"),
            (&["path", "cycel", "1"], "unknown path"),
            (&["figures", "trace"], "no row of the report"),
        ] {
            assert!(answer::<NoScope>(words).unwrap_err().contains(accepted), "{words:?}");
        }
    }
}
