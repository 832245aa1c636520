//! Measures Shockwave beside its peers: `cargo run --release -p profiling -- compare --help`.

mod compare;

use std::process::ExitCode;

fn main() -> ExitCode {
    match compare::cli::parse() {
        Ok(compare::cli::Command::Compare(options)) => match compare::compare(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        },
        Err(exit_code) => exit_code,
    }
}
