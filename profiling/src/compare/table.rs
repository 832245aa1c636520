//! The tables.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::measure::RowResult;
use super::numbers::{faults, mib, value};
use super::standing::standings;

/// Explains the tables, once, below them.
pub const LEGEND: &str = "\
ns: per operation, the fastest round; numbers about memory: the median round.
ratio: to the best peer; below 1 is better, above 1 where per cent are returned. spread: (max - min) / min.
~ the rounds do not tell the two apart (smallest round to upper quartile overlap).
peak: most MiB resident in the process. faults: page faults per 1000 operations, once it is warm.";

/// One row as a table, with a title above it.
pub fn table(result: &RowResult) -> String {
    let unit = result.row.unit();
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["allocator", unit.name(), "median", "ratio", "", "spread", "peak", "faults"]);
    for standing in standings(result) {
        table.add_row([
            standing.line.allocator.title,
            &value(unit, standing.best),
            &value(unit, standing.summary.median),
            &standing.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
            standing.mark(),
            &format!("{:.0} %", standing.summary.spread * 100.0),
            &mib(standing.peak()),
            &faults(standing.faults()),
        ]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::standing::tests::result;
    use profiling::Row;

    #[test]
    fn table_names_the_best_and_marks_what_cannot_be_told_apart() {
        let text = table(&result(Row::Pair));
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(line("system").contains("2.00") && !line("system").contains('~'));
        assert!(line("mimalloc").contains("best peer") && line("mimalloc").contains("2.50"));
        assert!(line("snmalloc").contains("1.05") && line("snmalloc").contains('~'));
        assert!(text.ends_with("jemalloc is left out: fails <&>"));
    }
}
