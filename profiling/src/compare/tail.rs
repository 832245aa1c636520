//! `tail`: how long single allocations and ends of requests take at worst, each allocator in a process of its own.

use std::time::Duration;

use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use profiling::workloads::tail::{Quantiles, Tail};

use super::allocator::{Allocator, Kind};
use super::binaries::{self, Built};
use super::cli::Chosen;
use super::measure::output_of;

/// What a process may take beyond [`PER_OPERATION`].
const PATIENCE: Duration = Duration::from_secs(30);

/// What an allocation may take on average, clock included, before the process is ended.
const PER_OPERATION: Duration = Duration::from_micros(2);

/// Whom to measure, and how much.
#[derive(Debug, Args)]
pub struct TailOptions {
    #[command(flatten)]
    chosen: Chosen,

    /// Allocations in each process; 100000000 shows what is rare
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1_000..=10_000_000_000))]
    operations: u64,

    /// Rounds; in each, every allocator runs once, and the smallest number of all rounds counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// Measures and prints two tables; an error is one line.
pub fn tail(options: &TailOptions) -> Result<(), String> {
    let mut allocators = options.chosen.allocators();
    // Requests that are open at once are none of theirs.
    allocators.retain(|allocator| !matches!(allocator.kind, Kind::Floor | Kind::Bump));
    if allocators.is_empty() {
        return Err("nothing to measure: no allocator is chosen that frees".to_owned());
    }
    let built = binaries::build(&allocators, |line| eprintln!("{line}"))?;
    let bar = ProgressBar::new(u64::from(options.rounds) * built.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)").expect("is valid"));
    let mut found: Vec<Option<Result<Tail, String>>> = built.iter().map(|_| None).collect();
    for round in 0..options.rounds as usize {
        for position in 0..built.len() {
            let index = (round + position) % built.len();
            bar.set_message(built[index].allocator.title);
            found[index] = Some(match found[index].take() {
                None => run(options, &built[index]),
                Some(Ok(before)) => run(options, &built[index]).map(|tail| tail.least(before)),
                Some(Err(reason)) => Err(reason),
            });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    let mut lines = Vec::new();
    for (built, found) in built.iter().zip(found) {
        match found {
            Some(Ok(tail)) => lines.push((built.allocator, tail)),
            Some(Err(reason)) => eprintln!("{} is left out: {reason}", built.allocator.title),
            None => {}
        }
    }
    println!("a single allocation, ns\n{}\n", table(&lines, |tail| tail.alloc));
    println!(
        "the end of a request: 60 objects freed, its scope ended, ns\n{}\n",
        table(&lines, |tail| tail.end)
    );
    if let Some(clock) = lines.iter().map(|(_, tail)| tail.clock).reduce(Quantiles::least) {
        let Quantiles([half, most, nearly_all, _]) = clock;
        println!(
            "of each, the clock takes {half} ns (99 %: {most}, 99.99 %: {nearly_all}); other programs disturb the maximum"
        );
    }
    Ok(())
}

/// Runs one process.
fn run(options: &TailOptions, built: &Built) -> Result<Tail, String> {
    let patience = PATIENCE + PER_OPERATION.mul_f64(options.operations as f64);
    let output = output_of(built, &["tail", &options.operations.to_string()], patience)?;
    output.parse().map_err(|()| format!("prints '{}' and no quantiles", output.trim()))
}

/// A line for each allocator.
fn table(lines: &[(&Allocator, Tail)], of: impl Fn(&Tail) -> Quantiles) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["allocator", "p50", "p99", "p99.99", "max"]);
    for (allocator, tail) in lines {
        let Quantiles(times) = of(tail);
        table.add_row([allocator.title.to_owned()].into_iter().chain(times.map(|time| time.to_string())));
    }
    for column in table.column_iter_mut().filter(|column| column.index > 0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_the_numbers_of_each() {
        let tail: Tail = "1 2 3 4 50 60 70 80 9 9 9 9".parse().unwrap();
        let text = table(&[(&Allocator::SLAB, tail)], |tail| tail.end).to_string();
        let line = text.lines().find(|line| line.contains("shockwave slab")).unwrap();
        let numbers: Vec<&str> =
            line.split(['│', '┆']).skip(2).map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(numbers, ["50", "60", "70", "80"]);
    }
}
