//! The counts that are committed, and how others stand beside them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// What a count may exceed its baseline by, in per cent: another order of instructions costs less, another branch more.
const TOLERANCE_PERCENT: f64 = 3.0;

/// Counts are differences of two runs and may be off by this.
const ROUNDING: f64 = 0.25;

/// Instructions of one way in one mode.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    /// The name of the binary's allocator.
    pub mode: String,
    /// The name of the way.
    pub path: String,
    /// Instructions, the loop around included.
    pub instructions: f64,
}

/// What is committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// What the binaries were compiled with.
    pub compiler: String,
    /// What a count may exceed its baseline by.
    pub tolerance_percent: f64,
    /// The counts.
    pub counts: Vec<Count>,
}

/// How a count stands beside its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Same,
    /// Below it.
    Better,
    /// Above it.
    Worse,
    /// There is no baseline for it.
    Unknown,
}

impl Baseline {
    /// Without counts.
    pub fn new(compiler: &str) -> Baseline {
        Baseline { compiler: compiler.to_owned(), tolerance_percent: TOLERANCE_PERCENT, counts: Vec::new() }
    }

    /// Reads the file; an error is one line.
    pub fn read(path: &Path) -> Result<Baseline, String> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Baseline::parse(&text).ok_or_else(|| format!("{} is no baseline", path.display()))
    }

    fn parse(text: &str) -> Option<Baseline> {
        let value: Value = serde_json::from_str(text).ok()?;
        let mut counts = Vec::new();
        for (mode, paths) in value["instructions"].as_object()? {
            for (path, instructions) in paths.as_object()? {
                let instructions = instructions.as_f64()?;
                counts.push(Count { mode: mode.clone(), path: path.clone(), instructions });
            }
        }
        Some(Baseline {
            compiler: value["compiler"].as_str()?.to_owned(),
            tolerance_percent: value["tolerance_percent"].as_f64()?,
            counts,
        })
    }

    /// Writes the file; an error is one line.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let written = fs::write(path, self.text());
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn text(&self) -> String {
        let mut instructions = json!({});
        for count in &self.counts {
            instructions[&count.mode][&count.path] = json!((count.instructions * 100.0).round() / 100.0);
        }
        let value = json!({
            "compiler": self.compiler,
            "tolerance_percent": self.tolerance_percent,
            "instructions": instructions,
        });
        format!("{value:#}\n")
    }

    /// The committed number for the same mode and way.
    pub fn of(&self, count: &Count) -> Option<f64> {
        let same = |known: &&Count| known.mode == count.mode && known.path == count.path;
        self.counts.iter().find(same).map(|known| known.instructions)
    }

    /// How `count` stands.
    pub fn verdict(&self, count: &Count) -> Verdict {
        let Some(known) = self.of(count) else { return Verdict::Unknown };
        let allowed = known * self.tolerance_percent / 100.0 + ROUNDING;
        match count.instructions - known {
            more if more > allowed => Verdict::Worse,
            more if more < -allowed => Verdict::Better,
            _ => Verdict::Same,
        }
    }
}

/// The compiler of the binaries: name and version.
pub fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.map_err(|error| format!("cannot start rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    Ok(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, instructions: f64) -> Count {
        Count { mode: "slab".to_owned(), path: path.to_owned(), instructions }
    }

    #[test]
    fn more_than_the_tolerance_is_worse() {
        let baseline = Baseline { counts: vec![count("alloc", 100.0)], ..Baseline::new("rustc 1") };
        for (instructions, verdict) in
            [(100.0, Verdict::Same), (103.2, Verdict::Same), (103.3, Verdict::Worse), (96.7, Verdict::Better)]
        {
            assert_eq!(baseline.verdict(&count("alloc", instructions)), verdict, "{instructions}");
        }
        assert_eq!(baseline.verdict(&count("dealloc", 1.0)), Verdict::Unknown);
    }

    #[test]
    fn the_file_holds_what_was_written() {
        let counts = vec![count("alloc", 21.25), count("cycle", 700.0)];
        let baseline = Baseline { counts, ..Baseline::new("rustc 1.95.0") };
        assert_eq!(Baseline::parse(&baseline.text()), Some(baseline));
        assert_eq!(Baseline::parse("{}"), None);
    }
}
