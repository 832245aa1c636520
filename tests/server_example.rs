//! The example `server` as its users meet it: the comparison of the modes, serving, and what it says about
//! mistakes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Builds the example once and gives the path of its program, which cargo tells tests about only in its
/// messages.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", "server", "--message-format=json"]);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let output = cargo.stderr(Stdio::inherit()).output().expect("cargo starts");
        assert!(output.status.success(), "the example does not build");
        output
            .stdout
            .split(|&byte| byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "server")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the program")
    })
}

fn server(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env_remove("SHOCKWAVE_MODE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end. Servers that the program started hold its standard error as well, so that this returns
/// only after the last of them has ended.
fn run(arguments: &[&str]) -> Output {
    server(arguments).output().expect("the example starts")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("the example prints UTF-8")
}

/// The one line of a failure, which is all that the program prints.
fn complaint(arguments: &[&str]) -> String {
    let output = run(arguments);
    let stderr = text(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} is accepted");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(stderr.lines().count(), 1, "not one line: {stderr}");
    stderr.trim().to_owned()
}

#[test]
fn compares_the_modes_without_an_error() {
    let output = run(&["--seconds", "1", "--connections", "4"]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{table}\n{}", text(&output.stderr));

    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter_map(|line| line.strip_prefix('|'))
        .map(|line| line.trim_end_matches('|').split('|').map(str::trim).collect())
        .collect();
    let column = |name: &str| {
        let place = rows[0].iter().position(|&title| title == name);
        place.unwrap_or_else(|| panic!("no column {name}: {table}"))
    };
    for mode in ["standard", "slab", "arena"] {
        let row = rows.iter().find(|row| row[0] == mode).unwrap_or_else(|| panic!("no mode {mode}: {table}"));
        let number = |name| row[column(name)].parse::<f64>().expect("a number");
        assert!(number("requests/s") > 0.0, "{table}");
        assert!(number("peak MiB") > 0.0, "{table}");
        assert_eq!(number("errors"), 0.0, "{table}");
        // Requests have arenas in one mode only.
        assert_eq!(number("arena B/req") > 0.0, mode == "arena", "{table}");
    }
}

#[test]
fn a_bad_option_is_answered_with_what_is_accepted() {
    let line = complaint(&["--mode", "fast"]);
    for word in ["fast", "--mode", "standard", "slab", "arena"] {
        assert!(line.contains(word), "{word} is missing: {line}");
    }
    let line = complaint(&["--seconds", "0"]);
    assert!(line.contains("--seconds") && line.contains("1..=3600"), "{line}");
    let line = complaint(&["--moed", "slab"]);
    assert!(line.contains("--moed") && line.contains("--mode") && line.contains("--listen"), "{line}");
}

#[test]
fn an_address_that_cannot_be_bound_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    assert!(complaint(&["--listen", &address]).contains(&address));
    assert!(complaint(&["--listen", "nowhere"]).contains("nowhere"));
}

/// A server that is killed when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(status.expect("kill starts").success());
    }

    /// Waits for its end and gives the exit code.
    fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(20), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn rest_of_stderr(&mut self) -> String {
        let mut rest = String::new();
        self.0.stderr.take().expect("it is piped").read_to_string(&mut rest).expect("UTF-8");
        rest
    }
}

/// A server that listens, its output after the first line, and its address.
fn listening(mode: &str) -> (Running, BufReader<ChildStdout>, String) {
    let mut child = server(&["--listen", "127.0.0.1:0", "--mode", mode]).spawn().expect("the example starts");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let running = Running(child);
    let mut line = String::new();
    output.read_line(&mut line).expect("UTF-8");
    assert!(line.trim().ends_with(&format!("in mode {mode}")), "{line}");
    let address = line.strip_prefix("listening on http://").expect("the address").split(' ').next();
    (running, output, address.expect("the address").to_owned())
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[cfg(unix)]
#[test]
fn serves_until_it_is_interrupted_and_then_prints_statistics() {
    let (mut server, mut output, address) = listening("slab");
    assert!(get(&address, "/hello").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/users/1").contains(r#"{"id":1,"variant":1,"#));
    assert!(get(&address, "/users/1000000000").starts_with("HTTP/1.1 404"));
    assert!(get(&address, "/stats.json").contains(r#""mode":"slab""#));
    let stats = get(&address, "/stats");
    assert!(stats.starts_with("HTTP/1.1 200") && stats.lines().count() > 3, "{stats}");

    server.interrupt();
    let mut last = String::new();
    output.read_to_string(&mut last).expect("UTF-8");
    assert_eq!(server.ended(), Some(0));
    assert!(!last.trim().is_empty(), "no statistics at the end");
    assert_eq!(server.rest_of_stderr(), "");
}

#[cfg(unix)]
#[test]
fn an_interrupted_comparison_leaves_no_server_behind() {
    let mut comparison = Running(server(&["--seconds", "60"]).spawn().expect("the example starts"));
    // Long enough for the first server to be under load; the test holds wherever the interrupt falls after
    // the start.
    std::thread::sleep(Duration::from_secs(2));
    comparison.interrupt();
    assert_eq!(comparison.ended(), Some(1));
    // Ends only when the server, which shares it, is gone as well.
    let stderr = comparison.rest_of_stderr();
    assert!(stderr.contains("interrupted"), "{stderr}");
}
