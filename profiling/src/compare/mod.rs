//! `compare`: every allocator in a process of its own, rounds interleaved, a table per row.

pub mod allocator;
pub mod binaries;
pub mod cli;
pub mod measure;
mod report;
pub mod stats;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use cli::CompareOptions;
use measure::Plan;

/// Runs the comparison that `options` asks for; an error is one line.
pub fn compare(options: &CompareOptions) -> Result<(), String> {
    let allocators = options.allocators();
    let rows = options.rows();
    if allocators.is_empty() {
        return Err("nothing to measure: --peers and --modes are both 'none'".to_owned());
    }
    // Before anything takes time, so that a wrong path does not cost the results.
    let json = options.json.as_deref().map(open_for_results).transpose()?;

    let spinner = ProgressBar::new_spinner().with_message("building the allocators' binaries");
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    let built = binaries::build(&allocators, |line| spinner.suspend(|| eprintln!("{line}")));
    spinner.finish_and_clear();
    let built = built?;
    if built.is_empty() {
        return Err("no allocator could be built".to_owned());
    }

    let plan = Plan { rounds: options.rounds, time: options.time() };
    let bar = ProgressBar::new(rows.iter().map(|row| plan.steps(*row, &built)).sum());
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)").expect("is valid"));
    let mut results = Vec::with_capacity(rows.len());
    for row in rows {
        let result = plan.measure(row, &built, &bar);
        bar.suspend(|| println!("{}\n", report::table(&result)));
        results.push(result);
    }
    bar.finish_and_clear();
    println!("{}", report::LEGEND);
    match json {
        Some(file) => write_results(file, &report::json(&plan, &results)),
        None => Ok(()),
    }
}

/// Opens the file for the results and leaves its content alone until there are some.
fn open_for_results(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(path);
    file.map_err(|error| format!("--json: cannot write {}: {error}", path.display()))
}

/// Replaces the file's content.
fn write_results(mut file: File, results: &serde_json::Value) -> Result<(), String> {
    file.set_len(0)
        .and_then(|()| writeln!(file, "{results:#}"))
        .map_err(|error| format!("--json: cannot write the results: {error}"))
}
