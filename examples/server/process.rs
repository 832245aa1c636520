//! A server in a process of its own, which does not outlive the value that stands for it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shockwave_alloc::Mode;
use tokio::time::{Instant, sleep, timeout};

use crate::Failure;
use crate::serve::READY;

/// Time that a server has to start, and again to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server. Its standard input is a pipe that closes however this process ends, and then it ends as
/// well.
pub struct ServerProcess {
    child: Child,
    address: SocketAddr,
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// Bytes now.
    pub now: u64,
    /// Most bytes since the process started.
    pub peak: u64,
}

impl ServerProcess {
    /// Starts this program as a server in `mode` on a free port of loopback.
    ///
    /// # Errors
    /// When it does not start, or does not tell its address in time.
    pub async fn start(mode: Mode, workers: usize) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--supervised", "--listen", "127.0.0.1:0", "--workers", &workers.to_string()])
            .env("SHOCKWAVE_MODE", mode.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start the server of mode {mode}: {error}"))?;
        let stdout = child.stdout.take();
        // From here on the process ends with this value, also when a line below fails.
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let first_line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
            line
        });
        let line = match timeout(PATIENCE, first_line).await {
            Ok(line) => line?,
            Err(_) => return Err(format!("the server of mode {mode} did not start within 10 s").into()),
        };
        server.address = line
            .strip_prefix(READY)
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| format!("the server of mode {mode} ended before it told its address"))?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its resident memory as the system counts it; `None` where the system has no `/proc`.
    pub fn resident(&self) -> Option<Resident> {
        // Not statm: that counts in OS pages, and the peak between two looks at it is lost.
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        let now = bytes("VmRSS:")?;
        Some(Resident { now, peak: bytes("VmHWM:").unwrap_or(now) })
    }

    /// Makes sure that it still runs.
    ///
    /// # Errors
    /// When it has ended: how.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the server ended under load: {status}").into()),
        }
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub async fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("the server did not end well: {status}").into()),
                None => sleep(Duration::from_millis(5)).await,
            }
        }
        Err("the server did not end within 10 s".into())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Neither fails for a process that is still there; one that has ended needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
