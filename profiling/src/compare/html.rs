//! The results as a page for a browser: one file, without a script.

use std::fmt::Write;

use super::allocator::Kind;
use super::measure::{Plan, RowResult};
use super::numbers::{faults, mib, value};
use super::standing::{Standing, standings};
use super::table::LEGEND;

const STYLE: &str = "\
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #222 }
h2 { margin: 2em 0 0 } p { margin: .3em 0 }
table { border-collapse: collapse; width: 100% } th, td { padding: .15em .6em; text-align: right }
th { border-bottom: 1px solid #999; font-weight: 600 } td:first-child, th:first-child { text-align: left }
td.bar { width: 32%; text-align: left } td.bar div { background: #9ab; height: .8em }
tr.shockwave td.bar div { background: #d73 } tr.floor td, tr.bump td { color: #888 }
tr.best td { font-weight: 600 }";

/// The page.
pub fn page(plan: &Plan, results: &[RowResult]) -> String {
    let mut rows = String::new();
    for result in results {
        row(&mut rows, result);
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Shockwave beside its peers</title>\n\
         <style>\n{STYLE}\n</style>\n<h1>Shockwave beside its peers</h1>\n\
         <p>Each allocator in a process of its own, up to {} rounds interleaved, {:.3} s each, {:.1} s of silence.</p>\n\
         <p>{}</p>\n{rows}</html>\n",
        plan.rounds,
        plan.time.as_secs_f64(),
        plan.idle.as_secs_f64(),
        escaped(LEGEND).replace('\n', "<br>\n"),
    )
}

/// One row as a heading and a table.
fn row(page: &mut String, result: &RowResult) {
    let unit = result.row.unit();
    let standings = standings(result);
    let largest = standings.iter().map(|standing| standing.best).fold(0.0, f64::max);
    *page += &format!(
        "<h2>{}</h2>\n<p>{}</p>\n<table>\n<tr><th>allocator<th>{}<th>median<th>ratio<th><th>spread<th>peak MiB\
         <th>faults<th>\n",
        escaped(result.row.name()),
        escaped(result.row.operation()),
        escaped(unit.name()),
    );
    for standing in &standings {
        let share = if largest > 0.0 { 100.0 * standing.best.max(0.0) / largest } else { 0.0 };
        let cells = [
            value(unit, standing.best),
            value(unit, standing.summary.median),
            standing.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
            standing.mark().to_owned(),
            format!("{:.0} %", standing.summary.spread * 100.0),
            mib(standing.peak()),
            faults(standing.faults()),
        ];
        *page += &format!("<tr class=\"{}\"><td>{}", class(standing), escaped(standing.line.allocator.title));
        for cell in cells {
            *page += &format!("<td>{}", escaped(&cell));
        }
        // Writing to a string does not fail.
        let _ = writeln!(page, "<td class=\"bar\"><div style=\"width: {share:.1}%\"></div>");
    }
    *page += "</table>\n";
    for line in &result.lines {
        if let Err(reason) = &line.rounds {
            *page += &format!("<p>{} is left out: {}</p>\n", escaped(line.allocator.title), escaped(reason));
        }
    }
}

/// How the line of an allocator looks.
fn class(standing: &Standing) -> &'static str {
    match standing.line.allocator.kind {
        _ if standing.is_best_peer => "best",
        Kind::Shockwave => "shockwave",
        Kind::Floor => "floor",
        Kind::Bump => "bump",
        Kind::Peer | Kind::Meter => "peer",
    }
}

/// Text that HTML does not take for markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::compare::standing::tests::result;
    use profiling::Row;

    #[test]
    fn page_has_a_line_for_each_allocator_and_no_markup_from_outside() {
        let plan = Plan { rounds: 2, time: Duration::from_millis(150), idle: Duration::ZERO };
        let page = page(&plan, &[result(Row::Pair), result(Row::Burst)]);
        assert_eq!(page.matches("<h2>").count(), 2);
        assert_eq!(page.matches("class=\"best\"").count(), 2);
        // The slowest fills the width, the best peer half of it.
        assert!(page.contains("width: 100.0%") && page.contains("width: 50.0%"));
        assert_eq!(page.matches("jemalloc is left out: fails &lt;&amp;&gt;").count(), 2);
        assert!(!page.contains("<&>"));
    }
}
