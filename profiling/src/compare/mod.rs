//! `compare`: every allocator in a process of its own, rounds interleaved, a table per row.

pub mod allocator;
pub mod binaries;
pub mod cli;
mod html;
mod json;
pub mod measure;
pub mod numbers;
mod standing;
pub mod stats;
mod table;
pub mod tail;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use cli::CompareOptions;

/// Runs the comparison that `options` asks for; an error is one line.
pub fn compare(options: &CompareOptions) -> Result<(), String> {
    let allocators = options.allocators();
    let rows = options.rows();
    if allocators.is_empty() {
        return Err("nothing to measure: --peers and --modes are both 'none'".to_owned());
    }
    // Before anything takes time, so that a wrong path does not cost the results.
    let json_file = options.json.as_deref().map(|path| open_for_results("--json", path)).transpose()?;
    let html_file = options.html.as_deref().map(|path| open_for_results("--html", path)).transpose()?;

    let spinner = ProgressBar::new_spinner().with_message("building the allocators' binaries");
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    let built = binaries::build(&allocators, |line| spinner.suspend(|| eprintln!("{line}")));
    spinner.finish_and_clear();
    let built = built?;
    if built.is_empty() {
        return Err("no allocator could be built".to_owned());
    }

    let plan = options.plan();
    let bar = ProgressBar::new(rows.iter().map(|row| plan.steps(*row, &built)).sum());
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)").expect("is valid"));
    let mut results = Vec::with_capacity(rows.len());
    for row in rows {
        let result = plan.measure(row, &built, &bar);
        bar.suspend(|| println!("{}\n", table::table(&result)));
        results.push(result);
    }
    bar.finish_and_clear();
    println!("{}", table::LEGEND);
    if let Some(file) = json_file {
        write_results("--json", file, &format!("{:#}\n", json::json(&plan, &results)))?;
    }
    if let Some(file) = html_file {
        write_results("--html", file, &html::page(&plan, &results))?;
    }
    Ok(())
}

/// Opens the file for the results and leaves its content alone until there are some.
pub fn open_for_results(option: &str, path: &Path) -> Result<File, String> {
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(path);
    file.map_err(|error| format!("{option}: cannot write {}: {error}", path.display()))
}

/// Replaces the file's content.
pub fn write_results(option: &str, mut file: File, results: &str) -> Result<(), String> {
    file.set_len(0)
        .and_then(|()| file.write_all(results.as_bytes()))
        .map_err(|error| format!("{option}: cannot write the results: {error}"))
}
