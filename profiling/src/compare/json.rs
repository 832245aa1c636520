//! The results as JSON.

use serde_json::{Value, json};

use super::measure::{Line, Plan, RowResult};
use super::standing::{Standing, standings};

/// All rows with every round.
pub fn json(plan: &Plan, results: &[RowResult]) -> Value {
    let rows: Vec<Value> = results.iter().map(row).collect();
    json!({
        "rounds": plan.rounds,
        "seconds_per_round": plan.time.as_secs_f64(),
        "idle_seconds": plan.idle.as_secs_f64(),
        "rows": rows,
    })
}

fn row(result: &RowResult) -> Value {
    let standings = standings(result);
    let best_peer = standings.iter().find(|standing| standing.is_best_peer);
    let left_out = result.lines.iter().filter_map(|line| Some((line, line.rounds.as_ref().err()?)));
    let lines: Vec<Value> = standings
        .iter()
        .map(numbers)
        .chain(left_out.map(|(line, reason)| json!({ "name": line.allocator.name, "left_out": reason })))
        .collect();
    json!({
        "row": result.row.name(),
        "operation": result.row.operation(),
        "unit": result.row.unit().name(),
        "more_is_better": result.row.unit().more_is_better(),
        "best_peer": best_peer.map(|standing| standing.line.allocator.name),
        "allocators": lines,
    })
}

fn numbers(standing: &Standing) -> Value {
    json!({
        "name": standing.line.allocator.name,
        "best": standing.best,
        "median": standing.summary.median,
        "spread": standing.summary.spread,
        "ratio_to_best_peer": standing.ratio,
        "differs_from_best_peer": standing.differs,
        "peak_bytes": standing.peak(),
        "page_faults_per_1000": standing.faults(),
        "rounds": Line::values(standing.line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::standing::tests::result;
    use profiling::Row;

    #[test]
    fn json_holds_every_round() {
        let row = row(&result(Row::Pair));
        assert_eq!((&row["best_peer"], &row["unit"]), (&json!("mimalloc"), &json!("ns")));
        assert_eq!(row["allocators"][0]["rounds"], json!([20.0, 22.0]));
        assert_eq!(row["allocators"][0]["peak_bytes"], 3 << 20);
        assert_eq!(row["allocators"][3], json!({ "name": "jemalloc", "left_out": "fails <&>" }));
    }
}
