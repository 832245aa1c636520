//! What the seconds of a run say about an allocator, as a table.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use profiling::workloads::day::{Curve, DAYS, Second};

use super::Course;
use crate::compare::allocator::Kind;
use crate::compare::numbers::{digits, mib};

/// Explains the table.
pub const LEGEND: &str = "\
area: under the curve of resident memory, in MiB x s; ratio: of that, to the best peer. peak: most MiB resident at once.
night: median of resident MiB in the last third of each night. p50, p99, max: us that requests took, own wait left out.
core: processor time of all threads, in per cent of one core. live: what requests and cache hold, at the ends of seconds.";

/// Nights of a run.
const NIGHTS: usize = DAYS as usize;

/// Memory of one allocator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Under its curve, in MiB times seconds.
    pub area: f64,
    /// The most bytes at the end of a second.
    pub most: u64,
    /// Median of the bytes in the last third of each night; `None` of a night that has no second in it.
    pub nights: [Option<u64>; NIGHTS],
}

impl Memory {
    /// Sums `seconds` up, of which each has some `bytes`.
    pub fn of(curve: &Curve, seconds: &[Second], bytes: impl Fn(&Second) -> u64) -> Self {
        let points: Vec<(f64, u64)> = seconds.iter().map(|second| (second.at, bytes(second))).collect();
        let nights = std::array::from_fn(|night| {
            let late = points.iter().filter(|(at, _)| curve.late_night(*at) == Some(night));
            median(late.map(|(_, bytes)| *bytes).collect())
        });
        Self {
            area: area(&points) / f64::from(1 << 20),
            most: points.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0),
            nights,
        }
    }
}

/// Area under points of time and height; each height stands for the time since the point before.
fn area(points: &[(f64, u64)]) -> f64 {
    let mut before = 0.0;
    let parts = points.iter().map(|(at, height)| (at - std::mem::replace(&mut before, *at)) * *height as f64);
    parts.sum()
}

/// The number in the middle, the lower one of two.
fn median(mut numbers: Vec<u64>) -> Option<u64> {
    numbers.sort_unstable();
    numbers.get(numbers.len().checked_sub(1)? / 2).copied()
}

/// The memory of each course, and its area as a multiple of the smallest among the peers; `None` if there is no peer.
pub fn memories(curve: &Curve, courses: &[Course]) -> Vec<(Memory, Option<f64>)> {
    let resident = |course: &Course| Memory::of(curve, &course.seconds, |second| second.resident);
    let memories: Vec<Memory> = courses.iter().map(resident).collect();
    let peers = courses.iter().zip(&memories).filter(|(course, _)| course.allocator.kind == Kind::Peer);
    let best = peers.map(|(_, memory)| memory.area).min_by(f64::total_cmp).filter(|area| *area > 0.0);
    memories.into_iter().map(|memory| (memory, best.map(|best| memory.area / best))).collect()
}

