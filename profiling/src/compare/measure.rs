//! Runs the binaries: every allocator once in each round, one process at a time.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use profiling::bench::{Figures, Workload};
use profiling::{Outcome, Row};

use super::allocator::{Allocator, Kind};
use super::binaries::Built;

/// How often to look whether a process has ended: seldom enough not to disturb it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What one process may take beyond its measuring time, times [`PATIENCE_FACTOR`].
const PATIENCE: Duration = Duration::from_secs(30);

/// Warm-up, setup and a slow machine, as a multiple of the measuring time.
const PATIENCE_FACTOR: u32 = 5;

/// What the largest process of a row that waits takes, with room: so many fit into half of the free memory at once.
const WAITING_BYTES: u64 = 1 << 30;

/// How much to measure.
pub struct Plan {
    /// How often each allocator runs in a row that is short.
    pub rounds: u32,
    /// How long it is measured each time.
    pub time: Duration,
    /// How long rows wait that look at what goes back to the system.
    pub idle: Duration,
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
    /// What each round has measured, or why there are none.
    pub rounds: Result<Vec<Outcome>, String>,
}

impl Line {
    /// The numbers of the rounds, if there are any.
    pub fn values(&self) -> Option<Vec<f64>> {
        let rounds = self.rounds.as_ref().ok()?;
        Some(rounds.iter().map(|outcome| outcome.value).collect())
    }
}

impl Plan {
    /// How many processes a row takes.
    pub fn steps(&self, row: Row, built: &[Built]) -> u64 {
        takes_part(row, built).count() as u64 * u64::from(row.rounds(self.rounds))
    }

    /// Measures one row. An allocator that fails drops out of it.
    pub fn measure(&self, row: Row, built: &[Built], bar: &ProgressBar) -> RowResult {
        let built: Vec<&Built> = takes_part(row, built).collect();
        let mut lines: Vec<Line> =
            built.iter().map(|built| Line { allocator: built.allocator, rounds: Ok(Vec::new()) }).collect();
        let together = if row.waits() { processes_that_fit() } else { 1 };
        for round in 0..row.rounds(self.rounds) as usize {
            // Each round begins with another allocator, so that none always follows the same one.
            let order: Vec<usize> =
                (0..built.len()).map(|position| (round + position) % built.len()).collect();
            for group in order.chunks(together) {
                self.measure_group(row, group, &built, &mut lines, bar);
            }
        }
        RowResult { row, lines }
    }

    /// Runs the processes of a group at once, and adds what they find to the lines with the same indices.
    fn measure_group(
        &self,
        row: Row,
        group: &[usize],
        built: &[&Built],
        lines: &mut [Line],
        bar: &ProgressBar,
    ) {
        let titles: Vec<_> = group.iter().map(|index| built[*index].allocator.title).collect();
        bar.set_message(format!("{} / {}", row.name(), titles.join(", ")));
        let outcomes: Vec<_> = thread::scope(|scope| {
            let left = group.iter().filter(|index| lines[**index].rounds.is_ok());
            let running: Vec<_> =
                left.map(|index| (*index, scope.spawn(|| self.run(row, built[*index])))).collect();
            let join = |(index, thread): (usize, thread::ScopedJoinHandle<'_, _>)| {
                (index, thread.join().expect("running a process does not panic"))
            };
            running.into_iter().map(join).collect()
        });
        for (index, outcome) in outcomes {
            match (outcome, &mut lines[index].rounds) {
                (Ok(outcome), Ok(rounds)) => rounds.push(outcome),
                (Err(reason), rounds) => *rounds = Err(reason),
                (Ok(_), Err(_)) => {}
            }
        }
        bar.inc(group.len() as u64);
    }

    /// Runs one process.
    fn run(&self, row: Row, built: &Built) -> Result<Outcome, String> {
        let [time, idle] = [self.time, self.idle].map(|time| time.as_millis().to_string());
        let patience = PATIENCE + self.time * PATIENCE_FACTOR + self.idle;
        let output = output_of(built, &[row.name(), &time, &idle], patience)?;
        output.parse().map_err(|()| format!("prints '{}' and no outcome", output.trim()))
    }
}

/// How many processes of a row that waits may run at once.
fn processes_that_fit() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(1, |kib| (kib * 1024 / 2 / WAITING_BYTES).clamp(1, 16) as usize)
}

/// Has the process of an allocator measure what stands beside the time.
pub fn figures(workload: Workload, built: &Built) -> Result<Figures, String> {
    let output = output_of(built, &["figures", workload.name()], PATIENCE)?;
    output.parse().map_err(|()| format!("prints '{}' and no figures", output.trim()))
}

/// What a process prints that ends within `patience`.
pub fn output_of(built: &Built, arguments: &[&str], patience: Duration) -> Result<String, String> {
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
    let drops_all = |kind| matches!(kind, Kind::Floor | Kind::Bump);
    built.iter().filter(move |built| !drops_all(built.allocator.kind) || row.has_floor())
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
