//! `instructions`: what each short way through Shockwave executes, counted by callgrind, beside a committed baseline.
//!
//! Instructions are not time, but the same program executes the same number of them wherever it runs: a change of the
//! shortest ways shows, and nothing else does.

mod baseline;
mod callgrind;

use std::path::PathBuf;

use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use profiling::paths::Path;

use crate::compare::allocator::Allocator;
use crate::compare::binaries::{self, Built};
use baseline::{Baseline, Count, Verdict};

/// The binaries whose ways are counted: standard mode on the floor, since the system allocator differs from one machine
/// to the next, and the other modes.
const COUNTED: [&Allocator; 3] = [&Allocator::PASSTHROUGH, &Allocator::SLAB, &Allocator::ARENA];

/// What to do with the counts.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct InstructionsOptions {
    /// Fails if a count exceeds the baseline by more than its tolerance
    #[arg(long)]
    check: bool,

    /// Writes the counts as the new baseline
    #[arg(long)]
    write: bool,
}

/// Counts, and compares with the baseline or writes it; an error is one line.
pub fn instructions(options: &InstructionsOptions) -> Result<(), String> {
    callgrind::is_installed()?;
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "instructions.json"].iter().collect();
    let compiler = baseline::compiler()?;
    let baseline = if options.write { Baseline::new(&compiler) } else { Baseline::read(&path)? };
    let built = build()?;

    let bar = ProgressBar::new((built.len() * Path::ALL.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)").expect("is valid"));
    let mut counts = Vec::new();
    for built in &built {
        for path in Path::ALL {
            bar.set_message(format!("{} / {}", path.name(), built.allocator.title));
            let instructions = callgrind::count(built, path)?;
            counts.push(Count {
                mode: built.allocator.name.to_owned(),
                path: path.name().to_owned(),
                instructions,
            });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    if options.write {
        println!("{}", table(&baseline, &counts));
        return Baseline { counts, ..baseline }.write(&path);
    }
    println!("{}", table(&baseline, &counts));
    if baseline.compiler != compiler {
        println!(
            "the baseline was counted with {}, this is {compiler}: another compiler counts differently",
            baseline.compiler
        );
    }
    let worse: Vec<String> = counts
        .iter()
        .filter(|count| matches!(baseline.verdict(count), Verdict::Worse | Verdict::Unknown))
        .map(|count| format!("{} {}", count.mode, count.path))
        .collect();
    match worse.as_slice() {
        [_, ..] if options.check => Err(format!(
            "more instructions than the baseline allows, or none known: {}; if that is wanted: \
             cargo run --release -p profiling -- instructions --write",
            worse.join(", ")
        )),
        _ => Ok(()),
    }
}

/// The binaries of [`COUNTED`], all of them.
fn build() -> Result<Vec<Built>, String> {
    let mut reasons = Vec::new();
    let built = binaries::build(&COUNTED, |reason| reasons.push(reason))?;
    if built.len() == COUNTED.len() { Ok(built) } else { Err(reasons.join("; ")) }
}

/// All counts beside the baseline.
fn table(baseline: &Baseline, counts: &[Count]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["mode", "way", "instructions", "baseline", ""]);
    for count in counts {
        let known = baseline.of(count).map_or("-".to_owned(), |known| format!("{known:.2}"));
        let mark = match baseline.verdict(count) {
            Verdict::Same | Verdict::Unknown => "",
            Verdict::Better => "better",
            Verdict::Worse => "worse",
        };
        table.add_row([&count.mode, &count.path, &format!("{:.2}", count.instructions), &known, mark]);
    }
    for index in [2, 3] {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}
