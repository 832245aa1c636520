//! The command line. A mistake in it is answered by one line: what is wrong, and what is accepted.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use profiling::{Group, Row, command_line};

use super::allocator::{Allocator, Kind};
use super::measure::Plan;
use super::tail::TailOptions;
use crate::day::DayOptions;
use crate::heap::HeapOptions;
use crate::instructions::InstructionsOptions;
use crate::report::ReportOptions;

/// Stands for every row.
const ALL: &str = "all";

/// Stands for an empty list.
const NONE: &str = "none";

#[derive(Debug, Parser)]
#[command(name = "profiling", about = "Measures Shockwave beside its peers")]
#[command(arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compares the time per operation, each allocator in its own process, rounds interleaved
    Compare(CompareOptions),
    /// Memory over two days of a server, nights and spikes included, all allocators at the same time
    Day(DayOptions),
    /// Runs the example server on dhat: what of each request reaches the system heap, mode by mode
    Heap(HeapOptions),
    /// Times single allocations and single ends of requests: half, 99 %, 99.99 % and all of them take at most so long
    Tail(TailOptions),
    /// Counts the instructions of the shortest ways through each mode, with callgrind, beside a committed baseline
    Instructions(InstructionsOptions),
    /// Measures the workloads of `cargo bench` in every mode and writes MEMORY_MANAGEMENT_REPORT.md
    Report(ReportOptions),
}

/// Whom to measure.
#[derive(Debug, Args)]
pub struct Chosen {
    /// Whom to measure beside Shockwave, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = Allocator::peers().map(str::to_owned))]
    #[arg(value_parser = PossibleValuesParser::new(Allocator::peers().chain([NONE])))]
    peers: Vec<String>,

    /// Modes of Shockwave to measure, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = Allocator::modes().map(str::to_owned))]
    #[arg(value_parser = PossibleValuesParser::new(Allocator::modes().chain([NONE])))]
    modes: Vec<String>,
}

impl Chosen {
    /// The allocators to measure, in the order of the tables, each once.
    pub fn allocators(&self) -> Vec<&'static Allocator> {
        const ALL: &[Allocator] = &Allocator::ALL;
        let named = |allocator: &&Allocator| {
            let list = if allocator.kind == Kind::Shockwave { &self.modes } else { &self.peers };
            list.iter().any(|name| name == allocator.name)
        };
        ALL.iter().filter(named).collect()
    }
}

/// What to compare, and for how long.
#[derive(Debug, Args)]
pub struct CompareOptions {
    /// Rows to measure, or `all`, or a group of them: `usual`, which is measured if none is named, `ported`, `fragmented`
    #[arg(value_name = "ROW", value_parser = PossibleValuesParser::new(names()))]
    rows: Vec<String>,

    #[command(flatten)]
    chosen: Chosen,

    /// Rounds; in each, every allocator runs once. Rows that take long get fewer
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// How long one allocator is measured in a round, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.1", value_parser = seconds)]
    seconds_per_round: Duration,

    /// How long the rows wait that look at what goes back to the system, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    idle: Duration,

    /// Also writes the results, with every round, to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Also writes the tables to this file, as a page for a browser
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl CompareOptions {
    /// The rows to measure, in the order of [`Row::ALL`], each once.
    pub fn rows(&self) -> Vec<Row> {
        let named = |row: &Row| {
            let names = [row.name(), row.group().name(), ALL];
            match self.rows.is_empty() {
                true => row.group() == Group::Usual,
                false => self.rows.iter().any(|name| names.contains(&name.as_str())),
            }
        };
        Row::ALL.into_iter().filter(named).collect()
    }

    /// The allocators to measure.
    pub fn allocators(&self) -> Vec<&'static Allocator> {
        self.chosen.allocators()
    }

    /// How much to measure.
    pub fn plan(&self) -> Plan {
        Plan { rounds: self.rounds, time: self.seconds_per_round, idle: self.idle }
    }
}

/// What chooses rows.
fn names() -> impl Iterator<Item = &'static str> {
    Row::ALL.map(Row::name).into_iter().chain(Group::ALL.map(Group::name)).chain([ALL])
}

