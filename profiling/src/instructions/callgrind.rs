//! Runs a binary under callgrind and reads what it counted.

use std::fs;
use std::process::{Command, Stdio};

use profiling::paths::{COUNTED_SYMBOL, MOST, Path};

use crate::compare::binaries::Built;

/// How often the two runs go a way. Their difference leaves out what is done once.
const TIMES: [usize; 2] = [MOST / 4, MOST];

/// Fails with one line if valgrind does not run.
pub fn is_installed() -> Result<(), String> {
    let status =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("valgrind, which counts instructions, fails with {status}")),
        Err(_) => {
            Err("valgrind, which counts instructions, is not installed (Debian: apt-get install valgrind)"
                .to_owned())
        }
    }
}

/// Instructions of going `path` once.
pub fn count(built: &Built, path: Path) -> Result<f64, String> {
    let [few, many] = TIMES.map(|times| total(built, path, times));
    let (few, many) = (few?, many?);
    Ok((many as f64 - few as f64) / (TIMES[1] - TIMES[0]) as f64)
}

/// Instructions of going `path` `times` times, and what is done once.
fn total(built: &Built, path: Path, times: usize) -> Result<u64, String> {
    let about = |reason: String| format!("{} of {}: {reason}", path.name(), built.allocator.title);
    // Two of these commands at once do not meet.
    let name = format!("shockwave-callgrind-{}-{}-{}", std::process::id(), built.allocator.name, path.name());
    let file = std::env::temp_dir().join(name);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect={COUNTED_SYMBOL}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&built.path)
        .args(["path", path.name(), &times.to_string()])
        // A variable of the environment can choose the mode.
        .env_remove("SHOCKWAVE_MODE")
        .env_remove("SHOCKWAVE_SLAB_SIZE")
        .env_remove("SHOCKWAVE_TRACE")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| about(format!("valgrind does not start: {error}")))?;
    let text = fs::read_to_string(&file);
    // Nothing is left to do if it cannot be removed, or was never written.
    let _ = fs::remove_file(&file);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let line = complaint.lines().next().unwrap_or("says nothing");
        return Err(about(format!("valgrind fails with {}: {line}", output.status)));
    }
    let text = text.map_err(|error| about(format!("cannot read what valgrind wrote: {error}")))?;
    summary(&text).filter(|total| *total > 0).ok_or_else(|| about("valgrind counted nothing".to_owned()))
}

/// The number of instructions in a file of callgrind's.
fn summary(text: &str) -> Option<u64> {
    let line =
        text.lines().find_map(|line| line.strip_prefix("summary:").or(line.strip_prefix("totals:")))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_summary() {
        assert_eq!(summary("version: 1\nevents: Ir\nsummary: 1234\n\nfn=x\n1 2\n"), Some(1234));
        assert_eq!(summary("fn=x\n\ntotals: 77\n"), Some(77));
        assert_eq!(summary("events: Ir\n"), None);
    }
}
