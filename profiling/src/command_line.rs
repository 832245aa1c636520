//! How mistakes on a command line are answered: on one line.

use std::process::ExitCode;

/// Answers what clap has to say instead of a command, and returns the code to exit with: asking for help is no mistake.
pub fn answer(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        eprintln!("{}", one_line(error));
        ExitCode::from(2)
    } else {
        // Nothing is left to do if standard output is closed.
        let _ = error.print();
        ExitCode::SUCCESS
    }
}

/// What clap says over several lines, on one and without the pointer to the help.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more"));
    lines.collect::<Vec<_>>().join("; ")
}
