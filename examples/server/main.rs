//! A JSON server on axum and tokio with Shockwave as its global allocator, and a load that compares the three
//! modes.
//!
//! ```text
//! cargo run --release --example server                             # compare the modes, print a table
//! cargo run --release --example server -- --listen 127.0.0.1:8080  # serve, for curl or wrk, until Ctrl-C
//! ```
//!
//! The comparison starts this program again once per mode (`SHOCKWAVE_MODE` selects it), because only a
//! process of its own has memory that no other mode has shaped. Requests are real HTTP/1.1 over loopback, and
//! each answer is compared with what it has to be.

mod api;
mod client;
mod load;
mod measure;
mod process;
mod report;
mod sample;
mod serve;
mod store;
mod traffic;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use shockwave_alloc::{Mode, Shockwave, set_mode};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// What `main` prints in one line.
type Failure = Box<dyn Error + Send + Sync>;

/// A real server under a real load, in each mode of the allocator.
#[derive(Parser)]
#[command(name = "server")]
struct Args {
    /// Serve on HOST:PORT until Ctrl-C instead of comparing the modes
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Only this mode; with --listen it goes before SHOCKWAVE_MODE
    #[arg(long, value_parser = PossibleValuesParser::new(MODES.map(|mode| mode.0))
        .try_map(|name| name.parse::<Mode>().map_err(|error| error.to_string())))]
    mode: Option<Mode>,

    /// Seconds of load per mode
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Connections that send requests at the same time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,

    /// Worker threads of the server [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,

    /// End when standard input ends: how a comparison keeps its servers from outliving it
    #[arg(long, hide = true, requires = "listen")]
    supervised: bool,
}

/// The modes by the names that the command line and `SHOCKWAVE_MODE` accept, in the order of the table.
const MODES: [(&str, Mode); 3] = [("standard", Mode::Standard), ("slab", Mode::Slab), ("arena", Mode::Arena)];

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            eprintln!("{}", one_line(&error));
            return ExitCode::from(2);
        }
    };
    let result = match &args.listen {
        Some(address) => listen(&args, address),
        None => compare(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn listen(args: &Args, address: &str) -> Result<(), Failure> {
    if let Some(mode) = args.mode {
        set_mode(mode);
    }
    runtime(args.workers.map_or_else(cores, usize::from))?.block_on(serve::serve(address, args.supervised))
}

fn compare(args: &Args) -> Result<(), Failure> {
    let plan = measure::Plan {
        turns: args.seconds,
        connections: usize::from(args.connections),
        workers: args.workers.map_or_else(cores, usize::from),
    };
    let modes: Vec<Mode> = match args.mode {
        Some(mode) => vec![mode],
        None => MODES.map(|(_, mode)| mode).to_vec(),
    };
    // The load takes half of the cores at most: the server is what is measured.
    let rows = runtime((cores() / 2).max(1))?.block_on(async {
        // Dropping the measurement ends the servers that it started.
        tokio::select! {
            rows = measure::measure(&modes, &plan) => rows,
            _ = tokio::signal::ctrl_c() => Err("interrupted before the comparison was complete".into()),
        }
    })?;

    // A reader that went away (`| head`) is no reason to panic.
    let _ = writeln!(std::io::stdout(), "{}", report::render(&rows, &plan));
    match rows.iter().find(|row| row.load.errors > 0 || row.load.requests == 0) {
        None => Ok(()),
        Some(row) => Err(format!(
            "{} of {} requests failed in mode {}; the first: {}",
            row.load.errors,
            row.load.errors + row.load.requests,
            row.mode,
            row.load.first_error.as_deref().unwrap_or("no request was answered"),
        )
        .into()),
    }
}

fn runtime(workers: usize) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all().build().map_err(|error| {
        format!("cannot start a runtime of {workers} threads: {error}; --workers accepts fewer").into()
    })
}

fn cores() -> usize {
    available_parallelism().map_or(1, |cores| cores.get())
}

/// clap's message without its usage and hints, in one line that ends with what is accepted.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut line = String::new();
    for part in text.lines().map(str::trim).take_while(|part| !part.starts_with("Usage:")) {
        if !part.is_empty() && !part.starts_with("For more information") {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(part);
        }
    }
    if error.kind() == ErrorKind::UnknownArgument {
        line.push_str("; accepted:");
        for option in Args::command().get_arguments().filter(|option| !option.is_hide_set()) {
            line.push_str(" --");
            line.push_str(option.get_long().unwrap_or_default());
        }
    }
    line
}
