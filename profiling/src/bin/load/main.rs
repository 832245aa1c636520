//! Load on the example server over each allocator: requests per second and tail, a soak with clients that misbehave, and
//! memory of many connections. Needs `wrk` in the path. `load --help` tells the commands.

#[path = "../../../../examples/server/api.rs"]
mod api;
mod cli;
#[path = "../../../../examples/server/client.rs"]
mod client;
mod connections;
mod misbehave;
mod oha;
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

use cli::Command;

/// What `main` prints in one line.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let command = match cli::parse() {
        Ok(command) => command,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            match &command {
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
