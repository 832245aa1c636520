//! `day`: memory over two days of load, every allocator in a process of its own, all at the same time.

mod chart;
mod json;
mod processes;
mod summary;

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use profiling::workloads::day::{Curve, Second, Total};

use crate::compare::allocator::{Allocator, Kind};
use crate::compare::cli::Chosen;
use crate::compare::{binaries, open_for_results, write_results};
use processes::Plan;

/// What one allocator has shown.
struct Course {
    /// The allocator.
    allocator: &'static Allocator,
    /// Its seconds, in order; at least one.
    seconds: Vec<Second>,
    /// All of them together.
    total: Total,
}

/// Whom to measure, and for how long.
#[derive(Debug, Args)]
pub struct DayOptions {
    #[command(flatten)]
    chosen: Chosen,

    /// How long the two days last together, in seconds
    #[arg(long, value_name = "N", default_value_t = 3600)]
    #[arg(value_parser = clap::value_parser!(u32).range(20..=604_800))]
    seconds: u32,

    /// Requests per second of each process at the day's height; 400 take some 4 % of a core
    #[arg(long, value_name = "R", default_value_t = 400, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rate: u32,

    /// Also writes memory over time to this file, as a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Also writes every second to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the processes and prints a table; an error is one line.
pub fn day(options: &DayOptions) -> Result<(), String> {
    let mut allocators = options.chosen.allocators();
    // What does not free would need all memory there is.
    allocators.retain(|allocator| !matches!(allocator.kind, Kind::Floor | Kind::Bump));
    if allocators.is_empty() {
        return Err("nothing to measure: no allocator is chosen that frees".to_owned());
    }
    // Before anything takes time, so that a wrong path does not cost the results.
    let svg_file = options.svg.as_deref().map(|path| open_for_results("--svg", path)).transpose()?;
    let json_file = options.json.as_deref().map(|path| open_for_results("--json", path)).transpose()?;
    let built = binaries::build(&allocators, |line| eprintln!("{line}"))?;
    if built.is_empty() {
        return Err("no allocator could be built".to_owned());
    }

    let bar = ProgressBar::new(u64::from(options.seconds));
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} s {msg}").expect("is valid"));
    let plan = Plan { seconds: options.seconds, rate: options.rate };
    let found = plan.run(&built, &bar);
    bar.finish_and_clear();

    let mut courses = Vec::with_capacity(found.len());
    for (allocator, found) in built.iter().map(|built| built.allocator).zip(found) {
        match found {
            Ok((seconds, total)) => courses.push(Course { allocator, seconds, total }),
            Err(reason) => eprintln!("{} is left out: {reason}", allocator.title),
        }
    }
    if courses.is_empty() {
        return Err("no process has come to its end".to_owned());
    }
    let curve = Curve::new(f64::from(options.seconds), f64::from(options.rate));
    println!("{}\n{}", summary::table(&curve, &courses), summary::LEGEND);
    if let Some(file) = json_file {
        write_results("--json", file, &format!("{:#}\n", json::json(&curve, &plan, &courses)))?;
    }
    if let Some(file) = svg_file {
        write_results("--svg", file, &chart::svg(&curve, &courses)?)?;
    }
    Ok(())
}
