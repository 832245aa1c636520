//! Resident memory of this process.

use std::fs::File;
use std::io::Read;

/// Bytes that are resident; `None` where the system does not tell. Allocates nothing.
pub fn resident_bytes() -> Option<u64> {
    // The exact sum over all mappings. What `status` tells is kept per processor and may lag by some hundred
    // KiB.
    field("/proc/self/smaps_rollup", "Rss:").or_else(|| field("/proc/self/status", "VmRSS:"))
}

/// The number of KiB after `name`, in bytes.
fn field(path: &str, name: &str) -> Option<u64> {
    let mut buffer = [0; 4096];
    let length = File::open(path).ok()?.read(&mut buffer).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
