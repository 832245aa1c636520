//! The processes: all at the same time, each read as it goes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use profiling::workloads::day::{Line, Second, Total};

use crate::compare::binaries::Built;

/// What a process may take beyond the run: to free what is left, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often to look whether all processes have ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How much to measure.
pub struct Plan {
    /// How long the run lasts, in seconds.
    pub seconds: u32,
    /// Requests per second of each process at the day's height.
    pub rate: u32,
}

impl Plan {
    /// Runs all processes at once: what each tells, or why it does not.
    pub fn run(&self, built: &[Built], bar: &ProgressBar) -> Vec<Result<(Vec<Second>, Total), String>> {
        let start = Instant::now();
        let deadline = start + Duration::from_secs(self.seconds.into()) + PATIENCE;
        let mut children: Vec<Result<Child, String>> = built.iter().map(|built| self.spawn(built)).collect();
        let told: Vec<_> = thread::scope(|scope| {
            let readers: Vec<_> = children
                .iter_mut()
                .map(|child| {
                    let output = child.as_mut().ok().and_then(|child| child.stdout.take());
                    scope.spawn(|| output.map(read))
                })
                .collect();
            while Instant::now() < deadline && !readers.iter().all(|reader| reader.is_finished()) {
                bar.set_position(start.elapsed().as_secs().min(self.seconds.into()));
                thread::sleep(LOOK_EVERY);
            }
            // Who has not ended by now does not; this closes the output, and so ends the reader.
            for child in children.iter_mut().flatten() {
                if let Ok(None) = child.try_wait()
                    && Instant::now() >= deadline
                {
                    // Fails only if it has ended meanwhile.
                    let _ = child.kill();
                }
            }
            readers.into_iter().map(|reader| reader.join().expect("reading does not panic")).collect()
        });
        let results = children.into_iter().zip(told);
        results.map(|(child, told)| finish(child?, told.unwrap_or(Err("has no output".to_owned())))).collect()
    }

    fn spawn(&self, built: &Built) -> Result<Child, String> {
        // A variable of the environment can tune most allocators, and choose Shockwave's mode.
        let child = Command::new(&built.path)
            .env_clear()
            .args(["day", &self.seconds.to_string(), &self.rate.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        child.map_err(|error| format!("does not start: {error}"))
    }
}

/// What a process that has closed its output has told, or how it ended if it failed.
fn finish(
    mut child: Child,
    told: Result<(Vec<Second>, Total), String>,
) -> Result<(Vec<Second>, Total), String> {
    let status = child.wait().map_err(|error| format!("cannot be waited for: {error}"))?;
    if status.success() {
        return told;
    }
    let mut complaint = Vec::new();
    if let Some(mut stream) = child.stderr.take() {
        // What could be read is still worth showing if the rest cannot.
        let _ = stream.read_to_end(&mut complaint);
    }
    let complaint = String::from_utf8_lossy(&complaint);
    Err(format!("fails with {status}: {}", complaint.lines().next().unwrap_or("says nothing")))
}

/// Reads the lines of a process until it closes its output.
fn read(output: ChildStdout) -> Result<(Vec<Second>, Total), String> {
    collect(BufReader::new(output).lines().map_while(Result::ok))
}

/// Seconds, then the whole run.
fn collect(lines: impl Iterator<Item = String>) -> Result<(Vec<Second>, Total), String> {
    let (mut seconds, mut total) = (Vec::new(), None);
    for line in lines {
        match line.parse() {
            Ok(Line::Second(second)) => seconds.push(second),
            Ok(Line::Total(found)) => total = Some(found),
            Err(()) => return Err(format!("prints '{line}' and no second")),
        }
    }
    match total {
        Some(total) if !seconds.is_empty() => Ok((seconds, total)),
        _ => Err(format!("ends after {} s, before its run is over", seconds.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_not_over_is_no_result() {
        let lines = |text: &str| collect(text.lines().map(str::to_owned)).map(|(seconds, _)| seconds.len());
        assert_eq!(lines("1 2 3 4 5 6 7\n2 2 3 4 5 6 7\ntotal 1 2 3 4 5 6 7"), Ok(2));
        assert!(lines("1 2 3 4 5 6 7").unwrap_err().contains("after 1 s"));
        assert!(lines("total 1 2 3 4 5 6 7").is_err());
        assert!(lines("hello").unwrap_err().contains("'hello'"));
    }
}
