//! The figures beside the time are taken in a child process, whose heap nothing else has used. A child is
//! this program again.

use std::env::{args, current_exe};
use std::process::{Command, Stdio};

use shockwave_alloc::Mode;

use super::Requests;
use crate::workloads::{Figures, Memory, Pool, Reading, Workload};

/// Makes this program a child; a workload's name follows.
const CHILD: &str = "--figures-of";

/// Options with which criterion measures nothing new.
const NOT_MEASURING: [&str; 4] = ["--test", "--list", "--profile-time", "--load-baseline"];

/// The workload if this process is a child.
pub fn asked_for() -> Option<Workload> {
    let mut arguments = args().skip(1);
    (arguments.next()? == CHILD).then(|| arguments.next()?.parse().ok()).flatten()
}

/// Whether this run shows figures: `cargo bench` says `--bench`, `cargo test` does not.
pub fn wanted() -> bool {
    let is_one_of = |argument: &str, options: &[&str]| {
        options.iter().any(|option| argument.split('=').next() == Some(option))
    };
    args().any(|argument| argument == "--bench") && !args().any(|it| is_one_of(&it, &NOT_MEASURING))
}

/// What a child does.
pub fn measure<P: Pool>(workload: Workload) -> Figures {
    let read = || {
        let stats = shockwave_alloc::stats();
        Reading {
            backing_calls: stats.backing_calls,
            arena_bytes: stats.arena_bytes,
            bypassed_bytes: stats.bypassed_bytes,
        }
    };
    Figures::measure::<Requests<P>>(workload, read, || shockwave_alloc::set_mode(Mode::Standard))
}

/// Starts a child.
pub fn figures(workload: Workload) -> Result<Figures, String> {
    let program = current_exe().map_err(|error| format!("this program is not found: {error}"))?;
    let child = Command::new(program).args([CHILD, workload.name()]).stderr(Stdio::inherit()).output();
    let output = child.map_err(|error| format!("the child does not start: {error}"))?;
    let line = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("the child fails with {}", output.status));
    }
    line.parse().map_err(|()| format!("the child prints '{}'", line.trim()))
}

/// The figures under criterion's lines.
pub fn lines(mode: Mode, figures: &Figures) -> String {
    let mut parts = Vec::new();
    if let Some(calls) = figures.backing_calls {
        let asked = figures.asked.map(|(asked, _)| format!(" (the program makes {asked:.1})"));
        parts.push(format!("calls to the backing heap: {calls:.2}{}", asked.unwrap_or_default()));
    }
    if let Some((_, bytes)) = figures.asked {
        let arena = figures.arena_bytes.filter(|_| mode == Mode::Arena);
        let arena =
            arena.map(|(bumped, big)| format!(" (bumped in the arena {bumped:.0}, too big for it {big:.0})"));
        parts.push(format!("bytes allocated: {bytes:.0}{}", arena.unwrap_or_default()));
    }
    parts.push(match figures.memory {
        Some(Memory::PerRequest(bytes, count)) => {
            format!("resident: {bytes:.0} B for each of {count} requests in flight")
        }
        Some(Memory::OverLive(ratio)) => format!("resident: {ratio:.2} times the live bytes, after churn"),
        None => "resident: the system does not tell".to_owned(),
    });
    parts.iter().map(|part| format!("{:24}{part}", "")).collect::<Vec<_>>().join("\n")
}
