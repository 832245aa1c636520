//! A request: a body that arrives in pieces, objects of mixed sizes, a wait for someone else, an answer.

use std::fmt::Write;
use std::hint::black_box;

use super::cache::Cache;
use super::curve::spread;
use crate::Scope;
use crate::bench::Scope as Requests;
use crate::blocks::{Block, Random, below, skewed_size};

/// Powers of two between which the sizes of objects are: 16 B to 1 KiB.
const OBJECT: (u32, u32) = (4, 10);

/// One object in so many is followed by an entry of the cache.
const KEEPS: usize = 100;

/// Bytes of a piece of the body.
const PIECE: usize = 4096;

/// What bodies consist of.
static BODY: [u8; PIECE] = [b'x'; PIECE];

/// Lines of the answer: from, and how many more at most.
const LINES: (usize, usize) = (4, 60);

/// The shortest wait of a request, in seconds.
const SHORTEST_WAIT: f64 = 0.1;

/// Requests of one kind.
struct Kind {
    /// So many requests in a thousand.
    per_mille: usize,
    /// Objects: from, and how many more at most.
    objects: (usize, usize),
    /// Powers of two between which the size of the body is; equal if there is none.
    body: (u32, u32),
}

/// Most of the bytes are bodies of the few large requests. The largest are fewer than one in a hundred by far, so that p99 does
/// not hang on whether it falls among them.
const KINDS: [Kind; 4] = [
    Kind { per_mille: 600, objects: (20, 21), body: (0, 0) },
    Kind { per_mille: 300, objects: (40, 81), body: (12, 15) },
    Kind { per_mille: 97, objects: (40, 81), body: (16, 19) },
    Kind { per_mille: 3, objects: (20, 21), body: (20, 22) },
];

/// How long things live, by the length of the day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetimes {
    /// The longest wait of a request, in seconds; short ones are more frequent.
    longest_wait: f64,
    /// The shortest and the longest time to the expiry of an entry, in seconds.
    entry: (f64, f64),
}

impl Lifetimes {
    /// For days of `day` seconds: requests wait 0.1 s to 20 s, yet no longer than a tenth of a day; entries live a
    /// hundredth of a day up to half of one.
    pub(super) fn of(day: f64) -> Self {
        Self { longest_wait: (day / 10.0).clamp(SHORTEST_WAIT, 20.0), entry: (day / 100.0, day / 2.0) }
    }
}

/// A request that waits.
pub(super) struct Waiting<S: Scope> {
    number: u64,
    objects: Vec<Block>,
    body: Vec<u8>,
    open: <S::Requests as Requests>::Open,
}

/// What depends on the request's number alone.
struct Shape {
    /// How long it waits, in seconds.
    wait: f64,
    objects: usize,
    body: usize,
    random: Random,
}

impl Shape {
    fn new(number: u64, lifetimes: &Lifetimes) -> Self {
        let mut random = Random::new(number);
        // Neighbouring seeds have similar first numbers.
        for _ in 0..4 {
            random.bits();
        }
        let wait = spread(random.bits(), SHORTEST_WAIT, lifetimes.longest_wait);
        let kind = kind(below(random.bits(), 1000));
        let objects = kind.objects.0 + below(random.bits(), kind.objects.1);
        let body = match kind.body {
            (from, to) if from < to => skewed_size(random.bits(), from, to),
            _ => 0,
        };
        Self { wait, objects, body, random }
    }
}

/// The kind of a request, by a number below 1000.
fn kind(mut of_thousand: usize) -> &'static Kind {
    KINDS
        .iter()
        .find(|kind| {
            let found = of_thousand < kind.per_mille;
            of_thousand = of_thousand.saturating_sub(kind.per_mille);
            found
        })
        .expect("the kinds are a thousand together")
}

