//! `report`: measures the workloads of `cargo bench` in the three modes and writes the comparison down.
//!
//! Everything in the written file comes from the run, conclusions included: the text is chosen by the numbers.

mod advice;
mod claims;
mod machine;
mod page;
mod results;
mod summary;
mod text;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use profiling::Row;
use profiling::bench::Workload;

use crate::compare::allocator::Allocator;
use crate::compare::binaries::{self, Built};
use crate::compare::measure::{self, Plan};
use machine::Machine;
use results::{Measured, Results};

/// How often each mode, and the control, is measured per workload.
const ROUNDS: u32 = 7;

/// The allocators of a row, in the order of [`results::Each`].
const MEASURED: [&str; 4] = ["system", "standard", "slab", "arena"];

/// A process warms up for a fifth of its measuring time.
const WITH_WARM_UP: f64 = 1.2;

/// How long to measure, and where to write.
#[derive(Debug, Args)]
pub struct ReportOptions {
    /// Seconds for all measurements of time together; counting and building come on top
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u32).range(5..=36_000))]
    seconds: u32,

    /// The file to write; by default MEMORY_MANAGEMENT_REPORT.md beside the sources of this program
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl ReportOptions {
    /// How long one process measures.
    fn time(&self) -> Duration {
        let processes = Workload::ALL.len() * MEASURED.len() * ROUNDS as usize;
        Duration::from_secs_f64(f64::from(self.seconds) / processes as f64 / WITH_WARM_UP)
    }
}

/// Measures and writes; an error is one line.
pub fn report(options: &ReportOptions) -> Result<(), String> {
    let path = options
        .out
        .clone()
        .unwrap_or_else(|| [env!("CARGO_MANIFEST_DIR"), "MEMORY_MANAGEMENT_REPORT.md"].iter().collect());
    let failed = |error| format!("--out: cannot write {}: {error}", path.display());
    // Before anything takes time; the content of the file is left alone until there is another one.
    let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(&path).map_err(failed)?;

    let spinner = ProgressBar::new_spinner().with_message("building the binaries of the modes");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let built = build();
    spinner.finish_and_clear();
    let (built, counted) = built?;

    let before = Machine::look();
    let plan = Plan { rounds: ROUNDS, time: options.time(), idle: Duration::ZERO };
    let steps = plan.steps(Row::Bench(Workload::TypicalRequest), &built) + built.len() as u64 + 1;
    let bar = ProgressBar::new(steps * Workload::ALL.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)").expect("is valid"));
    let mut measured = Vec::with_capacity(Workload::ALL.len());
    for workload in Workload::ALL {
        measured.push(measure(workload, &plan, &built, &counted, &bar)?);
    }
    bar.finish_and_clear();

    let results = Results { rounds: ROUNDS, time: plan.time, seconds: options.seconds, rows: measured };
    let page = page::render(&results, &before, &Machine::look());
    file.set_len(0).and_then(|()| file.write_all(page.as_bytes())).map_err(failed)?;
    println!("{page}\nwritten to {}", path.display());
    Ok(())
}

/// The binaries of [`MEASURED`], in that order, and the one that counts.
fn build() -> Result<(Vec<Built>, Built), String> {
    const ALL: &[Allocator] = &Allocator::ALL;
    let mut wanted: Vec<&Allocator> =
        ALL.iter().filter(|allocator| MEASURED.contains(&allocator.name)).collect();
    wanted.push(&Allocator::COUNTED);
    let mut reasons = Vec::new();
    let mut built = binaries::build(&wanted, |reason| reasons.push(reason))?;
    match built.pop() {
        Some(counted) if built.len() == MEASURED.len() && counted.allocator.name == "counted" => {
            Ok((built, counted))
        }
        _ => Err(reasons.join("; ")),
    }
}

/// Measures one workload in every mode.
fn measure(
    workload: Workload,
    plan: &Plan,
    built: &[Built],
    counted: &Built,
    bar: &ProgressBar,
) -> Result<Measured, String> {
    let about = |built: &Built| format!("{} on {}", workload.name(), built.allocator.title);
    let times = plan.measure(Row::Bench(workload), built, bar);
    let mut figures = Vec::with_capacity(built.len());
    for built in built {
        let one = measure::figures(workload, built);
        figures.push(one.map_err(|reason| format!("{}: {reason}", about(built)))?);
        bar.inc(1);
    }
    let asked = measure::figures(workload, counted);
    let asked = asked.map_err(|reason| format!("{}: {reason}", about(counted)))?.asked;
    bar.inc(1);
    Measured::new(workload, times, figures, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seconds_are_for_all_processes_together() {
        let options = ReportOptions { seconds: 1176, out: None };
        assert_eq!(options.time(), Duration::from_millis(2500));
    }
}