/// A line for each allocator, and one for what is live.
pub fn table(curve: &Curve, courses: &[Course]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "allocator",
        "area",
        "ratio",
        "",
        "peak",
        "night 1",
        "night 2",
        "p50",
        "p99",
        "max",
        "core",
    ]);
    let memories = memories(curve, courses);
    for (course, (memory, ratio)) in courses.iter().zip(&memories) {
        let is_best_peer = course.allocator.kind == Kind::Peer && *ratio == Some(1.0);
        let total = &course.total;
        let [half, most, all] = [total.latency.half, total.latency.most, total.latency.all]
            .map(|nanoseconds| digits(nanoseconds as f64 / 1000.0));
        let core = 100.0 * total.processor / curve.seconds();
        let mark = if is_best_peer { "best peer" } else { "" };
        let mut cells = cells(course.allocator.title, memory, *ratio, mark, total.peak);
        cells.extend([half, most, all, format!("{core:.1} %")]);
        table.add_row(cells);
    }
    // The same for all.
    if let Some(course) = courses.first() {
        let live = Memory::of(curve, &course.seconds, |second| second.live);
        let best = memories.iter().find_map(|(memory, ratio)| Some(memory.area / (*ratio)?));
        table.add_row(cells("live", &live, best.map(|best| live.area / best), "", live.most));
    }
    for column in table.column_iter_mut().filter(|column| ![0, 3].contains(&column.index)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The cells of a line that are about memory.
fn cells(title: &str, memory: &Memory, ratio: Option<f64>, mark: &str, peak: u64) -> Vec<String> {
    let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let mut cells = vec![title.to_owned(), digits(memory.area), ratio, mark.to_owned(), mib(Some(peak))];
    cells.extend(memory.nights.map(mib));
    cells
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::allocator::Allocator;
    use profiling::workloads::day::{Latency, Total};

    const ALL: &[Allocator] = &Allocator::ALL;

    /// A run of 72 s, of whose nights the last thirds are 32 s to 36 s and 68 s to 72 s.
    pub const CURVE: fn() -> Curve = || Curve::new(72.0, 100.0);

    /// An allocator with so many MiB by day, and with so many more by each number of seconds.
    fn course(allocator: &'static Allocator, day: u64, growth: u64) -> Course {
        let second = |at: u64| Second {
            at: at as f64,
            resident: (day + growth * at) << 20,
            requests: 1,
            latency: Latency::default(),
            live: 5 << 20,
        };
        let latency = Latency { half: 20_000, most: 300_000, all: 4_000_000 };
        let total = Total { requests: 72, latency, peak: 300 << 20, processor: 3.6, entries: 1 };
        Course { allocator, seconds: (1..72).map(second).collect(), total }
    }

    /// Two peers and a mode.
    pub fn courses() -> Vec<Course> {
        vec![course(&ALL[0], 20, 0), course(&ALL[1], 10, 0), course(&Allocator::ARENA, 0, 1)]
    }

    #[test]
    fn area_counts_the_time_between_the_points() {
        assert_eq!(area(&[(1.0, 10), (3.0, 20), (3.5, 100)]), 10.0 + 40.0 + 50.0);
        assert_eq!(area(&[]), 0.0);
        let memory = Memory::of(&CURVE(), &courses()[1].seconds, |second| second.resident);
        assert_eq!((memory.area, memory.most), (710.0, 10 << 20));
    }

    #[test]
    fn nights_are_their_last_thirds() {
        let memory = Memory::of(&CURVE(), &courses()[2].seconds, |second| second.resident);
        // 32 to 35, and 68 to 71: the lower one of the two in the middle.
        assert_eq!(memory.nights, [Some(33 << 20), Some(69 << 20)]);
        assert_eq!(Memory::of(&CURVE(), &courses()[2].seconds[..50], |_| 1).nights, [Some(1), None]);
        assert_eq!((median(vec![]), median(vec![9, 1, 5])), (None, Some(5)));
    }

    #[test]
    fn table_has_a_line_for_each_and_ratios_to_the_best_peer() {
        let text = table(&CURVE(), &courses()).to_string();
        let line = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            let cells = line.split(['│', '┆']).map(str::trim).filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect()
        };
        assert_eq!(line("system")[1..3], ["1,420", "2.00"]);
        let arena =
            ["shockwave arena", "2,556", "3.60", "300.0", "33.0", "69.0", "20.0", "300.0", "4,000", "5.0 %"];
        assert_eq!(line("arena"), arena);
        assert!(
            line("mimalloc").contains(&"best peer".to_owned())
                && !line("system").contains(&"best peer".to_owned())
        );
        assert_eq!(line("live"), ["live", "355.0", "0.50", "5.0", "5.0", "5.0"]);
        let alone = table(&CURVE(), &courses()[2..]).to_string();
        assert!(alone.contains("┆     - ┆") && !alone.contains("best peer"), "{alone}");
    }
}
