//! `wrk`, and what it prints.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::process::Command;

use crate::Failure;

/// One answer in this many is compared, by each thread of wrk.
const COMPARED: u32 = 1000;

/// What is asked for, how, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    pub path: &'a str,
    pub connections: u32,
    pub seconds: u64,
    /// Whether connections are kept: else each ends after an answer.
    pub keep: bool,
    /// What the body of each 1,000th answer may be; nothing is looked at if there is nothing here.
    pub bodies: &'a [String],
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    pub requests: u64,
    pub per_second: f64,
    /// Microseconds.
    pub p99: f64,
    /// Answers that were no success, and connections that failed.
    pub errors: u64,
    /// Answers whose body was compared.
    pub compared: u64,
    /// Those of them that had another one.
    pub wrong: u64,
}

/// Sends requests for some seconds.
///
/// # Errors
/// When `wrk` cannot be run.
pub async fn run(address: SocketAddr, load: Load<'_>) -> Result<Run, Failure> {
    let mut command = Command::new("wrk");
    command.args(["--latency", "--timeout", "30s", "-t2"]);
    command.arg(format!("-c{}", load.connections)).arg(format!("-d{}s", load.seconds));
    if !load.keep {
        command.args(["-H", "connection: close"]);
    }
    let script = (!load.bodies.is_empty()).then(|| Script::new(load.bodies)).transpose()?;
    if let Some(script) = &script {
        command.arg("-s").arg(&script.0);
    }
    command.arg(format!("http://{address}{}", load.path)).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("cannot run wrk: {error}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("wrk failed: {}", reason.lines().next().unwrap_or("it does not say why")).into());
    }
    parse(&String::from_utf8_lossy(&output.stdout), load.keep).map_err(Failure::from)
}

/// A file with the comparison, as long as this exists.
struct Script(PathBuf);

impl Script {
    fn new(bodies: &[String]) -> std::io::Result<Script> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("load-{}-{number}.lua", std::process::id()));
        std::fs::write(&path, comparison(bodies))?;
        Ok(Script(path))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // A file that is gone already is what this is for.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The script that compares one answer in [`COMPARED`].
fn comparison(bodies: &[String]) -> String {
    let mut script = String::from("local right = {}\n");
    for body in bodies {
        // A newline after the bracket is not part of the text; `=` keeps brackets in the text from ending it.
        writeln!(script, "right[ [===[\n{body}]===] ] = true").expect("writing to memory does not fail");
    }
    write!(
        script,
        "local threads = {{}}
seen, compared, wrong = 0, 0, 0
function setup(thread) table.insert(threads, thread) end
function response(status, headers, body)
  seen = seen + 1
  if seen % {COMPARED} == 0 then
    compared = compared + 1
    if not right[body] then wrong = wrong + 1 end
  end
end
function done()
  local all, bad = 0, 0
  for _, thread in ipairs(threads) do all, bad = all + thread:get('compared'), bad + thread:get('wrong') end
  print(string.format('%d compared, %d wrong', all, bad))
end
"
    )
    .expect("writing to memory does not fail");
    script
}

fn parse(text: &str, keep: bool) -> Result<Run, String> {
    let mut run = Run::default();
    let mut rate = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Requests/sec:", per_second] => rate = Some(number::<f64>(per_second)?),
            ["99%", time] => run.p99 = microseconds(time)?,
            [requests, "requests", "in", ..] => run.requests = number(requests)?,
            ["Non-2xx", "or", "3xx", "responses:", count] => run.errors += number::<u64>(count)?,
            ["Socket", "errors:", "connect", connect, "read", read, "write", write, "timeout", timeout] => {
                // With `connection: close` each connection ends after an answer, which wrk counts as an error of reading.
                let counted = if keep { vec![connect, read, write, timeout] } else { vec![connect, timeout] };
                for count in counted {
                    run.errors += number::<u64>(count)?;
                }
            }
            [compared, "compared,", wrong, "wrong"] => {
                (run.compared, run.wrong) = (number(compared)?, number(wrong)?);
            }
            _ => {}
        }
    }
    run.per_second = rate.ok_or("wrk has told no requests per second")?;
    Ok(run)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim_end_matches(',').parse().map_err(|_| format!("wrk says {text:?} where a number is wanted"))
}

fn microseconds(time: &str) -> Result<f64, String> {
    let split = time.find(|letter: char| letter.is_alphabetic()).unwrap_or(time.len());
    let value: f64 = number(&time[..split])?;
    match &time[split..] {
        "us" => Ok(value),
        "ms" => Ok(value * 1e3),
        "s" => Ok(value * 1e6),
        "m" => Ok(value * 60e6),
        _ => Err(format!("wrk says {time:?} where a time is wanted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Running 5s test @ http://127.0.0.1:8080/hello
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.25ms    0.90ms  22.00ms   90.11%
    Req/Sec    25.11k     2.40k   31.20k    70.00%
  Latency Distribution
     50%    1.10ms
     75%    1.52ms
     90%    2.05ms
     99%    4.50ms
  250012 requests in 5.01s, 40.29MB read
Requests/sec:  49902.30
Transfer/sec:      8.04MB
";

    #[test]
    fn a_run_is_read() {
        let run = parse(OUTPUT, true).unwrap();
        let wanted = Run { requests: 250_012, per_second: 49_902.3, p99: 4500.0, ..Run::default() };
        assert_eq!(run, wanted);
    }

    #[test]
    fn errors_are_counted_and_connections_that_end_on_purpose_are_none() {
        let text = format!(
            "{OUTPUT}  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 50000\n"
        );
        assert_eq!(parse(&text, true).unwrap().errors, 54_321);
        assert_eq!(parse(&text, false).unwrap().errors, 54_001);
    }

    #[test]
    fn comparisons_are_counted() {
        let run = parse(&format!("{OUTPUT}250 compared, 3 wrong\n"), true).unwrap();
        assert_eq!((run.compared, run.wrong), (250, 3));
    }

    #[test]
    fn times_have_units() {
        for (text, wanted) in
            [("870.00us", 870.0), ("4.50ms", 4500.0), ("1.20s", 1_200_000.0), ("1.00m", 60e6)]
        {
            assert!((microseconds(text).unwrap() - wanted).abs() < 1e-6, "{text}");
        }
        assert!(microseconds("4.50").unwrap_err().contains("4.50"));
        assert!(microseconds("fast").unwrap_err().contains("number"));
    }

    #[test]
    fn what_is_no_result_is_an_error() {
        assert!(parse("unable to connect to 127.0.0.1:8080 Connection refused\n", true).is_err());
        assert!(parse(&OUTPUT.replace("250012", "many"), true).unwrap_err().contains("many"));
    }

    #[test]
    fn bodies_are_texts_of_the_script() {
        let script = comparison(&["[[a]]\n".to_owned(), "{\"b\":1}".to_owned()]);
        assert!(script.contains("right[ [===[\n[[a]]\n]===] ] = true"), "{script}");
        assert!(script.contains("right[ [===[\n{\"b\":1}]===] ] = true"), "{script}");
        assert!(script.contains("seen % 1000 == 0"), "{script}");
    }
}
