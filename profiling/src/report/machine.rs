//! Where and with what was measured.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

/// What the reader needs to know about the machine. Where the system does not tell there is "unknown".
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in GiB.
    pub memory: String,
    /// Name and release of the kernel.
    pub kernel: String,
    /// The C library, whose allocator is the control.
    pub c_library: String,
    /// Versions of the compiler and of cargo.
    pub toolchain: String,
    /// The commit, and whether there were changes on top.
    pub source: String,
    /// Processes that were ready to run, over the last minute.
    pub load: Option<f64>,
}

impl Machine {
    /// Looks at it now.
    pub fn look() -> Machine {
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        Machine {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: available_parallelism().map_or(1, usize::from),
            memory: memory().unwrap_or_else(unknown),
            kernel: kernel().unwrap_or_else(unknown),
            c_library: output("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_else(unknown),
            toolchain: output(&rustc, &["--version"]).unwrap_or_else(unknown),
            source: source().unwrap_or_else(unknown),
            load: load(),
        }
    }

    /// Whether other programs took part of the cores.
    pub fn is_busy(&self) -> bool {
        self.load.is_some_and(|load| load > self.cores as f64 / 2.0)
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// What stands after `name` and a colon.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Option<String> {
    let kib: f64 = field("/proc/meminfo", "MemTotal")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(format!("{:.0} GiB", kib / (1 << 20) as f64))
}

fn kernel() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(format!("{} {} {}", std::env::consts::OS, release.trim(), std::env::consts::ARCH))
}

fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn source() -> Option<String> {
    let directory = env!("CARGO_MANIFEST_DIR");
    let commit = output("git", &["-C", directory, "rev-parse", "--short=12", "HEAD"])?;
    let changes = output("git", &["-C", directory, "status", "--porcelain", "--", "../src", "../benches"])?;
    let changed = if changes.is_empty() { "" } else { ", with changes on top" };
    Some(format!("commit {commit}{changed}"))
}

/// What a program prints, if it is there and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
