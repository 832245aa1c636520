//! What the original says about its modes, and what is measured here.
//!
//! The original's modes are pools in a language with a collector, ours are allocators and pools over them; the
//! comparison is of what a program gains by choosing the mode of that name.

use profiling::bench::Workload;

use super::results::{ARENA, MODES, Measured, Results, SLAB, STANDARD};
use super::text::{digits, list, prose_table, ratio};
use crate::compare::stats::Summary;

/// Rounds of wall time that spread by more say nothing about how two threads share a machine.
const STEADY: f64 = 0.25;

/// The section.
pub fn section(results: &Results) -> String {
    let rows = [
        typical(results),
        large(results),
        headers(results),
        throughput(results),
        scaling(results),
        locality(results),
        calls(results, Workload::TypicalRequest, "Standard: zero allocations for typical requests", STANDARD),
        calls(results, Workload::ManyHeaders, "Green Tea: 80 % fewer allocations with many headers", SLAB),
        memory(results),
        arena_fast(results),
        arena_pressure(results),
        arena_memory(results),
    ];
    format!(
        "## The claims of the original, and these rows

The original is the memory package of the Go library Shockwave, from which the modes have their names: its Standard
Pool, its Green Tea (here slab) and its Arena. Its modes are pools beside a collector; ours are allocators, and pools
over them (`pooled`). So a row cannot prove a claim about the original wrong; it says whether the claim is true of the
mode of that name here. Verdicts of several workloads are in their order.

{}",
        prose_table(["claim", "measured", "here"], rows)
    )
}

/// A claim, what was measured, and the verdict.
type Row = [String; 3];

fn row(claim: &str, measured: String, verdict: &str) -> Row {
    [claim.to_owned(), measured, verdict.to_owned()]
}

/// Whether `fast` is `times` times faster than `slow`.
fn faster(fast: &Summary, slow: &Summary, times: f64) -> &'static str {
    match (fast.differs_from(slow), fast.min < slow.min) {
        (false, _) => "not true, they cannot be told apart",
        (true, true) if slow.min >= fast.min * times => "true",
        (true, true) => "faster, but not by as much",
        (true, false) => "not true, the reverse is",
    }
}

/// Says whether `fast` beats `slow`, and by what, in each of `workloads`.
fn duel(
    results: &Results,
    claim: &str,
    workloads: &[Workload],
    [fast, slow]: [usize; 2],
    times_faster: f64,
) -> Row {
    let times = |workload: &Workload| {
        let times = &results.row(*workload).times.modes;
        (times[fast], times[slow])
    };
    let measured: Vec<String> = workloads
        .iter()
        .map(|workload| {
            let (fast, slow) = times(workload);
            format!("{} in `{}`", ratio(fast.min / slow.min), workload.name())
        })
        .collect();
    let verdicts: Vec<&str> = workloads
        .iter()
        .map(|workload| {
            let (fast, slow) = times(workload);
            faster(&fast, &slow, times_faster)
        })
        .collect();
    let verdict = match verdicts.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => (*first).to_owned(),
        all => all.join("; "),
    };
    row(claim, format!("{} over {}, time: {}", MODES[fast], MODES[slow], list(&measured)), &verdict)
}

fn typical(results: &Results) -> Row {
    let claim = "Standard is 2.5 times faster than Green Tea on the typical request";
    duel(results, claim, &[Workload::TypicalRequest, Workload::TypicalPooled], [STANDARD, SLAB], 2.5)
}

fn large(results: &Results) -> Row {
    let claim = "Standard is 2.8 times faster on the large request";
    duel(results, claim, &[Workload::LargeRequest, Workload::LargePooled], [STANDARD, SLAB], 2.8)
}

fn headers(results: &Results) -> Row {
    let claim = "Green Tea is 1.4 times faster with many headers";
    duel(results, claim, &[Workload::ManyHeaders, Workload::ManyPooled], [SLAB, STANDARD], 1.4)
}

fn throughput(results: &Results) -> Row {
    let claim = "Standard is 20 times faster in parallel";
    duel(results, claim, &[Workload::ThroughputTwo, Workload::ThroughputPooled], [STANDARD, SLAB], 20.0)
}

fn locality(results: &Results) -> Row {
    let claim = "cache locality does not help (Green Tea is slower when 100 live requests are read)";
    duel(results, claim, &[Workload::LocalityRead], [STANDARD, SLAB], 1.0)
}

fn scaling(results: &Results) -> Row {
    let speed = |mode: usize| {
        let time = |workload| results.row(workload).times.modes[mode].min;
        time(Workload::ThroughputOne) / time(Workload::ThroughputTwo)
    };
    let speeds: Vec<String> =
        (0..MODES.len()).map(|mode| format!("{} {}", MODES[mode], ratio(speed(mode)))).collect();
    let of_both = |workload| [STANDARD, SLAB].map(|mode| results.row(workload).times.modes[mode].spread);
    let spreads = [Workload::ThroughputOne, Workload::ThroughputTwo].map(of_both);
    let verdict = match spreads.as_flattened().iter().all(|spread| *spread < STEADY) {
        false => "cannot be told: the rounds spread too far",
        true if speed(SLAB) >= speed(STANDARD) * 0.95 => "not true",
        true => "true",
    };
    row(
        "Green Tea suffers from contention when run in parallel, Standard scales",
        format!("two threads over one, in requests per second: {}", speeds.join(", ")),
        verdict,
    )
}

