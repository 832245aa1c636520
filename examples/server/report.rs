//! The table at the end of a comparison.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::measure::{Plan, REST, Row};

/// The rows as a table, under a line that says what was measured.
pub fn render(rows: &[Row], plan: &Plan) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "mode".to_owned(),
        "requests/s".to_owned(),
        "p50 us".to_owned(),
        "p99 us".to_owned(),
        "p99.9 us".to_owned(),
        "peak MiB".to_owned(),
        format!("MiB {} s later", REST.as_secs()),
        "backing calls/req".to_owned(),
        "arena B/req".to_owned(),
        "escaped/req".to_owned(),
        "errors".to_owned(),
    ]);
    for row in rows {
        let micros = |quantile| format!("{:.0}", row.load.latency(quantile).as_secs_f64() * 1e6);
        table.add_row([
            row.mode.to_string(),
            format!("{:.0}", row.load.rate()),
            micros(0.5),
            micros(0.99),
            micros(0.999),
            mebibytes(row.peak_bytes),
            mebibytes(row.rested_bytes),
            format!("{:.2}", row.backing_calls),
            format!("{:.0}", row.arena_bytes),
            format!("{:.2}", row.escaped_blocks),
            row.load.errors.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "{} s per mode in turns of a second, {} connections, {} workers; every answer was verified\n\n{table}",
        plan.turns, plan.connections, plan.workers
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / (1024.0 * 1024.0))
}