/// Reads the command line of the process. The error is the code to exit with, once the reason is printed;
/// asking for help is no mistake.
pub fn parse() -> Result<Command, ExitCode> {
    parse_from(std::env::args_os()).map_err(|error| command_line::answer(&error))
}

fn parse_from(
    arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
) -> clap::error::Result<Command> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches).map(|cli| cli.command)
}

/// A time from the command line.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().filter(|seconds| (0.001..=600.0).contains(seconds));
    number.map(Duration::from_secs_f64).ok_or_else(|| "accepted: seconds, from 0.001 to 600".to_owned())
}

#[cfg(test)]
mod tests {
    use profiling::command_line::one_line;

    use super::*;

    fn options(arguments: &str) -> Result<CompareOptions, String> {
        let arguments = ["profiling", "compare"].into_iter().chain(arguments.split_whitespace());
        match parse_from(arguments) {
            Ok(Command::Compare(options)) => Ok(options),
            Ok(other) => panic!("{other:?} is no comparison"),
            Err(error) => Err(one_line(&error)),
        }
    }

    fn allocators(options: &CompareOptions) -> Vec<&str> {
        options.allocators().iter().map(|allocator| allocator.name).collect()
    }

    #[test]
    fn without_arguments_the_usual_rows_are_measured_by_everyone() {
        let options = options("").unwrap();
        let rows = options.rows();
        assert!(rows.contains(&Row::Threads) && rows.iter().all(|row| row.group() == Group::Usual));
        assert_eq!(allocators(&options), Allocator::ALL.map(|allocator| allocator.name));
    }

    #[test]
    fn groups_choose() {
        assert_eq!(options("all").unwrap().rows(), Row::ALL);
        let rows = options("fragmented trace").unwrap().rows();
        assert_eq!(rows, [Row::Trace, Row::TypicalFragmented, Row::JsonFragmented]);
    }

    #[test]
    fn lists_choose_and_repetition_does_not_count() {
        let options =
            options("trace pair trace --peers snmalloc,mimalloc --modes none --seconds-per-round 1.5")
                .unwrap();
        assert_eq!(options.rows(), [Row::Pair, Row::Trace]);
        assert_eq!(allocators(&options), ["mimalloc", "snmalloc"]);
        assert_eq!(options.plan().time, Duration::from_millis(1500));
    }

    #[test]
    fn a_mistake_is_one_line_that_says_what_is_accepted() {
        for (arguments, wrong, accepted) in [
            ("trac", "'trac'", "pair, batch, trace"),
            ("--peers tcmalloc", "'tcmalloc'", "system, mimalloc"),
            ("--modes fast", "'fast'", "standard, slab, arena, none"),
            ("--rounds 0", "'0'", "1..=1000"),
            ("--seconds-per-round soon", "'soon'", "from 0.001 to 600"),
            ("--round 3", "'--round'", "--rounds"),
        ] {
            let line = options(arguments).unwrap_err();
            assert!(line.contains(wrong) && line.contains(accepted), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
        for (arguments, accepted) in [
            (["--mode", "fast"], "standard, slab, arena"),
            (["--seconds", "0"], "1..=600"),
            (["--modes", "slab"], "--mode"),
        ] {
            let line = one_line(&parse_from(["profiling", "heap"].into_iter().chain(arguments)).unwrap_err());
            assert!(line.contains(arguments[1]) || line.contains(arguments[0]), "{line}");
            assert!(line.contains(accepted) && !line.contains('\n'), "{line}");
        }
        for (arguments, accepted) in [
            (["--seconds", "19"], "20..=604800"),
            (["--rate", "fast"], "'--rate <R>'"),
            (["--peers", "none,tcmalloc"], "system, mimalloc"),
            (["--svgs", "a.svg"], "--svg"),
        ] {
            let line = one_line(&parse_from(["profiling", "day"].into_iter().chain(arguments)).unwrap_err());
            assert!(line.contains(accepted) && !line.contains('\n'), "{line}");
        }
        assert!(parse_from(["profiling"]).is_err_and(|error| one_line(&error).contains("compare")));
    }
}
