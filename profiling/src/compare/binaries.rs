//! Builds the binaries of the allocators.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::allocator::Allocator;

/// An allocator and its binary.
pub struct Built {
    /// The allocator.
    pub allocator: &'static Allocator,
    /// Where cargo put its binary.
    pub path: PathBuf,
}

/// Builds the binaries of `allocators` in the release profile. For an allocator that cannot be built,
/// `left_out` gets one line and the others are built nevertheless. An error is about cargo itself.
pub fn build(
    allocators: &[&'static Allocator],
    mut left_out: impl FnMut(String),
) -> Result<Vec<Built>, String> {
    let mut wanted = Vec::with_capacity(allocators.len());
    for allocator in allocators {
        match allocator.needs {
            Some(program) if !is_installed(program) => {
                left_out(format!(
                    "{} is left out: its build needs {program}, which is not installed",
                    allocator.title
                ));
            }
            _ => wanted.push(*allocator),
        }
    }
    // Together first, since that compiles what they share once; each feature apart only if that fails.
    let mut built = match cargo_build(&wanted)? {
        Ok(built) => built,
        Err(_) => {
            let mut built = Vec::new();
            for group in by_feature(&wanted) {
                match cargo_build(&group)? {
                    Ok(group) => built.extend(group),
                    Err(reason) => {
                        let titles: Vec<_> = group.iter().map(|allocator| allocator.title).collect();
                        left_out(format!("{} left out: cannot be built: {reason}", titles.join(", ")));
                    }
                }
            }
            built
        }
    };
    built.sort_by_key(|built| allocators.iter().position(|allocator| *allocator == built.allocator));
    Ok(built)
}

/// Splits `allocators` so that only those stay together that need the same feature.
fn by_feature(allocators: &[&'static Allocator]) -> Vec<Vec<&'static Allocator>> {
    let mut groups: Vec<Vec<&'static Allocator>> = Vec::new();
    for allocator in allocators {
        match groups.iter_mut().find(|group| group[0].feature == allocator.feature) {
            Some(group) => group.push(allocator),
            None => groups.push(vec![allocator]),
        }
    }
    groups
}

/// Whether `program` runs.
fn is_installed(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// One run of cargo. The outer error is that it does not start; the inner one is the build's first error
/// line.
fn cargo_build(allocators: &[&'static Allocator]) -> Result<Result<Vec<Built>, String>, String> {
    if allocators.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let features: Vec<&str> = allocators.iter().filter_map(|allocator| allocator.feature).collect();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command
        .args(["build", "--release", "--quiet", "--message-format=json-render-diagnostics"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .args(["--no-default-features", "--features", &features.join(",")]);
    for allocator in allocators {
        command.args(["--bin", &allocator.binary()]);
    }
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Ok(Err(first_error(&String::from_utf8_lossy(&output.stderr))));
    }
    let mut paths = executables(&String::from_utf8_lossy(&output.stdout));
    let built = allocators.iter().map(|allocator| match paths.remove(&allocator.binary()) {
        Some(path) => Ok(Built { allocator, path }),
        None => Err(format!("cargo does not say where it put {}", allocator.binary())),
    });
    Ok(built.collect())
}

/// Name and path of each binary among cargo's messages, of which each is a line of JSON.
fn executables(messages: &str) -> HashMap<String, PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let binary = |message: serde_json::Value| {
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
    };
    messages.filter_map(binary).collect()
}

/// The line that says most of what a failed cargo printed.
fn first_error(stderr: &str) -> String {
    let mut lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.clone().find(|line| line.starts_with("error")).or_else(|| lines.next());
    first.unwrap_or("cargo does not say why").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Allocator] = &Allocator::ALL;

    #[test]
    fn one_feature_is_one_group() {
        let all: Vec<&Allocator> = ALL.iter().collect();
        let groups = by_feature(&all);
        let names: Vec<Vec<&str>> =
            groups.iter().map(|group| group.iter().map(|allocator| allocator.name).collect()).collect();
        let shockwave = vec!["standard", "slab", "arena"];
        assert_eq!(
            names,
            [
                vec!["system", "floor"],
                vec!["mimalloc"],
                vec!["jemalloc"],
                vec!["snmalloc"],
                vec!["rpmalloc"],
                vec!["rallocator"],
                vec!["talc"],
                vec!["bumpalo"],
                shockwave
            ]
        );
    }

    #[test]
    fn reads_what_cargo_prints() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"profiling"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"alloc-slab"},"executable":"release/alloc-slab"}
            {"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("alloc-slab".into(), "release/alloc-slab".into())]
        );
        assert_eq!(first_error("warning: x\nerror[E1]: this\nerror: that"), "error[E1]: this");
    }
}
