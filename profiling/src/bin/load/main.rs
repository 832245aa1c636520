//! Load on the example server over each allocator: requests per second and tail, a soak with clients that misbehave, and
//! memory of many connections. Needs `wrk` in the path. `load --help` tells the commands.

#[path = "../../../../examples/server/api.rs"]
mod api;
#[path = "../../../../examples/server/client.rs"]
mod client;
mod connections;
mod misbehave;
mod rates;
#[path = "../../../../examples/server/sample.rs"]
mod sample;
mod server;
mod soak;
#[allow(dead_code, reason = "servers use the rest")]
#[path = "../../../../examples/server/store.rs"]
mod store;
#[path = "../../../../examples/server/traffic.rs"]
mod traffic;
mod wrk;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What `main` prints in one line.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Load on the example server over each allocator.
#[derive(Parser)]
#[command(name = "load")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Requests per second, p99 and resident memory, allocators in turn in each round
    Rates(Rates),
    /// Keep-alive and new connections, slow readers, aborted uploads, clients that disappear; answers verified
    Soak(Soak),
    /// Resident memory with idle connections, and with requests that wait in a handler
    Connections(Connections),
}

#[derive(Args)]
struct Common {
    /// Allocators, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "standard,slab,arena,mimalloc,jemalloc")]
    servers: Vec<String>,

    /// Worker threads of the server
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

#[derive(Args)]
struct Rates {
    #[command(flatten)]
    common: Common,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each allocator and path in a round
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Paths, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "/hello,/users/7,/users")]
    paths: Vec<String>,
}

#[derive(Args)]
struct Soak {
    /// Servers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "standard,slab,arena")]
    servers: Vec<String>,
    /// Worker threads of the server
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Seconds per server
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

#[derive(Args)]
struct Connections {
    #[command(flatten)]
    common: Common,
    /// Connections
    #[arg(long, default_value_t = 10_000)]
    count: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            match &arguments.command {
                Command::Rates(rates) => rates::run(rates).await,
                Command::Soak(soak) => soak::run(soak).await,
                Command::Connections(connections) => connections::run(connections).await,
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
