//! The command line. A mistake in it is answered by one line: what is wrong, and what is accepted.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use profiling::command_line;

/// What there are servers over: the modes of Shockwave, and other allocators.
const SERVERS: [&str; 6] = ["standard", "slab", "arena", "system", "mimalloc", "jemalloc"];

/// Load on the example server over each allocator.
#[derive(Debug, Parser)]
#[command(name = "load", arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Requests per second, p99 and resident memory, allocators in turn in each round
    Rates(Rates),
    /// Keep-alive and new connections, slow readers, aborted uploads, clients that disappear; answers verified
    Soak(Soak),
    /// Resident memory with idle connections, and with requests that wait in a handler
    Connections(Connections),
}

/// Options of `rates`.
#[derive(Debug, Args)]
pub struct Rates {
    /// Allocators, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "standard,slab,arena,mimalloc,jemalloc")]
    #[arg(value_parser = PossibleValuesParser::new(SERVERS))]
    pub servers: Vec<String>,
    /// Worker threads of the server
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: u32,
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Seconds of each allocator and path in a round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Connections, at least two: one for each thread of wrk
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=50_000))]
    pub connections: u32,
    /// Paths, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "/hello,/users/7,/users", value_parser = path)]
    pub paths: Vec<String>,
}

/// Options of `soak`.
#[derive(Debug, Args)]
pub struct Soak {
    /// Servers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "standard,slab,arena")]
    #[arg(value_parser = PossibleValuesParser::new(SERVERS))]
    pub servers: Vec<String>,
    /// Worker threads of the server
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: u32,
    /// Seconds per server
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
}

/// Options of `connections`.
#[derive(Debug, Args)]
pub struct Connections {
    /// Allocators, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "standard,slab,arena,mimalloc,jemalloc")]
    #[arg(value_parser = PossibleValuesParser::new(SERVERS))]
    pub servers: Vec<String>,
    /// Worker threads of the server
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: u32,
    /// Connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub count: u32,
}

/// Reads the command line of the process. The error is the code to exit with, once the reason is printed; asking for help is
/// no mistake.
pub fn parse() -> Result<Command, ExitCode> {
    Cli::try_parse().map(|cli| cli.command).map_err(|error| command_line::answer(&error))
}

fn path(text: &str) -> Result<String, String> {
    let right = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    right.then(|| text.to_owned()).ok_or_else(|| "accepted: a path that begins with /".to_owned())
}

#[cfg(test)]
mod tests {
    use profiling::command_line::one_line;

    use super::*;

    fn parsed(arguments: &str) -> Result<Command, String> {
        let arguments = std::iter::once("load").chain(arguments.split_whitespace());
        Cli::try_parse_from(arguments).map(|cli| cli.command).map_err(|error| one_line(&error))
    }

    #[test]
    fn defaults_are_those_of_the_documented_commands() {
        let Ok(Command::Rates(rates)) = parsed("rates") else { panic!("rates") };
        assert_eq!(rates.servers, ["standard", "slab", "arena", "mimalloc", "jemalloc"]);
        assert_eq!((rates.workers, rates.rounds, rates.seconds, rates.connections), (2, 5, 5, 64));
        assert_eq!(rates.paths, ["/hello", "/users/7", "/users"]);
        let Ok(Command::Soak(soak)) = parsed("soak") else { panic!("soak") };
        assert_eq!(
            (soak.servers.join(","), soak.workers, soak.seconds),
            ("standard,slab,arena".into(), 2, 600)
        );
        let Ok(Command::Connections(connections)) = parsed("connections") else { panic!("connections") };
        assert_eq!((connections.servers.len(), connections.workers, connections.count), (5, 2, 10_000));
    }

    #[test]
    fn options_choose() {
        let Ok(Command::Rates(rates)) = parsed("rates --servers arena,system --paths /a,/b?c=1 --rounds 1")
        else {
            panic!("rates")
        };
        assert_eq!((rates.servers, rates.rounds), (vec!["arena".to_owned(), "system".to_owned()], 1));
        assert_eq!(rates.paths, ["/a", "/b?c=1"]);
        let Ok(Command::Soak(soak)) = parsed("soak --seconds 20 --workers 1") else { panic!("soak") };
        assert_eq!((soak.seconds, soak.workers), (20, 1));
    }

    #[test]
    fn a_mistake_is_one_line_that_says_what_is_accepted() {
        for (arguments, wrong, accepted) in [
            ("", "subcommand", "rates, soak, connections"),
            ("rate", "'rate'", "'rates'"),
            (
                "rates --servers arena,tcmalloc",
                "'tcmalloc'",
                "standard, slab, arena, system, mimalloc, jemalloc",
            ),
            ("rates --rounds 0", "'0'", "1..=1000"),
            ("rates --seconds soon", "'soon'", "invalid digit"),
            ("rates --connections 1", "'1'", "2..=50000"),
            ("rates --paths users", "'users'", "begins with /"),
            ("rates --round 3", "'--round'", "--rounds"),
            ("soak --seconds 0", "'0'", "1..=86400"),
            ("soak --servers fast", "'fast'", "arena"),
            ("soak --workers 0", "'0'", "1..=1024"),
            ("connections --count 0", "'0'", "1..=50000"),
            ("connections many", "'many'", "load connections"),
        ] {
            let line = parsed(arguments).expect_err(arguments);
            assert!(line.starts_with("error: "), "{line}");
            assert!(line.contains(wrong) && line.contains(accepted), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }
}