impl<S: Scope> Waiting<S> {
    /// Begins the request `number` at `now`, in nanoseconds since the beginning. The second value is how long it waits, in
    /// seconds.
    pub(super) fn begin(number: u64, now: u64, lifetimes: &Lifetimes, cache: &Cache) -> (Self, f64) {
        let Shape { wait, objects: count, body: body_bytes, mut random } = Shape::new(number, lifetimes);
        let ((objects, body), open) = S::Requests::open(|| {
            let mut body = Vec::new();
            while body.len() < body_bytes {
                body.extend_from_slice(&BODY[..PIECE.min(body_bytes - body.len())]);
            }
            let mut objects = Vec::new();
            for index in 0..count as u64 {
                let mut block = Block::filled(skewed_size(random.bits(), OBJECT.0, OBJECT.1));
                block.write_word(number ^ index);
                objects.push(block);
                if below(random.bits(), KEEPS) == 0 {
                    let lives = spread(random.bits(), lifetimes.entry.0, lifetimes.entry.1);
                    // Code that knows of no arena makes it.
                    cache.insert(number << 8 | index, now + (lives * 1e9) as u64);
                }
            }
            (objects, black_box(body))
        });
        (Self { number, objects, body, open }, wait)
    }

    /// Answers and frees. The error names the request if one of its objects has changed.
    pub(super) fn end(self) -> Result<(), String> {
        let Self { number, objects, body, open } = self;
        let intact = S::resume(&open, || {
            let mut answer = String::new();
            let lines = LINES.0 + below(Random::new(number).bits(), LINES.1);
            for (line, object) in objects.iter().cycle().take(lines).enumerate() {
                // Writing to a string does not fail.
                let _ = writeln!(answer, "item {line}: {} B of request {number:016x}", object.size());
            }
            black_box(&answer);
            let words = objects.iter().zip(0u64..).all(|(block, index)| block.read_word() == number ^ index);
            let intact = words && body.iter().step_by(PIECE).all(|byte| *byte == BODY[0]);
            drop((objects, body));
            intact
        });
        match intact {
            true => Ok(()),
            false => Err(format!("the objects of request {number} have another content than it wrote")),
        }
    }

    /// Bytes of objects and body.
    pub(super) fn bytes(&self) -> i64 {
        (self.objects.iter().map(Block::size).sum::<usize>() + self.body.len()) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoScope;

    const DAY: f64 = 1800.0;

    #[test]
    fn requests_are_mixed() {
        assert_eq!(KINDS.iter().map(|kind| kind.per_mille).sum::<usize>(), 1000);
        let lifetimes = Lifetimes::of(DAY);
        let shapes: Vec<Shape> = (0..100_000).map(|number| Shape::new(number, &lifetimes)).collect();
        let count = |is: fn(&Shape) -> bool| shapes.iter().filter(|shape| is(shape)).count();
        assert!((59_000..61_000).contains(&count(|shape| shape.body == 0)));
        assert!((9_200..10_200).contains(&count(|shape| (64 << 10..512 << 10).contains(&shape.body))));
        assert!((200..400).contains(&count(|shape| (1 << 20..4 << 20).contains(&shape.body))));
        assert!(shapes.iter().all(|shape| (0.1..20.0).contains(&shape.wait)));
        // Halves of the logarithms.
        assert!((49_000..51_000).contains(&count(|shape| shape.wait < 1.414)));
    }

    #[test]
    fn one_object_in_a_hundred_lives_long() {
        let (cache, lifetimes) = (Cache::new(), Lifetimes::of(DAY));
        let mut objects = 0;
        for number in 0..4000 {
            let (waiting, _) = Waiting::<NoScope>::begin(number, 0, &lifetimes, &cache);
            objects += waiting.objects.len() as u64;
            waiting.end().unwrap();
        }
        let long = (DAY / 100.0 * 1e9) as u64;
        assert_eq!(cache.expire(long - 1), Ok(0));
        let entries = cache.expire(u64::MAX).unwrap();
        assert!((objects / 120..objects / 80).contains(&entries), "{entries} of {objects}");
    }

    #[test]
    fn a_changed_object_is_noticed() {
        let (cache, lifetimes) = (Cache::new(), Lifetimes::of(DAY));
        let (mut waiting, _) = Waiting::<NoScope>::begin(3, 0, &lifetimes, &cache);
        assert!(waiting.bytes() > 20 * 16);
        waiting.objects[5].write_word(1);
        assert!(waiting.end().unwrap_err().contains("request 3"));
    }
}
