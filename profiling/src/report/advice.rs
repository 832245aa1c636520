//! Where each mode loses, and when to use which: sentences chosen by the numbers.

use profiling::bench::Workload;

use super::results::{ARENA, Contest, MODES, Measured, Results, STANDARD, mean_ratio};
use super::text::{prose_table, ratio};

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
    /// In how many rows of time it wins, alone or with others.
    wins: usize,
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
        let wins = format!("{} of {}", one.wins, times.len());
        [name, ratio(one.time), in_flight, wins, choice(results, &overall, mode)]
    });
    format!(
        "## Where each mode loses

With how many times the best mode's time, or memory, it takes.

{}
## When to use which mode

Time (without `throughput`) and memory in flight are means (geometric) over the rows, as multiples of standard's.
Fastest counts shared wins.

{}",
        prose_table(["mode", "loses time in", "loses memory in"], losses),
        prose_table(
            ["mode", "time", "memory in flight", "fastest in", "take it when"],
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

/// The rows in processor time. Wall time has what other programs do in it, so it has no part in the means.
fn steady_rows(results: &Results) -> impl Iterator<Item = &Measured> {
    const WALL_TIME: [Workload; 3] =
        [Workload::ThroughputOne, Workload::ThroughputTwo, Workload::ThroughputPooled];
    results.rows.iter().filter(|row| !WALL_TIME.contains(&row.workload))
}

impl Overall {
    fn of(results: &Results, mode: usize) -> Overall {
        let ratios =
            steady_rows(results).map(|row| row.times.modes[mode].min / row.times.modes[STANDARD].min);
        let in_flight = || results.memory_rows().filter(|row| row.in_flight().is_some());
        let values = in_flight().filter_map(|row| row.memory()).map(|contest| contest.values);
        let wins = results.times().into_iter().filter(|contest| contest.winners.contains(&mode));
        Overall {
            time: mean_ratio(ratios),
            in_flight: in_flight()
                .next()
                .map(|_| mean_ratio(values.map(|values| values[mode] / values[STANDARD]))),
            wins: wins.count(),
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
    if reasons.is_empty() && one.wins > 0 {
        reasons.push("the program does what it wins in, see above".to_owned());
    }
    let mut text = if reasons.is_empty() { "no row speaks for it".to_owned() } else { reasons.join(", or ") };
    if mode == STANDARD {
        let over = steady_rows(results).map(|row| row.times.modes[STANDARD].min / row.times.control.min);
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
