//! The server under dhat: built with symbols, in a process of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::counters::READY;

/// Time that the server has to end: dhat looks up the names of every backtrace.
const PATIENCE: Duration = Duration::from_secs(120);

/// Builds the server in the profile `heap` and gives its path.
pub fn build() -> Result<PathBuf, String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
        .args(["build", "--quiet", "--message-format=json-render-diagnostics", "--profile", "heap"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .args(["--no-default-features", "--features", "heap", "--bin", "heap-server"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let error = stderr.lines().find(|line| line.starts_with("error")).or_else(|| stderr.lines().next());
        return Err(format!("the server cannot be built: {}", error.unwrap_or("cargo does not say why")));
    }
    // Each message is a line of JSON, and only programs have an executable.
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let path =
        messages.find_map(|message: serde_json::Value| message["executable"].as_str().map(PathBuf::from));
    path.ok_or_else(|| "cargo does not say where it put heap-server".to_owned())
}

/// A running server, which does not outlive this value.
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts `program` in `mode`; its profile goes to `file`.
    pub fn start(program: &Path, mode: &str, file: &Path) -> Result<Server, String> {
        let child = Command::new(program)
            .arg(file)
            // Nothing but the mode is to differ from a run without variables.
            .env_remove("SHOCKWAVE_SLAB_SIZE")
            .env_remove("SHOCKWAVE_TRACE")
            .env("SHOCKWAVE_MODE", mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the server does not start: {error}"))?;
        // From here on the process ends with this value, also when a line below fails.
        let mut server = Server { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut line = String::new();
        if let Some(stdout) = server.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        match line.strip_prefix(READY).and_then(|address| address.trim().parse().ok()) {
            Some(address) => server.address = address,
            None => return Err(format!("the server does not tell its address: {}", server.complaint())),
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has it end and write the profile.
    pub fn stop(mut self) -> Result<(), String> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(format!("the server ends with {status}: {}", self.complaint()));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(format!("the server cannot be waited for: {error}")),
            }
        }
        Err(format!("the server does not end within {} s", PATIENCE.as_secs()))
    }

    /// The first line of what a server that has ended, or ends now, printed as errors.
    fn complaint(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text.lines().next().unwrap_or("it says nothing").to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Neither fails for a process that is still there; one that has ended needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
