//! Where each mode loses, and when to use which: sentences chosen by the numbers.

use profiling::bench::Workload;

use super::results::{Contest, MODES, Measured, Results, mean_ratio};
use super::text::{list, prose_table, ratio};

/// Index of the standard mode.
const STANDARD: usize = 0;
/// Index of the arena mode.
const ARENA: usize = 2;

/// A mean that differs by less from 1 is no reason to choose.
const NOTEWORTHY: f64 = 0.03;

/// Survivors of requests that cost more than this, over the same work with `outside_arena`, are worth a warning.
const COSTLY: f64 = 1.25;

/// What one mode shows over all rows.
struct Overall {
    /// Time over standard's, mean.
    time: f64,
    /// Memory in flight over standard's, mean.
    in_flight: Option<f64>,
    /// The rows of time where it wins or shares.
    wins: Vec<String>,
}

/// Both sections.
pub fn section(results: &Results) -> String {
    let times = results.times();
    let memory: Vec<Contest> = results.memory_rows().filter_map(Measured::memory).collect();
    let losses = (0..MODES.len()).map(|mode| {
        [MODES[mode].to_owned(), losses(&times, mode, "no row"), losses(&memory, mode, "no row")]
    });
    let overall: Vec<Overall> = (0..MODES.len()).map(|mode| Overall::of(results, mode)).collect();
    let choices = (0..MODES.len()).map(|mode| {
        let one = &overall[mode];
        let in_flight = one.in_flight.map_or_else(|| "?".to_owned(), ratio);
        let name = MODES[mode].to_owned();
        [name, ratio(one.time), in_flight, list(&one.wins), choice(results, &overall, mode)]
    });
    format!(
        "## Where each mode loses

With how many times the best mode's time, or memory, it takes.

{}
## When to use which mode

Time and memory in flight are means (geometric) over the rows, as multiples of standard's.

{}
",
        prose_table(["mode", "loses time in", "loses memory in"], losses),
        prose_table(
            ["mode", "time", "memory in flight", "fastest, alone or shared, in", "take it when"],
            choices
        ),
    )
}

/// The rows that `mode` does not win.
fn losses(contests: &[Contest], mode: usize, nothing: &str) -> String {
    let lost = contests.iter().filter(|contest| !contest.winners.contains(&mode));
    let lost: Vec<String> =
        lost.map(|contest| format!("`{}` {}x", contest.name, ratio(contest.behind(mode)))).collect();
    if lost.is_empty() { nothing.to_owned() } else { lost.join(", ") }
}

impl Overall {
    fn of(results: &Results, mode: usize) -> Overall {
        let ratios = results.rows.iter().map(|row| row.times.modes[mode].min / row.times.modes[STANDARD].min);
        let in_flight = || results.memory_rows().filter(|row| row.in_flight().is_some());
        let values = in_flight().filter_map(|row| row.memory()).map(|contest| contest.values);
        let wins = results.times().into_iter().filter(|contest| contest.winners.contains(&mode));
        Overall {
            time: mean_ratio(ratios),
            in_flight: in_flight()
                .next()
                .map(|_| mean_ratio(values.map(|values| values[mode] / values[STANDARD]))),
            wins: wins.map(|contest| format!("`{}`", contest.name)).collect(),
        }
    }
}

/// When to take `mode`, as far as the numbers say.
fn choice(results: &Results, overall: &[Overall], mode: usize) -> String {
    let least = |value: &dyn Fn(&Overall) -> f64| overall.iter().map(value).fold(f64::INFINITY, f64::min);
    let near = |value: f64, least: f64| value <= least * (1.0 + NOTEWORTHY);
    let one = &overall[mode];
    let mut reasons = Vec::new();
    if near(one.time, least(&|one| one.time)) {
        reasons.push("time over all these workloads counts most".to_owned());
    }
    let in_flight = |one: &Overall| one.in_flight.unwrap_or(f64::INFINITY);
    if one.in_flight.is_some_and(|value| near(value, least(&in_flight))) {
        reasons.push("many requests are in flight at once and memory counts most".to_owned());
    }
    if reasons.is_empty() && !one.wins.is_empty() {
        reasons.push("the rows that it wins are what the program does".to_owned());
    }
    let mut text = if reasons.is_empty() { "no row speaks for it".to_owned() } else { list(&reasons) };
    if mode == STANDARD {
        let over = results.rows.iter().map(|row| row.times.modes[STANDARD].min / row.times.control.min);
        text += &format!(
            "; it is the switch that turns the rest off, at {} of the time without Shockwave",
            ratio(mean_ratio(over))
        );
    }
    if mode == ARENA {
        text += &survivors(results).unwrap_or_default();
    }
    text
}

/// What blocks that outlive their request cost in an arena.
fn survivors(results: &Results) -> Option<String> {
    let memory = |workload| results.row(workload).memory().map(|contest| contest.values[ARENA]);
    let time = |workload: Workload| results.row(workload).times.modes[ARENA].min;
    let memory = memory(Workload::Pressure)? / memory(Workload::PressureOutside)?;
    let time = time(Workload::Pressure) / time(Workload::PressureOutside);
    (memory > COSTLY || time > COSTLY).then(|| {
        format!(
            "; and what outlives its request is made through `outside_arena`: else it takes {} times the memory \
             and {} times the time of that",
            ratio(memory),
            ratio(time)
        )
    })
}
