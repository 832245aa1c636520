//! What was measured, and who wins.

use std::time::Duration;

use profiling::bench::{Figures, Memory, Workload};

use crate::compare::measure::RowResult;
use crate::compare::stats::Summary;

/// The modes, in the order of every table.
pub const MODES: [&str; 3] = ["standard", "slab", "arena"];

/// Index of the standard mode, the baseline.
pub const STANDARD: usize = 0;
/// Index of the slab mode.
pub const SLAB: usize = 1;
/// Index of the arena mode.
pub const ARENA: usize = 2;

/// Sizes that differ by less than this share are alike.
const ALIKE: f64 = 0.02;

/// A value for the control and one for each of [`MODES`].
#[derive(Debug, Clone, Copy)]
pub struct Each<T> {
    /// The system allocator without Shockwave.
    pub control: T,
    /// Standard, slab, arena.
    pub modes: [T; 3],
}

/// Everything that was measured.
pub struct Results {
    /// Rounds per workload.
    pub rounds: u32,
    /// Measuring time of one process.
    pub time: Duration,
    /// What `--seconds` was.
    pub seconds: u32,
    /// One for each of [`Workload::ALL`], in that order.
    pub rows: Vec<Measured>,
}

/// One workload.
pub struct Measured {
    /// Which.
    pub workload: Workload,
    /// Nanoseconds per operation.
    pub times: Each<Summary>,
    /// Calls and memory.
    pub figures: Each<Figures>,
    /// Calls and bytes that the program asks for, per operation.
    pub asked: Option<(f64, f64)>,
}

/// A row of a table: a name and a value for each mode, of which the smallest wins.
pub struct Contest {
    /// What is compared.
    pub name: String,
    /// The values.
    pub values: [f64; 3],
    /// The modes that win; several if they cannot be told apart.
    pub winners: Vec<usize>,
}

impl<T: Copy> Each<T> {
    /// From control, standard, slab, arena.
    fn new(values: &[T]) -> Option<Each<T>> {
        let &[control, standard, slab, arena] = values else { return None };
        Some(Each { control, modes: [standard, slab, arena] })
    }

    /// All four, the control first.
    pub fn all(&self) -> [T; 4] {
        let [standard, slab, arena] = self.modes;
        [self.control, standard, slab, arena]
    }
}

impl Measured {
    /// Sorts what the processes have printed; fails if one of them has failed.
    pub fn new(
        workload: Workload,
        times: RowResult,
        figures: Vec<Figures>,
        asked: Option<(f64, f64)>,
    ) -> Result<Measured, String> {
        let mut summaries = Vec::with_capacity(times.lines.len());
        for line in times.lines {
            let about = |reason| format!("{} on {}: {reason}", workload.name(), line.allocator.title);
            let values = line.values();
            line.rounds.map_err(about)?;
            let summary = values.as_deref().and_then(Summary::of);
            summaries.push(summary.ok_or_else(|| about("no rounds".to_owned()))?);
        }
        let times = Each::new(&summaries);
        let figures = Each::new(&figures);
        times
            .zip(figures)
            .map(|(times, figures)| Measured { workload, times, figures, asked })
            .ok_or_else(|| format!("{}: not every mode was measured", workload.name()))
    }

    /// Who is fastest.
    pub fn time(&self) -> Contest {
        let values = self.times.modes.map(|summary| summary.min);
        let best = smallest(&values);
        let alike = |mode: usize| !self.times.modes[mode].differs_from(&self.times.modes[best]);
        Contest::new(self.workload.name(), values, alike)
    }

    /// Who takes least memory, if the system tells.
    pub fn memory(&self) -> Option<Contest> {
        Some(Contest::of_amounts(self.workload.name(), self.memory_values()?.modes))
    }

    /// Who calls the backing heap least.
    pub fn calls(&self) -> Option<Contest> {
        let [standard, slab, arena] = self.figures.modes.map(|figures| figures.backing_calls);
        Some(Contest::of_amounts(self.workload.name(), [standard?, slab?, arena?]))
    }

    /// Bytes per request in flight, or the multiple of the live bytes.
    pub fn memory_values(&self) -> Option<Each<f64>> {
        let values: Option<Vec<f64>> =
            self.figures.all().iter().map(|figures| figures.memory.map(amount)).collect();
        values.and_then(|values| Each::new(&values))
    }

