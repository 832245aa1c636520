//! Runs a test a second time in a process of its own, for what is decided when a process starts or ends.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::process::{Command, Output, Stdio};

/// Tells the process that it is the child, and which part it plays.
const PART: &str = "SHOCKWAVE_TEST_PART";

/// The part this process plays; `None` in the parent.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Runs the test `name` in a child where nothing else runs, not even the harness, and gives false; in that
/// child gives true.
pub fn alone(name: &str) -> bool {
    if part().is_none() {
        // What corrupts memory may well not end.
        run(command_after("ulimit -t 100", name, "alone"));
        return false;
    }
    // The harness has started this thread and allocates a little until it waits for its end.
    let at_rest = || {
        let stats = shockwave_alloc::stats();
        (stats.slab, stats.backing, stats.backing_calls)
    };
    let mut before = at_rest();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(60));
        let now = at_rest();
        if now == before {
            return true;
        }
        before = now;
    }
}

/// A command that runs the test `name` of this binary alone, as the child that plays `part`.
pub fn command(name: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
    prepare(&mut command, name, part);
    command
}

/// As [`command`], but in a shell that first runs `setup`, such as `ulimit -v 400000`.
pub fn command_after(setup: &str, name: &str, part: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{setup} && exec \"$0\" \"$@\""));
    command.arg(std::env::current_exe().expect("the path of this binary"));
    prepare(&mut command, name, part);
    command
}

fn prepare(command: &mut Command, name: &str, part: &str) {
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(PART, part);
    for variable in ["SHOCKWAVE_MODE", "SHOCKWAVE_SLAB_SIZE", "SHOCKWAVE_TRACE"] {
        command.env_remove(variable);
    }
    // Under a limit there is no room for symbols.
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::null());
}

/// Runs the child and gives its standard output and standard error. Panics if the child fails.
pub fn run(mut command: Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the child starts");
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(status.success(), "{command:?} ended with {status}\n{stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "the child ran no test\n{stdout}");
    (stdout, stderr)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("the child prints UTF-8")
}
