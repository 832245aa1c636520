//! The modes side by side.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::Run;
use super::counters::Counters;
use super::profile::Site;

/// Call sites that are shown of each mode.
const SITES: usize = 5;

/// Columns of a terminal that the call sites fill.
const WIDTH: u16 = 120;

/// Explains the figures, once, below them.
const LEGEND: &str = "\
system heap: what reaches the backing allocator, as dhat counts it; a reallocation is a block. Per request and Shockwave's
  own figures: between the warm-up and the end of the load. Peak and at exit: the whole process.
committed: what Shockwave may write to past the system heap, its own tables included; the OS provides what was touched.
live: bytes of blocks in use there when the load has ended; the stored users are among them, and the more requests
  there were the more users there are.
resident: with the records that dhat keeps of each live block.
arena: bytes that arenas were bumped through; to the slab: of small objects that a scope sent there, because their sizes
  tend to outlive requests. What new arenas leave to the slab while too many chunks are kept is in neither.
called by: the function of the server; empty if it is none, or the one that allocates.";

/// All tables.
pub fn render(runs: &[Run], seconds: u64) -> String {
    let mut text = format!("{seconds} s of load per mode on the example server; every answer was verified\n");
    text += &figures(runs).to_string();
    for run in runs {
        text += &format!("\n\n{}: ", run.mode);
        if run.profile.sites.is_empty() {
            text += "nothing reached the system heap";
        } else {
            text +=
                &format!("who asks the system heap for most bytes, of {} sites\n", run.profile.sites.len());
            text += &sites(run).to_string();
        }
    }
    text += &format!("\n\n{LEGEND}");
    for run in runs {
        text += &format!("\nwrote {}: open it in dh_view.html", run.file.display());
    }
    text
}

fn figures(runs: &[Run]) -> Table {
    let mut table = Table::new();
    let title = std::iter::once("").chain(runs.iter().map(|run| run.mode));
    table.load_style(UTF8_FULL_CONDENSED).set_header(title);
    type Figure = (&'static str, fn(&Run) -> String);
    let rows: [Figure; 13] = [
        ("requests", |run| run.requests.to_string()),
        ("system heap: blocks/request", |run| per_request(run, |counters| counters.total_blocks, 2)),
        ("system heap: bytes/request", |run| per_request(run, |counters| counters.total_bytes, 0)),
        ("system heap: peak", |run| kibibytes(run.profile.peak.bytes)),
        ("system heap: blocks at the peak", |run| run.profile.peak.blocks.to_string()),
        ("system heap: at exit", |run| {
            format!("{} B in {}", run.profile.exit.bytes, run.profile.exit.blocks)
        }),
        ("Shockwave: committed", |run| kibibytes(run.after.committed_bytes)),
        ("Shockwave: live", |run| kibibytes(run.after.live_bytes)),
        ("Shockwave: chunks kept by escaped blocks", |run| kibibytes(run.after.pinned_bytes)),
        ("process: resident", |run| kibibytes(run.after.resident_bytes)),
        ("Shockwave: arenas/request", |run| per_request(run, |counters| counters.arenas_closed, 2)),
        ("Shockwave: arena bytes/request", |run| per_request(run, |counters| counters.arena_bytes, 0)),
        ("Shockwave: bytes/request to the slab", |run| {
            per_request(run, |counters| counters.outside_bytes, 0)
        }),
    ];
    for (name, figure) in rows {
        table.add_row(std::iter::once(name.to_owned()).chain(runs.iter().map(figure)));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn sites(run: &Run) -> Table {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.load_style(UTF8_FULL_CONDENSED).set_header(["share", "KiB", "blocks", "function", "called by"]);
    for Site { function, caller, total } in run.profile.sites.iter().take(SITES) {
        table.add_row([
            format!("{:.1} %", 100.0 * total.bytes as f64 / run.profile.total.bytes.max(1) as f64),
            total.bytes.div_ceil(1024).to_string(),
            total.blocks.to_string(),
            function.clone(),
            caller.clone(),
        ]);
    }
    for column in table.column_iter_mut().take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn per_request(run: &Run, counter: fn(&Counters) -> u64, digits: usize) -> String {
    let counted = counter(&run.after).saturating_sub(counter(&run.before));
    match counted {
        // Not 0.00, which may also be few.
        0 => "0".to_owned(),
        _ => format!("{:.digits$}", counted as f64 / run.requests as f64),
    }
}

fn kibibytes(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}
