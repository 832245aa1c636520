//! How an allocator stands in a row, beside the best peer.

use profiling::Unit;

use super::allocator::Kind;
use super::measure::{Line, RowResult};
use super::stats::Summary;

/// One allocator's numbers in one row.
pub struct Standing<'a> {
    /// Its rounds.
    pub line: &'a Line,
    /// The same, summed up.
    pub summary: Summary,
    /// Its number: of times the fastest round, of memory the median.
    pub best: f64,
    /// Its number over that of the best peer; `None` without a peer, of growth, or if the peer's is not above 0.
    pub ratio: Option<f64>,
    /// Whether it is the best peer.
    pub is_best_peer: bool,
    /// Whether the rounds tell it from the best peer; `None` without a peer.
    pub differs: Option<bool>,
}

/// The allocators of a row that have numbers, in the order of the tables.
pub fn standings(result: &RowResult) -> Vec<Standing<'_>> {
    let more_is_better = result.row.unit().more_is_better();
    // What other programs do makes an operation slower, and never faster; it does nothing to memory.
    let of_time = result.row.unit() == Unit::Nanoseconds;
    let best_of = |summary: &Summary| if of_time { summary.min } else { summary.median };
    let numbers: Vec<(&Line, Summary)> = result
        .lines
        .iter()
        .filter_map(|line| Some((line, line.values().as_deref().and_then(Summary::of)?)))
        .collect();
    let peers = numbers.iter().filter(|(line, _)| line.allocator.kind == Kind::Peer);
    let order = |summary: &Summary| if more_is_better { -best_of(summary) } else { best_of(summary) };
    let best_peer = peers.min_by(|(_, one), (_, other)| order(one).total_cmp(&order(other))).copied();
    let standing = |(line, summary): (_, Summary)| {
        let best = best_of(&summary);
        // Growth is next to nothing and would be divided by next to nothing.
        let has_ratio = result.row.unit() != Unit::KibGrown;
        let ratio = best_peer.map(|(_, peer)| best_of(&peer)).filter(|peer| has_ratio && *peer > 0.0);
        Standing {
            line,
            summary,
            best,
            ratio: ratio.map(|peer| best / peer),
            is_best_peer: best_peer.is_some_and(|(peer, _)| std::ptr::eq(peer, line)),
            differs: best_peer.map(|(_, peer)| summary.differs_from(&peer)),
        }
    };
    numbers.into_iter().map(standing).collect()
}

impl Standing<'_> {
    /// What stands behind the ratio: who is best, and what cannot be told apart.
    pub fn mark(&self) -> &'static str {
        match self.differs {
            _ if self.is_best_peer => "best peer",
            Some(false) => "~",
            _ => "",
        }
    }

    /// Page faults per 1000 operations, in the round that had least.
    pub fn faults(&self) -> Option<f64> {
        let rounds = self.line.rounds.as_ref().ok()?;
        rounds.iter().filter_map(|outcome| outcome.faults).min_by(f64::total_cmp)
    }

    /// The most bytes resident at once, in the round that had least.
    pub fn peak(&self) -> Option<u64> {
        let rounds = self.line.rounds.as_ref().ok()?;
        rounds.iter().filter_map(|outcome| outcome.peak).min()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::allocator::Allocator;
    use profiling::{Outcome, Row};

    const ALL: &[Allocator] = &Allocator::ALL;

    /// A row of system, mimalloc, jemalloc, which has failed, and snmalloc.
    pub fn result(row: Row) -> RowResult {
        let rounds = |values: [f64; 2]| {
            Ok(values.map(|value| Outcome { value, faults: Some(2.5), peak: Some(3 << 20) }).to_vec())
        };
        let rounds =
            [rounds([20.0, 22.0]), rounds([10.0, 11.0]), Err("fails <&>".to_owned()), rounds([10.5, 12.0])];
        let lines = ALL.iter().zip(rounds).map(|(allocator, rounds)| Line { allocator, rounds }).collect();
        RowResult { row, lines }
    }

    #[test]
    fn of_times_the_smallest_is_the_best() {
        let result = result(Row::Pair);
        let [system, mimalloc, snmalloc] = &standings(&result)[..] else { panic!("three have numbers") };
        assert_eq!((system.ratio, system.mark()), (Some(2.0), ""));
        assert_eq!((mimalloc.ratio, mimalloc.mark()), (Some(1.0), "best peer"));
        assert_eq!((snmalloc.ratio, snmalloc.mark()), (Some(1.05), "~"));
        assert_eq!((system.faults(), system.peak()), (Some(2.5), Some(3 << 20)));
    }

    #[test]
    fn of_what_is_returned_the_largest_is_the_best() {
        let result = result(Row::Burst);
        let [system, mimalloc, _] = &standings(&result)[..] else { panic!("three have numbers") };
        assert_eq!((system.best, system.mark()), (21.0, "best peer"));
        assert_eq!((mimalloc.ratio, mimalloc.mark()), (Some(0.5), ""));
    }

    #[test]
    fn growth_has_no_ratio() {
        assert!(
            standings(&super::tests::result(Row::Threads)).iter().all(|standing| standing.ratio.is_none())
        );
    }
}
