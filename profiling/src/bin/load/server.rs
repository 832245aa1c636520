//! Servers in processes of their own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::Failure;

/// A running server. It ends with this value, and however this process ends.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts the server over an allocator: a mode of Shockwave, or `system`, `mimalloc` or `jemalloc`.
    ///
    /// # Errors
    /// When there is no such server, or it does not start.
    pub fn start(name: &str, workers: u32) -> Result<Server, Failure> {
        let program = match name {
            "standard" | "slab" | "arena" => "web-shockwave".to_owned(),
            other => format!("web-{other}"),
        };
        let path = std::env::current_exe()?.with_file_name(&program);
        let mut command = Command::new(&path);
        command.arg(workers.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.env("SHOCKWAVE_MODE", name).spawn().map_err(|error| {
            format!("cannot start {}: {error}; build it with --features mimalloc,jemalloc", path.display())
        })?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let mut server = Server { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        server.address.set_port(line.trim().parse().map_err(|_| format!("{program} has told no port"))?);
        Ok(server)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 =
            line.and_then(|line| line.split_whitespace().next()).ok_or("the server has ended")?.parse()?;
        Ok(kib << 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its end of standard input closes; it need not be waited for longer than that takes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// MiB, for tables.
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}
