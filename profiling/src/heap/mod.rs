//! `heap`: the example server on Shockwave over dhat, a process for each mode, and what of its requests reaches the
//! heap of the system.

mod counters;
mod profile;
mod report;
mod server;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::ProgressBar;

use crate::client::Connection;
use crate::load::drive;
use crate::traffic::Traffic;
use counters::Counters;
use profile::Profile;
use server::Server;

/// The modes, in the order of the table.
const MODES: [&str; 3] = ["standard", "slab", "arena"];
/// Connections of the load. dhat runs one allocation at a time, so that more would only wait.
const CONNECTIONS: usize = 8;
/// Load before the counters are read for the first time: what is set up once is no request's.
const WARM_UP: Duration = Duration::from_secs(1);

/// Which modes to look at, and for how long.
#[derive(Debug, Args)]
pub struct HeapOptions {
    /// Only this mode
    #[arg(long, value_parser = PossibleValuesParser::new(MODES))]
    mode: Option<String>,

    /// Seconds of load per mode
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// What one mode has shown.
struct Run {
    mode: &'static str,
    /// Requests between the two readings of the counters.
    requests: u64,
    before: Counters,
    after: Counters,
    profile: Profile,
    file: PathBuf,
}

/// Runs the server in the modes that `options` asks for; an error is one line.
pub fn heap(options: &HeapOptions) -> Result<(), String> {
    let modes = MODES.into_iter().filter(|mode| options.mode.as_deref().is_none_or(|named| named == *mode));
    let modes: Vec<&str> = modes.collect();
    let files: Vec<PathBuf> = modes.iter().map(|mode| format!("dhat-heap-{mode}.json").into()).collect();
    // Before anything takes time, and so that no older profile is taken for a new one.
    files.iter().try_for_each(|file| empty(file))?;

    let bar = ProgressBar::new_spinner().with_message("building the server");
    bar.enable_steady_tick(Duration::from_millis(100));
    let program = server::build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
    let mut runs = Vec::with_capacity(modes.len());
    for (mode, file) in modes.into_iter().zip(files) {
        let run = runtime.block_on(run(&program, mode, file, Duration::from_secs(options.seconds), &bar));
        runs.push(run.map_err(|reason| format!("mode {mode}: {reason}"))?);
    }
    bar.finish_and_clear();
    println!("{}", report::render(&runs, options.seconds));
    Ok(())
}

/// Makes sure that `file` can be written to.
fn empty(file: &Path) -> Result<(), String> {
    fs::write(file, "").map_err(|error| format!("cannot write {}: {error}", file.display()))
}

async fn run(
    program: &Path,
    mode: &'static str,
    file: PathBuf,
    time: Duration,
    bar: &ProgressBar,
) -> Result<Run, String> {
    bar.set_message(format!("{mode}: warming up"));
    let server = Server::start(program, mode, &file)?;
    let address = server.address();
    let traffic = Arc::new(Traffic::prepare());
    let warm_up = drive(address, &traffic, CONNECTIONS, WARM_UP, |_| {}).await;
    let before = counters(address).await?;
    let load = drive(address, &traffic, CONNECTIONS, time, |answered| {
        bar.set_message(format!("{mode}: {answered} requests"));
    })
    .await;
    let after = counters(address).await?;
    bar.set_message(format!("{mode}: writing the profile"));
    server.stop()?;
    if let Some(error) = warm_up.first_error.or(load.first_error) {
        return Err(format!("a request failed: {error}"));
    }
    if load.requests == 0 {
        return Err("no request was answered; --seconds accepts more".to_owned());
    }
    let text =
        fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let profile = Profile::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Run { mode, requests: load.requests, before, after, profile, file })
}

/// Asks the server for its counters.
async fn counters(address: SocketAddr) -> Result<Counters, String> {
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", counters::PATH);
    let unanswered = |error| format!("{} was not answered: {error}", counters::PATH);
    let mut connection = Connection::open(address).await.map_err(unanswered)?;
    let answer = connection.exchange(request.as_bytes()).await.map_err(unanswered)?;
    serde_json::from_slice(answer.body)
        .map_err(|error| format!("{} is not understood: {error}", counters::PATH))
}
