//! A server after hours: many requests at once, and a cache whose entries they make.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use crate::bench::Scope as Requests;
use crate::blocks::{Block, Random, below, skewed_size};
use crate::process::resident_bytes;
use crate::{Clock, Sample, Scope};

/// Requests that are open at once.
const OPEN: usize = 2000;

/// Objects of a request: from, and how many more at most.
const OBJECTS: (usize, usize) = (20, 61);

/// Entries of the cache.
const ENTRIES: usize = 50_000;

/// Bytes of an entry's value: from, and how many more at most; all equally likely.
const VALUE: (usize, usize) = (16, 1009);

/// So many requests in ten leave an entry.
const KEEPS_IN_TEN: usize = 3;

/// Requests after the cache is full and before anything is measured: they replace nine entries in ten.
const AGING: usize = 150_000;

/// Who makes the entries of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Code that knows of no arena.
    Unmodified,
    /// The same through `outside_arena`.
    Outside,
}

/// A key and a value, two blocks.
struct Entry {
    key: Block,
    value: Block,
}

/// A request that has begun.
struct InFlight<S: Scope> {
    objects: Vec<Block>,
    open: <S::Requests as Requests>::Open,
}

/// The server.
struct Server<S: Scope> {
    cache: Vec<Option<Entry>>,
    filled: usize,
    in_flight: Vec<Option<InFlight<S>>>,
    keeper: Keeper,
    random: Random,
}

/// One operation: of 2000 requests in flight a random one ends, and another one begins, with 20 to 80 objects of 16 B to
/// 1 KiB. Three in ten replace, half-way, a random entry of a cache of 50,000 (a key of 16 B to 63 B, a value of 16 B to
/// 1 KiB). Before, each of 50,000 requests leaves an entry, and 150,000 requests replace nine tenths of them.
pub fn aged<S: Scope>(clock: &Clock, keeper: Keeper) -> Sample {
    let mut server = Server::<S>::aged(keeper);
    let sample = clock.measure(1, || server.serve());
    server.end_all();
    sample
}

/// Resident bytes as a multiple of those of the cache's keys and values: [`aged`], then all requests end and nothing runs
/// for `idle`. `None` if the system does not tell.
pub fn night<S: Scope>(idle: Duration, keeper: Keeper) -> Option<f64> {
    // The same tables, in the same places, so that they are not counted.
    let mut server = Server::<S>::new(keeper);
    let before = resident_bytes()?;
    server.age();
    server.end_all();
    thread::sleep(idle);
    let after = resident_bytes()?;
    Some(after.saturating_sub(before) as f64 / server.live_bytes() as f64)
}

impl<S: Scope> Server<S> {
    /// An empty cache, nothing in flight. The tables are written, and so resident.
    fn new(keeper: Keeper) -> Self {
        let (mut cache, mut in_flight) = (Vec::new(), Vec::new());
        cache.resize_with(ENTRIES, || None);
        in_flight.resize_with(OPEN, || None);
        Self { cache, filled: 0, in_flight, keeper, random: Random::new(5) }
    }

    /// After hours.
    fn aged(keeper: Keeper) -> Self {
        let mut server = Self::new(keeper);
        server.age();
        server
    }

    /// Fills the cache and replaces most of it.
    fn age(&mut self) {
        while self.filled < ENTRIES {
            self.serve();
        }
        for _ in 0..AGING {
            self.serve();
        }
    }

    /// One operation.
    fn serve(&mut self) -> u64 {
        let slot = below(self.random.bits(), OPEN);
        if let Some(InFlight { objects, open }) = self.in_flight[slot].take() {
            S::resume(&open, || drop(objects));
        }
        let Self { cache, filled, keeper, random, .. } = self;
        let (objects, open) = S::Requests::open(|| begin::<S>(cache, filled, *keeper, random));
        let count = objects.len() as u64;
        self.in_flight[slot] = Some(InFlight { objects, open });
        count
    }

    /// Ends all that is in flight, each within its scope.
    fn end_all(&mut self) {
        for InFlight { objects, open } in self.in_flight.iter_mut().filter_map(Option::take) {
            S::resume(&open, || drop(objects));
        }
    }

    /// Bytes of keys and values.
    fn live_bytes(&self) -> usize {
        self.cache.iter().flatten().map(|entry| entry.key.size() + entry.value.size()).sum()
    }
}

/// What a request does before it waits: its objects, and sometimes an entry.
fn begin<S: Scope>(
    cache: &mut [Option<Entry>],
    filled: &mut usize,
    keeper: Keeper,
    random: &mut Random,
) -> Vec<Block> {
    let count = OBJECTS.0 + below(random.bits(), OBJECTS.1);
    let mut objects = Vec::new();
    for index in 0..count {
        objects.push(Block::filled(skewed_size(random.bits(), 4, 10)));
        // Until the cache is full each request leaves an entry, in the next place.
        let fills = *filled < ENTRIES;
        if index == count / 2 && (fills || below(random.bits(), 10) < KEEPS_IN_TEN) {
            let slot = if fills { *filled } else { below(random.bits(), ENTRIES) };
            *filled = (*filled + 1).min(ENTRIES);
            let entry = match keeper {
                Keeper::Unmodified => Entry::new(random),
                Keeper::Outside => S::Requests::outside(|| Entry::new(random)),
            };
            cache[slot] = Some(entry);
        }
    }
    black_box(objects)
}

impl Entry {
    fn new(random: &mut Random) -> Self {
        let key = Block::filled(skewed_size(random.bits(), 4, 6));
        Self { key, value: Block::filled(VALUE.0 + below(random.bits(), VALUE.1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoScope;

    #[test]
    fn the_cache_is_full_and_nearly_all_of_it_replaced() {
        let mut server = Server::<NoScope>::new(Keeper::Unmodified);
        while server.filled < ENTRIES {
            server.serve();
        }
        let first: Vec<usize> = server.cache.iter().flatten().map(|entry| entry.value.address()).collect();
        assert_eq!(first.len(), ENTRIES);
        for _ in 0..AGING {
            server.serve();
        }
        let same = server
            .cache
            .iter()
            .flatten()
            .zip(&first)
            .filter(|(entry, first)| entry.value.address() == **first);
        // A random place that is hit 0.9 times on average is missed with a probability of e^-0.9 = 41 %.
        let same = same.count();
        assert!((ENTRIES / 4..ENTRIES / 2).contains(&same), "{same}");
        assert!(server.in_flight.iter().all(Option::is_some));
        server.end_all();
        assert!(server.in_flight.iter().all(Option::is_none));
        assert!(server.live_bytes() > ENTRIES * 500);
    }
}