    /// How many requests were in flight; `None` if the memory beside a live heap was measured.
    pub fn in_flight(&self) -> Option<usize> {
        match self.figures.control.memory {
            Some(Memory::PerRequest(_, count)) => Some(count),
            _ => None,
        }
    }
}

impl Contest {
    fn new(name: &str, values: [f64; 3], alike: impl Fn(usize) -> bool) -> Contest {
        let best = smallest(&values);
        let winners = (0..MODES.len()).filter(|mode| *mode == best || alike(*mode)).collect();
        Contest { name: name.to_owned(), values, winners }
    }

    fn of_amounts(name: &str, values: [f64; 3]) -> Contest {
        let least = values[smallest(&values)];
        Contest::new(name, values, |mode| values[mode] <= least * (1.0 + ALIKE))
    }

    /// How many times the best value `mode` has.
    pub fn behind(&self, mode: usize) -> f64 {
        self.values[mode] / self.values[smallest(&self.values)]
    }
}

impl Results {
    /// The row of `workload`.
    pub fn row(&self, workload: Workload) -> &Measured {
        self.rows.iter().find(|row| row.workload == workload).expect("every workload is measured")
    }

    /// The contests of time.
    pub fn times(&self) -> Vec<Contest> {
        self.rows.iter().map(Measured::time).collect()
    }

    /// The rows whose memory is shown: one for each kind of request, and the live heaps.
    pub fn memory_rows(&self) -> impl Iterator<Item = &Measured> {
        const SHOWN: [Workload; 8] = [
            Workload::TypicalRequest,
            Workload::TypicalPooled,
            Workload::LargeRequest,
            Workload::LargePooled,
            Workload::ManyHeaders,
            Workload::ManyPooled,
            Workload::Pressure,
            Workload::PressureOutside,
        ];
        self.rows.iter().filter(|row| SHOWN.contains(&row.workload))
    }
}

/// The geometric mean, with which ratios are averaged; 1 of nothing.
pub fn mean_ratio(ratios: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = ratios.fold((0.0, 0), |(sum, count), ratio| (sum + ratio.ln(), count + 1));
    if count == 0 { 1.0 } else { f64::exp(sum / f64::from(count)) }
}

fn amount(memory: Memory) -> f64 {
    match memory {
        Memory::PerRequest(bytes, _) => bytes,
        Memory::OverLive(ratio) => ratio,
    }
}

/// Index of the smallest value.
fn smallest(values: &[f64; 3]) -> usize {
    (0..values.len()).min_by(|one, other| values[*one].total_cmp(&values[*other])).unwrap_or(0)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row with these rounds for control, standard, slab and arena.
    pub fn row(workload: Workload, rounds: [&[f64]; 4], memory: [f64; 4]) -> Measured {
        let summaries = rounds.map(|rounds| Summary::of(rounds).unwrap());
        let figures = memory.map(|bytes| Figures {
            backing_calls: Some(0.0),
            memory: Some(Memory::PerRequest(bytes, 100)),
            ..Figures::default()
        });
        Measured {
            workload,
            times: Each::new(&summaries).unwrap(),
            figures: Each::new(&figures).unwrap(),
            asked: Some((10.0, 1000.0)),
        }
    }

    #[test]
    fn who_cannot_be_told_apart_shares_the_win() {
        let rounds: [&[f64]; 4] = [&[30.0, 31.0], &[20.0, 21.0], &[10.0, 12.0], &[11.0, 13.0]];
        let row = row(Workload::TypicalRequest, rounds, [1000.0, 1000.0, 990.0, 4000.0]);
        assert_eq!(row.time().winners, [1, 2]);
        assert_eq!(row.time().behind(0), 2.0);
        assert_eq!(row.memory().unwrap().winners, [0, 1]);
    }

    #[test]
    fn ratios_are_averaged_geometrically() {
        assert!((mean_ratio([0.5, 2.0].into_iter()) - 1.0).abs() < 1e-9);
        assert_eq!(mean_ratio(std::iter::empty()), 1.0);
    }
}
