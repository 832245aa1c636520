//! `oha`, and what it prints.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::process::Command;

use crate::Failure;
use crate::wrk::{Load, Run};

/// Whether it is in the path.
pub async fn is_there() -> bool {
    let version = Command::new("oha").arg("--version").output().await;
    version.is_ok_and(|output| output.status.success())
}

/// Sends requests for some seconds. Bodies are not compared.
///
/// # Errors
/// When `oha` cannot be run.
pub async fn run(address: SocketAddr, load: Load<'_>) -> Result<Run, Failure> {
    let mut command = Command::new("oha");
    // What is on its way at the end is waited for: else it would count as failed.
    command.args(["--no-tui", "--output-format", "json", "-w"]);
    command.arg(format!("-c{}", load.connections)).arg(format!("-z{}s", load.seconds));
    if !load.keep {
        command.arg("--disable-keepalive");
    }
    command.arg(format!("http://{address}{}", load.path)).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("cannot run oha: {error}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("oha failed: {}", reason.lines().next().unwrap_or("it does not say why")).into());
    }
    parse(&output.stdout).map_err(Failure::from)
}

fn parse(text: &[u8]) -> Result<Run, String> {
    let value: Value =
        serde_json::from_slice(text).map_err(|error| format!("oha prints no JSON: {error}"))?;
    let counts = |name: &str| -> Result<Vec<(String, u64)>, String> {
        let object = value[name].as_object().ok_or_else(|| format!("oha has told no {name}"))?;
        object
            .iter()
            .map(|(key, count)| {
                let count =
                    count.as_u64().ok_or_else(|| format!("oha says {count} where a number is wanted"))?;
                Ok((key.clone(), count))
            })
            .collect()
    };
    let number = |value: &Value| value.as_f64().ok_or("oha has told no times");
    let answers = counts("statusCodeDistribution")?;
    let failed = answers
        .iter()
        .filter(|(status, _)| !status.starts_with('2'))
        .chain(&counts("errorDistribution")?)
        .map(|(_, count)| count)
        .sum();
    Ok(Run {
        requests: answers.iter().map(|(_, count)| count).sum(),
        per_second: number(&value["summary"]["requestsPerSec"])?,
        p99: number(&value["latencyPercentiles"]["p99"])? * 1e6,
        errors: failed,
        ..Run::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"{
        "summary": { "successRate": 1.0, "total": 2.0, "requestsPerSec": 9254.5, "totalData": 407044 },
        "latencyPercentiles": { "p95": 0.011, "p99": 0.0155, "p99.9": 0.023 },
        "statusCodeDistribution": { "200": 18502, "201": 8 },
        "errorDistribution": {}
    }"#;

    #[test]
    fn a_run_is_read() {
        let wanted = Run { requests: 18_510, per_second: 9254.5, p99: 15_500.0, ..Run::default() };
        assert_eq!(parse(OUTPUT.as_bytes()).unwrap(), wanted);
    }

    #[test]
    fn other_statuses_and_failed_connections_are_errors() {
        let text = OUTPUT.replace("\"201\": 8", "\"503\": 40, \"304\": 1");
        let text = text.replace(
            "\"errorDistribution\": {}",
            "\"errorDistribution\": { \"refused\": 5, \"timeout\": 300 }",
        );
        let run = parse(text.as_bytes()).unwrap();
        assert_eq!((run.requests, run.errors), (18_543, 346));
    }

    #[test]
    fn what_is_no_result_is_an_error() {
        assert!(parse(b"error: it does not work").unwrap_err().contains("no JSON"));
        assert!(parse(b"{}").unwrap_err().contains("statusCodeDistribution"));
        assert!(parse(OUTPUT.replace("8502", "8502.5").as_bytes()).unwrap_err().contains("18502.5"));
        assert!(parse(OUTPUT.replace("p99\"", "p98\"").as_bytes()).is_err());
    }
}
