//! What of a plain JSON request outlives its arena, in real servers on axum, hyper and tonic:
//!
//! ```text
//! cargo run --release --example web_escapes --features escape-trace             # a table, and the call sites
//! cargo run --release --example web_escapes --features escape-trace -- 5000     # as many requests each
//! cargo run --release --example web_escapes --features escape-trace -- pinned   # memory pinned after 1, 5 and 10 million
//! ```
//!
//! Each server answers real requests in two runs: one with tracing, which holds everything in the arenas and names who made what is
//! alive when they close, and one as servers run, with pretenuring. Connections are new in each run; nothing depends on time.
//!
//! Blocks are counted by the allocator. Bytes are those that tracing has noted, in which it errs to the safe side: a block that was
//! freed before its arena closed, but while that was not entered, is among them if another one did escape. In the last two
//! rows, where connections have arenas around those of their requests, that are most.

mod client;
pub mod pinned;
mod servers;

use std::error::Error;

use client::Protocol;
use shockwave_alloc::{EscapeReport, Shockwave, clear_escape_report, escape_report, stats, trace_escapes};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Connections of each server.
pub const CONNECTIONS: usize = 8;

/// A server, and a way of asking it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    server: Served,
    protocol: Protocol,
    path: &'static str,
}

/// The servers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Served {
    Axum,
    Hyper,
    HyperInArena,
    Tonic,
}

impl Case {
    /// Whether it is the plain JSON request with the layer and nothing else.
    pub fn is_plain(&self) -> bool {
        matches!(self.path, "/order" | BILL) && !matches!(self.server, Served::HyperInArena)
    }
}

/// The path of the gRPC method.
const BILL: &str = "/billing.Billing/Bill";

/// The plain JSON request in each server, and what handlers do besides. Those that a library builds state for are early, so that
/// it is not there already.
pub const CASES: [Case; 11] = {
    use Protocol::{Grpc, Http1, Http2};
    use Served::{Axum, Hyper, HyperInArena, Tonic};
    const fn case(name: &'static str, server: Served, protocol: Protocol, path: &'static str) -> Case {
        Case { name, server, protocol, path }
    }
    [
        case("axum, HTTP/1", Axum, Http1, "/order"),
        case("axum, a span", Axum, Http1, "/span"),
        case("axum, a timeout", Axum, Http1, "/timeout"),
        case("axum, a task", Axum, Http1, "/spawn"),
        case("axum, a channel", Axum, Http1, "/channel"),
        case("axum, HTTP/2", Axum, Http2, "/order"),
        case("hyper, HTTP/1", Hyper, Http1, "/order"),
        case("hyper, HTTP/2", Hyper, Http2, "/order"),
        case("tonic", Tonic, Grpc, BILL),
        case("hyper, HTTP/1, connections in arenas", HyperInArena, Http1, "/order"),
        case("hyper, HTTP/2, connections in arenas", HyperInArena, Http2, "/order"),
    ]
};

/// What requests have left, by the counters of the allocator.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// Arenas that were closed.
    pub arenas: u64,
    /// Bytes that were allocated in the scopes of their arenas, whatever became of them.
    pub bytes: u64,
    /// Blocks that were alive when their arena closed.
    pub escaped_blocks: u64,
    /// Bytes that pretenuring has placed in the slab.
    pub pretenured_bytes: u64,
}

/// Answers `requests` of a case with a server that ends after it.
///
/// # Errors
///
/// When there is no port, or an answer was wrong.
pub fn run(case: Case, requests: usize) -> Result<Left, client::Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (listener, address) = runtime.block_on(servers::listen())?;
    runtime.spawn(servers::serve(listener, case.server));
    let before = stats();
    let sent =
        std::thread::spawn(move || client::send(address, case.protocol, case.path, requests, CONNECTIONS));
    sent.join().map_err(|_| "the client panicked")??;
    // Its threads end here, and with them what is still open.
    drop(runtime);
    let after = stats();
    let outside = after.pretenured_bytes - before.pretenured_bytes;
    Ok(Left {
        arenas: after.arenas_closed - before.arenas_closed,
        bytes: after.arena_bytes - before.arena_bytes + outside + after.bypassed_bytes
            - before.bypassed_bytes,
        escaped_blocks: after.escaped_blocks - before.escaped_blocks,
        pretenured_bytes: outside,
    })
}

/// The same with every arena traced.
///
/// # Errors
///
/// As [`run`].
pub fn run_traced(case: Case, requests: usize) -> Result<(Left, EscapeReport), client::Failure> {
    clear_escape_report();
    trace_escapes(1);
    let left = run(case, requests);
    trace_escapes(0);
    Ok((left?, escape_report()))
}

/// Bytes that have escaped, of all call sites.
pub fn bytes(report: &EscapeReport) -> u64 {
    report.sites.iter().map(|site| site.bytes).sum()
}

#[allow(dead_code, reason = "the test of this example only uses the cases")]
fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    use tracing_subscriber::layer::SubscriberExt;
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("pinned") {
        let after = [1_000_000, 5_000_000, 10_000_000];
        for (requests, bytes) in after.iter().zip(pinned::pinned(&after)?) {
            println!("{bytes:8} B pinned after {requests:8} requests");
        }
        return Ok(());
    }
    let requests = match argument.map(|number| number.parse()) {
        None => 2_000,
        Some(Ok(requests)) if requests > 0 => requests,
        Some(_) => return Err("accepted is one argument: REQUESTS, at least 1, or pinned".into()),
    };
    tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(tracing_subscriber::layer::Identity::new()),
    )?;
    let mut sites = String::new();
    println!("{requests} requests over {CONNECTIONS} connections; per request:");
    println!(
        "| server | bytes | escaped bytes, traced | share | blocks | escaped blocks, as it runs | pretenured bytes |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for case in CASES {
        let (left, report) = run_traced(case, requests)?;
        let plain = run(case, requests)?;
        let each = |number: u64| number as f64 / requests as f64;
        println!(
            "| {} | {:.0} | {:.1} | {:.2} % | {:.3} | {:.3} | {:.1} |",
            case.name,
            each(left.bytes),
            each(bytes(&report)),
            100.0 * bytes(&report) as f64 / left.bytes.max(1) as f64,
            each(left.escaped_blocks),
            each(plain.escaped_blocks),
            each(plain.pretenured_bytes)
        );
        sites.push_str(&format!("\n{}: {report}", case.name));
    }
    println!("{sites}");
    Ok(())
}
