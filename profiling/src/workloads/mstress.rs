//! Threads with blocks of all lifetimes, some of which they exchange.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::cores;
use crate::blocks::{Random, below};
use crate::process::Stopwatch;
use crate::{Clock, Sample};

/// What a thread allocates of passing blocks, times one to eight: 100 times the scale of `mstress N 50 25`.
const PASSING: usize = 100 * 50;

/// Places through which threads exchange blocks.
const PLACES: usize = 1000;

/// Why the lock of a place is never poisoned.
const NO_PANIC: &str = "no thread panics with the lock";

/// What words are mixed with.
const COOKIE: u64 = 0xBF58_476D_1CE4_E5B9;

/// One operation: an allocation and its free. A run has a thread for each core, and all threads are made anew for each
/// run. A thread makes 5000 (the next 10,000, and so on up to 40,000) blocks that pass and keeps half as many to its end.
/// Passing blocks are arrays of 1 to 16 words of 8 B, kept ones of up to 64; one in a hundred is 100 times as long, one
/// in a thousand 1000 times, one in ten thousand 10,000 times. Arrays are allocated zeroed, filled, and read as a whole when they
/// end. Between allocations (half of the steps), a quarter of the
/// steps keeps one, two in three free a random one, and one in four exchanges one through 1000 places that all threads
/// share. Half of what lies in these places passes from one run to the next. After mstress of mimalloc (Leijen, Zorn and de Moura, 2019).
pub fn mstress(clock: &Clock) -> Sample {
    let places = places();
    let mut random = Random::new(u64::MAX / 2);
    run(1, &places, &mut random);
    let watch = Stopwatch::start();
    let mut operations = 0;
    while watch.elapsed() < clock.time() {
        operations += run(cores(), &places, &mut random);
    }
    watch.stop(operations)
}

fn places() -> Vec<Mutex<Option<Words>>> {
    (0..PLACES).map(|_| Mutex::new(None)).collect()
}

/// Runs `threads` threads once, empties half of the places, and tells how many blocks they made.
fn run(threads: usize, places: &[Mutex<Option<Words>>], random: &mut Random) -> u64 {
    let made = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..threads {
            let made = &made;
            scope.spawn(move || {
                let blocks = stress(PASSING * (thread % 8 + 1), places, Random::new(thread as u64));
                made.fetch_add(blocks, Ordering::Relaxed);
            });
        }
    });
    for place in places.iter().filter(|_| one_in(random, 2)) {
        let left = place.lock().expect(NO_PANIC).take();
        left.into_iter().for_each(Words::check);
    }
    made.into_inner()
}

/// One thread: `passing` blocks that pass and half as many that stay.
fn stress(mut passing: usize, places: &[Mutex<Option<Words>>], mut random: Random) -> u64 {
    let mut staying = passing / 2;
    let made = (passing + staying) as u64;
    let mut kept = Vec::with_capacity(staying);
    // Half as long as what may come, so that it has holes and grows.
    let mut blocks: Vec<Option<Words>> = Vec::new();
    while passing > 0 || staying > 0 {
        if staying == 0 || (passing > 0 && one_in(&mut random, 2)) {
            passing -= 1;
            blocks.push(Some(Words::new(&mut random, 4)));
        } else {
            staying -= 1;
            kept.push(Words::new(&mut random, 6));
        }
        if !blocks.is_empty() && !one_in(&mut random, 3) {
            let place = below(random.bits(), blocks.len());
            if let Some(block) = blocks[place].take() {
                block.check();
            }
        }
        if !blocks.is_empty() && one_in(&mut random, 4) {
            let mine = below(random.bits(), blocks.len());
            let place = &places[below(random.bits(), places.len())];
            std::mem::swap(&mut blocks[mine], &mut *place.lock().expect(NO_PANIC));
        }
    }
    kept.into_iter().chain(blocks.into_iter().flatten()).for_each(Words::check);
    made
}

/// True once in `times` calls, at random.
fn one_in(random: &mut Random, times: usize) -> bool {
    below(random.bits(), times) == 0
}

/// An array of words that can be checked: each says how many are left, mixed with [`COOKIE`].
struct Words(Box<[u64]>);

impl Words {
    /// Between one word and `2^most`, each power of two equally likely; rarely far more.
    fn new(random: &mut Random, most: usize) -> Self {
        let length = 1 << below(random.bits(), most + 1);
        let factor = match below(random.bits(), 10_000) {
            0 => 10_000,
            1..=10 => 1000,
            11..=110 => 100,
            _ => 1,
        };
        let mut words = black_box(vec![0; length * factor].into_boxed_slice());
        for (word, left) in words.iter_mut().rev().zip(1..) {
            *word = COOKIE ^ left;
        }
        Self(words)
    }

    /// Ends it; panics if somebody else has written to it.
    fn check(self) {
        let words = black_box(self.0);
        let foreign = words.iter().rev().zip(1..).filter(|(word, left)| **word != COOKIE ^ left).count();
        assert!(foreign == 0, "somebody else has written to {foreign} words of a block of {}", words.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_make_what_they_should() {
        let made = run(2, &places(), &mut Random::new(1));
        assert_eq!(made, (PASSING + PASSING / 2 + 2 * PASSING + PASSING) as u64);
    }

    #[test]
    fn half_of_what_is_exchanged_survives_a_run() {
        let (places, mut random) = (places(), Random::new(1));
        places.iter().for_each(|place| *place.lock().unwrap() = Some(Words::new(&mut random, 4)));
        assert_eq!(run(0, &places, &mut random), 0);
        let left = places.iter().filter(|place| place.lock().unwrap().is_some()).count();
        assert!((PLACES / 4..=PLACES * 3 / 4).contains(&left), "{left} blocks are left");
    }

    #[test]
    #[should_panic(expected = "1 words of a block")]
    fn foreign_writes_are_found() {
        let mut words = Words::new(&mut Random::new(1), 4);
        *words.0.last_mut().unwrap() = 7;
        words.check();
    }
}
