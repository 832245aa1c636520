//! Runs the binaries: every allocator once in each round, one process at a time.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use profiling::bench::{Figures, Workload};
use profiling::{Row, Sample};

use super::allocator::{Allocator, Kind};
use super::binaries::Built;

/// How often to look whether a process has ended: seldom enough not to disturb it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What one process may take beyond its measuring time, times [`PATIENCE_FACTOR`].
const PATIENCE: Duration = Duration::from_secs(30);

/// Warm-up, setup and a slow machine, as a multiple of the measuring time.
const PATIENCE_FACTOR: u32 = 5;

/// How much to measure.
pub struct Plan {
    /// How often each allocator runs.
    pub rounds: u32,
    /// How long it is measured each time.
    pub time: Duration,
}

/// What one row has shown.
pub struct RowResult {
    /// The row.
    pub row: Row,
    /// The allocators, in the order of the tables.
    pub lines: Vec<Line>,
}

/// One allocator in one row.
pub struct Line {
    /// The allocator.
    pub allocator: &'static Allocator,
    /// Nanoseconds per operation of each round, or why there are none.
    pub rounds: Result<Vec<f64>, String>,
}

impl Plan {
    /// How many processes a row takes.
    pub fn steps(&self, row: Row, built: &[Built]) -> u64 {
        takes_part(row, built).count() as u64 * u64::from(self.rounds)
    }

    /// Measures one row. An allocator that fails drops out of it.
    pub fn measure(&self, row: Row, built: &[Built], bar: &ProgressBar) -> RowResult {
        let built: Vec<&Built> = takes_part(row, built).collect();
        let mut lines: Vec<Line> =
            built.iter().map(|built| Line { allocator: built.allocator, rounds: Ok(Vec::new()) }).collect();
        for round in 0..self.rounds as usize {
            for position in 0..built.len() {
                // Each round begins with another allocator, so that none always follows the same one.
                let index = (round + position) % built.len();
                let line = &mut lines[index];
                bar.set_message(format!("{} / {}", row.name(), line.allocator.title));
                if let Ok(rounds) = &mut line.rounds {
                    match self.run(row, built[index]) {
                        Ok(sample) => rounds.push(sample.per_operation()),
                        Err(reason) => line.rounds = Err(reason),
                    }
                }
                bar.inc(1);
            }
        }
        RowResult { row, lines }
    }

    /// Runs one process.
    fn run(&self, row: Row, built: &Built) -> Result<Sample, String> {
        let milliseconds = self.time.as_millis().to_string();
        let patience = PATIENCE + self.time * PATIENCE_FACTOR;
        let output = output_of(built, &[row.name(), &milliseconds], patience)?;
        sample(&output).ok_or_else(|| format!("prints '{}' and no sample", output.trim()))
    }
}

/// Has the process of an allocator measure what stands beside the time.
pub fn figures(workload: Workload, built: &Built) -> Result<Figures, String> {
    let output = output_of(built, &["figures", workload.name()], PATIENCE)?;
    output.parse().map_err(|()| format!("prints '{}' and no figures", output.trim()))
}

/// What a process prints that ends within `patience`.
fn output_of(built: &Built, arguments: &[&str], patience: Duration) -> Result<String, String> {
    // A variable of the environment can tune most allocators, and choose Shockwave's mode.
    let child = Command::new(&built.path)
        .env_clear()
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("does not start: {error}"))?;
    let deadline = Instant::now() + patience;
    // What it prints fits into the pipes, so it cannot block before it ends.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            Ok(None) => {
                end(&mut child);
                return Err(format!("does not end within {} s", patience.as_secs()));
            }
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    };
    let output = read_all(child.stdout.take());
    if !status.success() {
        let complaint = read_all(child.stderr.take());
        return Err(format!("fails with {status}: {}", complaint.lines().next().unwrap_or("says nothing")));
    }
    Ok(output)
}

/// The allocators that can run `row`.
fn takes_part(row: Row, built: &[Built]) -> impl Iterator<Item = &Built> {
    built.iter().filter(move |built| built.allocator.kind != Kind::Floor || row.has_floor())
}

/// Ends a process that does not end by itself.
fn end(child: &mut Child) {
    // Both fail only if it has ended meanwhile.
    let _ = child.kill();
    let _ = child.wait();
}

/// What a process that has ended printed.
fn read_all(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What could be read is still worth showing if the rest cannot.
        let _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads `NANOSECONDS OPERATIONS`.
fn sample(output: &str) -> Option<Sample> {
    let (nanoseconds, operations) = output.trim().split_once(' ')?;
    let sample = Sample { nanoseconds: nanoseconds.parse().ok()?, operations: operations.parse().ok()? };
    (sample.operations > 0).then_some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_binaries_print() {
        assert_eq!(sample("1200 300\n"), Some(Sample { nanoseconds: 1200, operations: 300 }));
        assert_eq!(sample("1200 0\n"), None);
        assert_eq!(sample(""), None);
    }
}
