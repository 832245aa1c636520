//! The tables, and the same as JSON.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::allocator::Kind;
use super::measure::{Line, Plan, RowResult};
use super::stats::Summary;

/// Explains the tables, once, below them.
pub const LEGEND: &str = "\
ns per operation. ratio: fastest round to that of the best peer, below 1 is faster.
~ the rounds do not tell the two apart (fastest round to upper quartile overlap). spread: (max - min) / min.";

/// The peer with the fastest round.
fn best_peer(result: &RowResult) -> Option<(&Line, Summary)> {
    let peers = result.lines.iter().filter(|line| line.allocator.kind == Kind::Peer);
    let summaries = peers.filter_map(|line| Some((line, summary(line)?)));
    summaries.min_by(|(_, one), (_, other)| one.min.total_cmp(&other.min))
}

/// The numbers of a line, if it has any.
fn summary(line: &Line) -> Option<Summary> {
    line.rounds.as_ref().ok().and_then(|rounds| Summary::of(rounds))
}

/// One row as a table, with a title above it.
pub fn table(result: &RowResult) -> String {
    let best = best_peer(result);
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["allocator", "min", "median", "ratio", "", "spread"]);
    for line in &result.lines {
        let Some(summary) = summary(line) else { continue };
        let (ratio, mark) = match &best {
            Some((_, best)) if *best == summary => (format!("{:.2}", 1.0), "best peer"),
            Some((_, best)) => {
                (format!("{:.2}", summary.min / best.min), if summary.differs_from(best) { "" } else { "~" })
            }
            None => ("-".to_owned(), ""),
        };
        let spread = format!("{:.0} %", summary.spread * 100.0);
        let [min, median] = [summary.min, summary.median].map(nanoseconds);
        table.add_row([line.allocator.title, &min, &median, &ratio, mark, &spread]);
    }
    for column in table.column_iter_mut().filter(|column| ![0, 4].contains(&column.index)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{}: {}\n{table}", result.row.name(), result.row.operation());
    for line in &result.lines {
        if let Err(reason) = &line.rounds {
            text += &format!("\n{} is left out: {reason}", line.allocator.title);
        }
    }
    text
}

/// Three digits that count, and no more than a clock can tell.
fn nanoseconds(number: f64) -> String {
    match number {
        ..10.0 => format!("{number:.2}"),
        10.0..1000.0 => format!("{number:.1}"),
        _ => thousands(number.round() as u64),
    }
}

/// `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// All rows with every round, in nanoseconds per operation.
pub fn json(plan: &Plan, results: &[RowResult]) -> Value {
    let rows: Vec<Value> = results.iter().map(row_json).collect();
    json!({ "rounds": plan.rounds, "seconds_per_round": plan.time.as_secs_f64(), "rows": rows })
}

fn row_json(result: &RowResult) -> Value {
    let best = best_peer(result);
    let lines: Vec<Value> =
        result.lines.iter().map(|line| line_json(line, best.map(|(_, best)| best))).collect();
    json!({
        "row": result.row.name(),
        "operation": result.row.operation(),
        "best_peer": best.map(|(line, _)| line.allocator.name),
        "allocators": lines,
    })
}

fn line_json(line: &Line, best: Option<Summary>) -> Value {
    let name = line.allocator.name;
    match (&line.rounds, summary(line)) {
        (Ok(rounds), Some(summary)) => json!({
            "name": name,
            "min": summary.min,
            "median": summary.median,
            "spread": summary.spread,
            "ratio_to_best_peer": best.map(|best| summary.min / best.min),
            "differs_from_best_peer": best.map(|best| summary.differs_from(&best)),
            "rounds": rounds,
        }),
        (Err(reason), _) => json!({ "name": name, "left_out": reason }),
        (Ok(_), None) => json!({ "name": name, "left_out": "no rounds" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::allocator::Allocator;
    use profiling::Row;

    const ALL: &[Allocator] = &Allocator::ALL;

    fn result() -> RowResult {
        let rounds =
            [Ok(vec![20.0, 22.0]), Ok(vec![10.0, 11.0]), Err("fails".to_owned()), Ok(vec![10.5, 12.0])];
        let lines = ALL.iter().zip(rounds).map(|(allocator, rounds)| Line { allocator, rounds }).collect();
        RowResult { row: Row::Pair, lines }
    }

    #[test]
    fn table_names_the_best_and_marks_what_cannot_be_told_apart() {
        let text = table(&result());
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(line("system").contains("2.00") && !line("system").contains('~'));
        assert!(line("mimalloc").contains("best peer"));
        assert!(line("snmalloc").contains("1.05") && line("snmalloc").contains('~'));
        assert!(text.ends_with("jemalloc is left out: fails"));
    }

    #[test]
    fn json_holds_every_round() {
        let row = row_json(&result());
        assert_eq!(row["best_peer"], "mimalloc");
        assert_eq!(row["allocators"][0]["rounds"], json!([20.0, 22.0]));
        assert_eq!(row["allocators"][2]["left_out"], "fails");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [2.7512, 27.512, 275.12, 2751234.5].map(nanoseconds),
            ["2.75", "27.5", "275.1", "2,751,235"]
        );
    }
}
