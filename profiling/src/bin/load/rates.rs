//! Requests per second.

use std::time::Duration;

use crate::Failure;
use crate::cli::Rates;
use crate::server::{Server, mib};
use crate::wrk::{self, Load, Run};

/// Measures every path over every allocator in rounds, and prints the medians.
///
/// # Errors
/// When a server or wrk fails, or an answer was an error.
pub async fn run(rates: &Rates) -> Result<(), Failure> {
    let names = &rates.servers;
    for path in &rates.paths {
        let mut results: Vec<(Vec<Run>, Vec<u64>)> = vec![Default::default(); names.len()];
        for round in 0..rates.rounds {
            for turn in 0..names.len() {
                // The order rotates, so that nobody always follows the same neighbour.
                let index = (turn + round as usize) % names.len();
                let server = Server::start(&names[index], rates.workers)?;
                let load =
                    |seconds| Load { path, connections: rates.connections, seconds, keep: true, bodies: &[] };
                let _warm_up = wrk::run(server.address, load(1)).await?;
                let run = wrk::run(server.address, load(rates.seconds)).await?;
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
            let rate: Vec<f64> = runs.iter().map(|run| run.per_second).collect();
            let p99: Vec<f64> = runs.iter().map(|run| run.p99).collect();
            let resident: Vec<f64> = resident.iter().map(|&bytes| bytes as f64).collect();
            println!(
                "| {name} | {:.0} | {:.0} | {:.0} | {} |",
                median(&rate),
                rate.iter().copied().fold(0.0, f64::max),
                median(&p99),
                mib(median(&resident) as u64)
            );
        }
        println!();
    }
    Ok(())
}

/// The value in the middle, of an even number the upper one of the two; 0 of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median(&[30.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 100.0, 1.0, 3.0]), 9.0);
        assert_eq!(median(&[5.0]), 5.0);
        assert_eq!(median(&[]), 0.0);
    }
}
