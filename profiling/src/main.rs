//! Measures Shockwave beside its peers: `cargo run --release -p profiling -- compare --help`, and looks at the heap
//! under the example server: `-- heap --help`. `-- instructions` counts what each call executes. `-- day` shows memory over two days. `-- report` writes the comparison of the modes down.

mod compare;
mod day;
mod heap;
mod instructions;
mod report;

// The requests of the example server. Its modules name each other from the root of their crate.
#[path = "../../examples/server/client.rs"]
mod client;
#[path = "../../examples/server/load.rs"]
#[allow(dead_code, reason = "rates and latencies mean nothing under a profiler")]
mod load;
#[path = "../../examples/server/sample.rs"]
#[allow(dead_code, reason = "the server uses the rest")]
mod sample;
#[path = "../../examples/server/store.rs"]
#[allow(dead_code, reason = "requests carry what the store keeps; the server uses the rest")]
mod store;
#[path = "../../examples/server/traffic.rs"]
mod traffic;

use std::process::ExitCode;

use compare::cli::Command;

fn main() -> ExitCode {
    let result = match compare::cli::parse() {
        Ok(Command::Compare(options)) => compare::compare(&options),
        Ok(Command::Day(options)) => day::day(&options),
        Ok(Command::Heap(options)) => heap::heap(&options),
        Ok(Command::Instructions(options)) => instructions::instructions(&options),
        Ok(Command::Tail(options)) => compare::tail::tail(&options),
        Ok(Command::Report(options)) => report::report(&options),
        Err(exit_code) => return exit_code,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
