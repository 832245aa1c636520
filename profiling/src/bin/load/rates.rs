//! Requests per second.

use std::time::Duration;

use crate::server::{Server, mib};
use crate::wrk::{self, Run};
use crate::{Failure, Rates};

/// Measures every path over every allocator in rounds, and prints the medians.
///
/// # Errors
/// When a server or wrk fails, or an answer was an error.
pub async fn run(rates: &Rates) -> Result<(), Failure> {
    let names = &rates.common.servers;
    for path in &rates.paths {
        let mut results: Vec<(Vec<Run>, Vec<u64>)> = vec![Default::default(); names.len()];
        for round in 0..rates.rounds {
            for turn in 0..names.len() {
                // The order rotates, so that nobody always follows the same neighbour.
                let index = (turn + round) % names.len();
                let server = Server::start(&names[index], rates.common.workers)?;
                let _warm_up = wrk::run(server.address, path, rates.connections, 1, true).await?;
                let run = wrk::run(server.address, path, rates.connections, rates.seconds, true).await?;
                if run.errors > 0 {
                    return Err(format!("{} errors of {}{path}", run.errors, names[index]).into());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                results[index].0.push(run);
                results[index].1.push(server.resident()?);
            }
        }
        println!("{path}: {} rounds of {} s, {} connections", rates.rounds, rates.seconds, rates.connections);
        println!("| allocator | requests/s (median) | best | p99 us (median) | MiB after |");
        println!("|---|---:|---:|---:|---:|");
        for (name, (runs, resident)) in names.iter().zip(&results) {
            let rate = sorted(runs.iter().map(|run| run.per_second));
            let p99 = sorted(runs.iter().map(|run| run.p99));
            let resident = sorted(resident.iter().map(|&bytes| bytes as f64));
            println!(
                "| {name} | {:.0} | {:.0} | {:.0} | {} |",
                median(&rate),
                rate.last().copied().unwrap_or_default(),
                median(&p99),
                mib(median(&resident) as u64)
            );
        }
        println!();
    }
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
