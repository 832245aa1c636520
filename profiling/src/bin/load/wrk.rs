//! `wrk`, and what it prints.

use std::net::SocketAddr;

use tokio::process::Command;

use crate::Failure;

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub requests: u64,
    pub per_second: f64,
    /// Microseconds.
    pub p99: f64,
    /// Answers that were no success, and connections that failed.
    pub errors: u64,
}

/// Sends requests for `path` for some seconds.
///
/// # Errors
/// When `wrk` cannot be run.
pub async fn run(
    address: SocketAddr,
    path: &str,
    connections: usize,
    seconds: u64,
    keep: bool,
) -> Result<Run, Failure> {
    let mut command = Command::new("wrk");
    command.args(["--latency", "--timeout", "30s", "-t2"]);
    command.arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
    if !keep {
        command.args(["-H", "connection: close"]);
    }
    command.arg(format!("http://{address}{path}")).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("cannot run wrk: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("wrk failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    // With `connection: close` each connection ends after an answer, which wrk counts as an error of reading.
    Ok(parse(&text, keep))
}

fn parse(text: &str, keep: bool) -> Run {
    let mut run = Run::default();
    let number = |text: &str| text.trim_end_matches(',').parse::<f64>().unwrap_or(0.0);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Requests/sec:", rate] => run.per_second = number(rate),
            ["99%", time] => run.p99 = microseconds(time),
            [requests, "requests", "in", ..] => run.requests = number(requests) as u64,
            ["Non-2xx", "or", "3xx", "responses:", count] => run.errors += number(count) as u64,
            ["Socket", "errors:", "connect", connect, "read", read, "write", write, "timeout", timeout] => {
                let counted = if keep { vec![connect, read, write, timeout] } else { vec![connect, timeout] };
                run.errors += counted.into_iter().map(number).sum::<f64>() as u64;
            }
            _ => {}
        }
    }
    run
}

fn microseconds(time: &str) -> f64 {
    let split = time.find(|letter: char| letter.is_alphabetic()).unwrap_or(time.len());
    let value: f64 = time[..split].parse().unwrap_or(0.0);
    match &time[split..] {
        "us" => value,
        "ms" => value * 1e3,
        _ => value * 1e6,
    }
}
