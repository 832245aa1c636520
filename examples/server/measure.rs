//! The comparison: a server for each mode, loaded in turns, to its row of the table.
//!
//! Other programs of the machine disturb a load by more than the modes differ. Turns of a second make what
//! happens in any ten seconds happen to all modes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use shockwave_alloc::Mode;
use tokio::time::{Instant, sleep_until};

use crate::Failure;
use crate::api::Snapshot;
use crate::client::Connection;
use crate::load::{Load, drive};
use crate::process::ServerProcess;
use crate::traffic::Traffic;

/// Time after the last load until memory is looked at again.
pub const REST: Duration = Duration::from_secs(2);
/// Load before the measurement: pages, caches and the store reach the state that they stay in.
const WARM_UP: Duration = Duration::from_millis(500);
/// Load of one mode until it is the turn of the next.
const TURN: Duration = Duration::from_secs(1);

/// What is done in each mode.
pub struct Plan {
    /// Turns of a second.
    pub turns: u64,
    /// Connections at the same time.
    pub connections: usize,
    /// Worker threads of the server.
    pub workers: usize,
}

/// What a mode has shown.
pub struct Row {
    /// The mode.
    pub mode: Mode,
    /// Requests and latencies.
    pub load: Load,
    /// Most resident bytes of the server.
    pub peak_bytes: u64,
    /// Resident bytes after the load and `REST`.
    pub rested_bytes: u64,
    /// Calls to the backing allocator, per request.
    pub backing_calls: f64,
    /// Bytes bumped in arenas, per request.
    pub arena_bytes: f64,
    /// Blocks that outlived their arena, per request.
    pub escaped_blocks: f64,
}

/// Starts a server for each mode, loads them in turns, and tells what happened.
///
/// # Errors
/// When a server does not start, does not serve in its mode, or does not end well.
pub async fn measure(modes: &[Mode], plan: &Plan) -> Result<Vec<Row>, Failure> {
    let traffic = Arc::new(Traffic::prepare());
    let bar = progress(modes.len() as u64 * plan.turns);
    let mut runs = Vec::with_capacity(modes.len());
    for &mode in modes {
        bar.set_message(format!("{mode}: warming up"));
        runs.push(Run::start(mode, plan, &traffic).await?);
    }
    for _ in 0..plan.turns {
        for run in &mut runs {
            run.turn(plan, &traffic, &bar).await;
        }
        // Nobody is always the first, nor always after the same other one.
        runs.rotate_left(1);
    }
    bar.set_message("resting");
    // The one that rested longest first, so that each has rested equally long.
    runs.sort_by_key(|run| run.last_loaded);
    let mut rows = Vec::with_capacity(modes.len());
    for run in runs {
        let mode = run.mode;
        rows.push(run.finish().await.map_err(|error| format!("mode {mode}: {error}"))?);
    }
    bar.finish_and_clear();
    rows.sort_by_key(|row| modes.iter().position(|mode| *mode == row.mode));
    Ok(rows)
}

/// One mode while it is measured.
struct Run {
    mode: Mode,
    server: ServerProcess,
    before: Snapshot,
    load: Load,
    peak_bytes: u64,
    last_loaded: Instant,
}

impl Run {
    async fn start(mode: Mode, plan: &Plan, traffic: &Arc<Traffic>) -> Result<Self, Failure> {
        let server = ServerProcess::start(mode, plan.workers).await?;
        let address = server.address();
        let warm_up = drive(address, traffic, plan.connections, WARM_UP, |_| {}).await;
        let before = snapshot(address).await?;
        if before.mode != mode.to_string() {
            return Err(
                format!("the server was to serve in mode {mode} and is in mode {}", before.mode).into()
            );
        }
        // Its errors count; its rate and its latencies do not.
        let load = Load { errors: warm_up.errors, first_error: warm_up.first_error, ..Load::new() };
        Ok(Self { mode, server, before, load, peak_bytes: 0, last_loaded: Instant::now() })
    }

    async fn turn(&mut self, plan: &Plan, traffic: &Arc<Traffic>, bar: &ProgressBar) {
        let mode = self.mode;
        let earlier = self.load.requests;
        let load = drive(self.server.address(), traffic, plan.connections, TURN, |answered| {
            self.peak_bytes = self.server.resident().map_or(0, |resident| resident.peak).max(self.peak_bytes);
            bar.set_message(format!("{mode}: {} requests", earlier + answered));
        })
        .await;
        self.load.add(load);
        self.last_loaded = Instant::now();
        bar.inc(1);
    }

    async fn finish(mut self) -> Result<Row, Failure> {
        sleep_until(self.last_loaded + REST).await;
        // Says more than a question that is not answered.
        self.server.check()?;
        let after = snapshot(self.server.address()).await?;
        // The server's own figure stands in where the system has none to offer.
        let (now, peak) = match self.server.resident() {
            Some(resident) => (resident.now, resident.peak),
            None => (after.resident_bytes, after.resident_bytes),
        };
        self.server.stop().await?;
        let per_request = |counter: fn(&Snapshot) -> u64| {
            let counted = counter(&after).saturating_sub(counter(&self.before));
            counted as f64 / self.load.requests.max(1) as f64
        };
        Ok(Row {
            mode: self.mode,
            peak_bytes: peak.max(self.peak_bytes),
            rested_bytes: now,
            backing_calls: per_request(|stats| stats.backing_calls),
            arena_bytes: per_request(|stats| stats.arena_bytes),
            escaped_blocks: per_request(|stats| stats.escaped_blocks),
            load: self.load,
        })
    }
}

async fn snapshot(address: SocketAddr) -> Result<Snapshot, Failure> {
    let request = b"GET /stats.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let unanswered = |error| format!("/stats.json was not answered: {error}");
    let mut connection = Connection::open(address).await.map_err(unanswered)?;
    let answer = connection.exchange(request).await.map_err(unanswered)?;
    serde_json::from_slice(answer.body)
        .map_err(|error| format!("/stats.json is not understood: {error}").into())
}

fn progress(turns: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:40}] {msg}").expect("the template is valid");
    ProgressBar::new(turns).with_style(style.progress_chars("=> "))
}
