//! Driving a server with requests, and what came of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::client::Connection;
use crate::traffic::{Script, Traffic};

/// Time that requests under way at the end of a load have.
const GRACE: Duration = Duration::from_secs(10);
/// Pause before a connection that broke is opened again, so that a server that is gone is not asked a million
/// times.
const PAUSE: Duration = Duration::from_millis(20);
/// How often somebody who waits for a load is told about it.
const TICK: Duration = Duration::from_millis(100);
/// Latencies that are told apart: from 1 us to 60 s, in nanoseconds, with three digits.
const LATENCIES: (u64, u64, u8) = (1_000, 60_000_000_000, 3);

/// What came of a load.
pub struct Load {
    /// Latency in nanoseconds of each request that was answered rightly.
    pub latencies: Histogram<u32>,
    /// Requests that were answered rightly.
    pub requests: u64,
    /// Requests that were not, or not at all.
    pub errors: u64,
    /// What was wrong first.
    pub first_error: Option<String>,
    /// Time from the first request to the last answer; zero for the part that one connection has in a load.
    pub elapsed: Duration,
}

impl Load {
    /// Nothing yet.
    pub fn new() -> Self {
        let (low, high, digits) = LATENCIES;
        Self {
            latencies: Histogram::new_with_bounds(low, high, digits).expect("the bounds are in order"),
            requests: 0,
            errors: 0,
            first_error: None,
            elapsed: Duration::ZERO,
        }
    }

    fn failed(&mut self, message: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(message);
    }

    /// Counts another load, before or after this one, as a part of it.
    pub fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies).expect("all have the same bounds");
        self.requests += other.requests;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.elapsed += other.elapsed;
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// The latency that this share of the requests did not exceed.
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(quantile))
    }
}

/// Sends requests over `connections` connections for `duration`, each connection one at a time. `tick` is
/// called ten times a second with the requests answered so far.
pub async fn drive(
    address: SocketAddr,
    traffic: &Arc<Traffic>,
    connections: usize,
    duration: Duration,
    mut tick: impl FnMut(u64),
) -> Load {
    let start = Instant::now();
    let answered = Arc::new(AtomicU64::new(0));
    // Dropped with its tasks when the load is given up.
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let script = Script::new(Arc::clone(traffic), connection);
        tasks.spawn(one_connection(address, script, start + duration, Arc::clone(&answered)));
    }

    let mut total = Load::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(Ok(load)) => total.add(load),
                Some(Err(error)) => total.failed(|| format!("the load itself failed: {error}")),
                None => break,
            },
            _ = ticks.tick() => tick(answered.load(Ordering::Relaxed)),
        }
    }
    total.elapsed = start.elapsed();
    total
}

async fn one_connection(
    address: SocketAddr,
    mut script: Script,
    deadline: Instant,
    answered: Arc<AtomicU64>,
) -> Load {
    let mut load = Load::new();
    // One timer for all requests: one for each would cost more than the client does.
    let requests = async {
        while Instant::now() < deadline {
            let result = match Connection::open(address).await {
                Ok(connection) => repeat(connection, &mut script, deadline, &mut load, &answered).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                load.failed(|| format!("the connection failed: {error}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    if timeout_at(deadline + GRACE, requests).await.is_err() {
        load.failed(|| format!("a request was not answered within {} s", GRACE.as_secs()));
    }
    load
}

async fn repeat(
    mut connection: Connection,
    script: &mut Script,
    deadline: Instant,
    load: &mut Load,
    answered: &AtomicU64,
) -> std::io::Result<()> {
    let mut sent = Instant::now();
    while sent < deadline {
        let step = script.advance();
        let answer = connection.exchange(script.request(step)).await?;
        let received = Instant::now();
        match script.check(step, &answer) {
            Ok(()) => {
                load.requests += 1;
                answered.fetch_add(1, Ordering::Relaxed);
                load.latencies.saturating_record((received - sent).as_nanos() as u64);
            }
            Err(message) => load.failed(|| message),
        }
        // The time that checking takes is the client's, not a part of any latency.
        sent = Instant::now();
    }
    Ok(())
}
