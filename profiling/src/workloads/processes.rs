//! Processes that begin and end.

use std::process::{Command, Stdio};

use crate::process::{Stopwatch, resident_bytes};
use crate::{Clock, Sample};

/// One operation: this program is started once more, makes the allocations of one request and ends, and its end is waited for. The error
/// is one line.
pub fn start(clock: &Clock) -> Result<Sample, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot tell this program: {error}"))?;
    let mut child = Command::new(program);
    child.args(["path", "cycle", "1"]);
    start_again_and_again(clock, child)
}

fn start_again_and_again(clock: &Clock, mut child: Command) -> Result<Sample, String> {
    child.stdin(Stdio::null()).stdout(Stdio::null());
    let mut run = || match child.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the program that is started fails with {status}")),
        Err(error) => Err(format!("cannot start the program: {error}")),
    };
    run()?;
    let watch = Stopwatch::start();
    let mut processes = 0;
    while watch.elapsed() < clock.time() {
        run()?;
        processes += 1;
    }
    Ok(watch.stop(processes))
}

/// KiB that are resident in a process that has just begun and done nothing. `None` if the system does not tell.
pub fn hello() -> Option<f64> {
    Some(resident_bytes()? as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn processes_are_counted_and_failures_told() {
        let clock = Clock::new(Duration::from_millis(1));
        assert!(start_again_and_again(&clock, Command::new("true")).unwrap().operations > 0);
        let told = |program| start_again_and_again(&clock, Command::new(program)).unwrap_err();
        assert!(told("false").contains("fails"));
        assert!(told("no such program").contains("cannot start"));
    }

    #[test]
    fn a_process_has_some_memory() {
        assert!(hello().is_some_and(|kib| kib > 100.0));
    }
}
