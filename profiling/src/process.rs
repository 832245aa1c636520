//! What the system tells about this process. Nothing here allocates.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use crate::Sample;

/// Bytes that are resident now; `None` where the system does not tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    // The exact sum over all mappings. What `status` tells is kept per processor and may lag by some hundred KiB.
    kib("/proc/self/smaps_rollup", "Rss:").or_else(|| kib("/proc/self/status", "VmRSS:"))
}

/// The most bytes that were resident at once since the process began; `None` where the system does not tell.
pub(crate) fn peak_bytes() -> Option<u64> {
    // Not `ru_maxrss`, which begins with what the parent had.
    kib("/proc/self/status", "VmHWM:")
}

/// Bytes that are resident now, to some hundred KiB, in a time that does not depend on how many there are: looking often
/// holds nobody up. `None` where the system does not tell.
pub(crate) fn resident_bytes_about() -> Option<u64> {
    kib("/proc/self/status", "VmRSS:")
}

/// Page faults of all threads since the process began.
pub(crate) fn page_faults() -> u64 {
    let usage = usage();
    (usage.ru_minflt + usage.ru_majflt) as u64
}

/// Processor time of all threads since the process began, in user and kernel.
pub(crate) fn processor_time() -> Duration {
    let usage = usage();
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// What the system counts about this process.
fn usage() -> libc::rusage {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a local that outlives the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    assert_eq!(result, 0, "a process can always ask for its own usage");
    usage
}

/// The number of KiB after `name`, in bytes.
fn kib(path: &str, name: &str) -> Option<u64> {
    let mut buffer = [0; 4096];
    let length = File::open(path).ok()?.read(&mut buffer).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Wall time and page faults of work that several threads share.
pub(crate) struct Stopwatch {
    start: Instant,
    faults: u64,
}

impl Stopwatch {
    /// Starts.
    pub(crate) fn start() -> Self {
        Self { faults: page_faults(), start: Instant::now() }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Stops after `operations`.
    pub(crate) fn stop(self, operations: u64) -> Sample {
        let nanoseconds = self.start.elapsed().as_nanos() as u64;
        Sample { nanoseconds, operations, faults: page_faults() - self.faults }
    }
}