fn calls(results: &Results, workload: Workload, claim: &str, mode: usize) -> Row {
    let measured = results.row(workload);
    let reach = |mode: usize| measured.figures.modes[mode].backing_calls;
    let (Some((asked, _)), [Some(standard), Some(slab), Some(arena)]) =
        (measured.asked, [STANDARD, SLAB, ARENA].map(reach))
    else {
        return row(claim, "not measured".to_owned(), "unknown");
    };
    let here = [standard, slab, arena][mode];
    let wanted = if mode == STANDARD { 0.0 } else { standard * 0.2 };
    let text = format!(
        "`{}`: the program makes {} calls; to the backing heap go {}, {} and {}",
        workload.name(),
        digits(asked),
        digits(standard),
        digits(slab),
        digits(arena)
    );
    row(claim, text, if here <= wanted { "true" } else { "not true" })
}

/// Resident memory of a request in flight, in the three modes.
fn in_flight(measured: &Measured) -> Option<[f64; 3]> {
    measured.in_flight().and_then(|_| measured.memory_values()).map(|values| values.modes)
}

fn memory(results: &Results) -> Row {
    let claim = "Green Tea takes 52 % less memory per request";
    let Some(values) = in_flight(results.row(Workload::TypicalRequest)) else {
        return row(claim, "not measured".to_owned(), "unknown");
    };
    let share = values[SLAB] / values[STANDARD];
    let verdict = match share {
        ..0.5 => "true",
        0.5..0.98 => "less, but not by as much",
        0.98..1.02 => "not true, no difference",
        _ => "not true, it takes more",
    };
    row(claim, format!("a typical request in flight takes {} of standard's memory", ratio(share)), verdict)
}

fn arena_fast(results: &Results) -> Row {
    let contests = results.times();
    let won = contests.iter().filter(|contest| contest.winners.contains(&ARENA)).count();
    let verdict = if won == contests.len() { "true of every row" } else { "true of a part" };
    let verdict = if won == 0 { "not true" } else { verdict };
    let text = format!("fastest, alone or shared, in {won} of {} rows", contests.len());
    row("Arena: best theoretical performance", text, verdict)
}

fn arena_pressure(results: &Results) -> Row {
    let claim = "Arena: no pressure on the heap, memory is freed as a whole";
    let memory = |workload| results.row(workload).memory_values().map(|values| values.modes);
    let (Some(unmodified), Some(outside)) = (memory(Workload::Pressure), memory(Workload::PressureOutside))
    else {
        return row(claim, "not measured".to_owned(), "unknown");
    };
    let text = format!(
        "beside a live heap: {} times the live bytes when entries are left in the arena, {} when made outside it; \
         slab {}",
        ratio(unmodified[ARENA]),
        ratio(outside[ARENA]),
        ratio(unmodified[SLAB])
    );
    let within = |value: f64| value <= unmodified[SLAB] * 1.1;
    let verdict = match (within(unmodified[ARENA]), within(outside[ARENA])) {
        (true, _) => "true",
        (false, true) => "true only if nothing that outlives a request is in its arena",
        (false, false) => "not true",
    };
    row(claim, text, verdict)
}

fn arena_memory(results: &Results) -> Row {
    let claim = "Arena: predictable memory";
    let requests = [Workload::TypicalRequest, Workload::LargeRequest, Workload::ManyHeaders];
    let shares: Option<Vec<f64>> = requests
        .iter()
        .map(|workload| in_flight(results.row(*workload)).map(|values| values[ARENA] / values[STANDARD]))
        .collect();
    let Some(shares) = shares else { return row(claim, "not measured".to_owned(), "unknown") };
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    let most = shares.iter().copied().fold(0.0, f64::max);
    let text = format!("a request in flight takes {} to {} of standard's memory", ratio(least), ratio(most));
    row(claim, text, if most > 1.1 { "bounded, but at a price" } else { "true" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_rounds_that_differ() {
        let [fast, slow, noisy] =
            [[10.0, 10.1], [12.0, 12.1], [10.05, 13.0]].map(|it| Summary::of(&it).unwrap());
        assert_eq!(faster(&fast, &slow, 1.1), "true");
        assert_eq!(faster(&fast, &slow, 2.0), "faster, but not by as much");
        assert_eq!(faster(&slow, &fast, 1.1), "not true, the reverse is");
        assert_eq!(faster(&fast, &noisy, 1.0), "not true, they cannot be told apart");
    }

    #[test]
    fn each_workload_of_a_claim_has_its_verdict_unless_all_are_alike() {
        let rounds: [&[f64]; 4] = [&[30.0, 31.0], &[30.0, 31.0], &[10.0, 11.0], &[10.0, 11.0]];
        let alike: [&[f64]; 4] = [&[10.0; 2]; 4];
        let row = |workload, rounds| crate::report::results::tests::row(workload, rounds, [1000.0; 4]);
        let rows = Workload::ALL
            .map(|workload| row(workload, if workload == Workload::ManyPooled { alike } else { rounds }));
        let time = std::time::Duration::from_millis(5);
        let results = Results { rounds: 2, time, seconds: 1, rows: rows.into() };
        let [_, measured, verdict] = headers(&results);
        assert_eq!(
            measured,
            "slab over standard, time: 0.33 in `many_headers/serve` and 1.00 in `many_headers/pooled`"
        );
        assert_eq!(verdict, "true; not true, they cannot be told apart");
        assert_eq!(typical(&results)[2], "not true, the reverse is");
    }
}
