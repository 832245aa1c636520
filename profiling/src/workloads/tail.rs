//! How long single allocations and single ends of requests take at worst.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::Scope;
use crate::bench::Scope as Requests;
use crate::blocks::{Block, Random, below, skewed_size};

/// Requests that are open at once.
const OPEN: usize = 100;

/// Allocations of a request that are timed.
const OBJECTS: usize = 60;

/// Entries of a cache; one request in ten leaves one.
const ENTRIES: usize = 1000;
const KEEPS: usize = 10;

/// Requests before anything is timed.
const WARM_UP: u64 = 2000;

/// The longest time that is told apart, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// Digits that the histograms keep.
const DIGITS: u8 = 3;

/// Nanoseconds that half, 99 %, 99.99 % and all of some operations took at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantiles(pub [u64; 4]);

/// What [`tail`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Of a single allocation.
    pub alloc: Quantiles,
    /// Of the end of a request: its objects are freed, its scope ends.
    pub end: Quantiles,
    /// Of looking at the clock twice, which is in each of the others.
    pub clock: Quantiles,
}

/// Times `operations` allocations of 16 B to 1 KiB one by one, 60 in each request, and the end of each request, by wall
/// time. Of 100 open requests a random one ends, and another one begins; one in ten leaves a block of 100 B in a cache
/// of 1000.
pub fn tail<S: Scope>(operations: u64) -> Tail {
    let mut server = Server::<S>::new();
    for _ in 0..WARM_UP {
        server.serve(&mut |_| {}, &mut |_| {});
    }
    let [mut alloc, mut end, mut clock] = [histogram(), histogram(), histogram()];
    for _ in 0..operations.div_ceil(OBJECTS as u64) {
        server.serve(&mut |time| alloc.saturating_record(time), &mut |time| end.saturating_record(time));
        clock.saturating_record(timed(|| ()).1);
    }
    Tail { alloc: quantiles(&alloc), end: quantiles(&end), clock: quantiles(&clock) }
}

/// A request that is open: its objects, and its scope.
type InFlight<S> = (Vec<Block>, <<S as Scope>::Requests as Requests>::Open);

struct Server<S: Scope> {
    open: Vec<Option<InFlight<S>>>,
    cache: Vec<Option<Block>>,
    random: Random,
}

impl<S: Scope> Server<S> {
    fn new() -> Self {
        let open = (0..OPEN).map(|_| None).collect();
        Self { open, cache: (0..ENTRIES).map(|_| None).collect(), random: Random::new(9) }
    }

    /// Ends one request and begins another, and tells how long each allocation and the end took.
    fn serve(&mut self, alloc: &mut impl FnMut(u64), end: &mut impl FnMut(u64)) {
        let Self { open, cache, random } = self;
        let slot = &mut open[below(random.bits(), OPEN)];
        if let Some((objects, scope)) = slot.take() {
            let ((), time) = timed(|| {
                S::resume(&scope, || drop(objects));
                drop(scope);
            });
            end(time);
        }
        *slot = Some(S::Requests::open(|| {
            // The list is no single allocation of the request, so it is long enough from the start.
            let mut objects = Vec::with_capacity(OBJECTS);
            for _ in 0..OBJECTS {
                let size = skewed_size(random.bits(), 4, 10);
                let (block, time) = timed(|| Block::new(size));
                objects.push(block);
                alloc(time);
            }
            if below(random.bits(), KEEPS) == 0 {
                cache[below(random.bits(), ENTRIES)] = Some(Block::new(100));
            }
            objects
        }));
    }
}

/// What `work` returns, and its nanoseconds.
#[inline]
fn timed<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let start = Instant::now();
    let result = black_box(work());
    (result, start.elapsed().as_nanos() as u64)
}

/// Large enough from the start, so that recording does not allocate.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds and digits are accepted ones")
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let [half, most, nearly_all] = [0.5, 0.99, 0.9999].map(|part| histogram.value_at_quantile(part));
    Quantiles([half, most, nearly_all, histogram.max()])
}

impl Quantiles {
    /// The smaller of each: what other programs on the machine disturbed least.
    pub fn least(self, other: Quantiles) -> Quantiles {
        Quantiles(std::array::from_fn(|index| self.0[index].min(other.0[index])))
    }
}

impl Tail {
    /// The smaller of each.
    pub fn least(self, other: Tail) -> Tail {
        Tail {
            alloc: self.alloc.least(other.alloc),
            end: self.end.least(other.end),
            clock: self.clock.least(other.clock),
        }
    }
}

/// All numbers on one line, for a program that reads them back.
impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [self.alloc, self.end, self.clock].into_iter().flat_map(|quantiles| quantiles.0);
        let words: Vec<String> = numbers.map(|number| number.to_string()).collect();
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Tail {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        let numbers: [u64; 12] = numbers.map_err(|_| ())?.try_into().map_err(|_| ())?;
        let quantiles = |first: usize| Quantiles(std::array::from_fn(|index| numbers[first + index]));
        Ok(Tail { alloc: quantiles(0), end: quantiles(4), clock: quantiles(8) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoScope;

    #[test]
    fn quantiles_rise_and_survive_the_pipe() {
        let tail = tail::<NoScope>(6000);
        for Quantiles(times) in [tail.alloc, tail.end, tail.clock] {
            assert!(times.is_sorted() && times[3] > 0, "{times:?}");
        }
        assert_eq!(tail.to_string().parse(), Ok(tail));
        assert_eq!("1 2 3".parse::<Tail>(), Err(()));
    }

    #[test]
    fn every_allocation_and_every_end_is_timed() {
        let mut server = Server::<NoScope>::new();
        let (mut allocs, mut ends) = (0, 0);
        for _ in 0..1000 {
            server.serve(&mut |_| allocs += 1, &mut |_| ends += 1);
        }
        assert_eq!(allocs, 1000 * OBJECTS);
        // All but those that are still open.
        assert_eq!(ends, 1000 - OPEN);
    }

    #[test]
    fn the_least_of_each_counts() {
        let least = Quantiles([1, 5, 9, 90]).least(Quantiles([2, 4, 10, 80]));
        assert_eq!(least, Quantiles([1, 4, 9, 80]));
    }
}
