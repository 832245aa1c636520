//! Two days of a server: day, night and spikes, against the clock.

mod cache;
mod curve;
mod request;
mod second;

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, Scope as Threads, ScopedJoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

pub use curve::{Curve, DAYS};
pub use second::{Latency, Line, Second, Total};

use crate::Scope;
use crate::bench::Scope as Requests;
use crate::blocks::{Block, Random, skewed_size};
use crate::process::{peak_bytes, processor_time, resident_bytes_about};
use cache::Cache;
use curve::Arrivals;
use request::{Lifetimes, Waiting};
use second::histogram;

/// Threads that serve requests.
const WORKERS: usize = 2;

/// Threads that come and go: every quarter of a second one comes, and the one that came a second ago goes.
const HELPER_EVERY: Duration = Duration::from_millis(250);
const HELPERS: usize = 4;

/// Blocks that such a thread allocates, of 16 B to 2 KiB.
const REPORT: usize = 200;

/// Why there is no number.
const NOT_TOLD: &str = "the system does not tell how much memory is resident";

/// What the threads share.
struct Server {
    curve: Curve,
    lifetimes: Lifetimes,
    start: Instant,
    cache: Cache,
    /// Bytes of the requests that wait.
    waiting: AtomicI64,
    /// What requests took since the last line, for each worker.
    latencies: [Mutex<Histogram<u64>>; WORKERS],
    /// Whether something has failed, so that the rest is of no use.
    failed: AtomicBool,
}

/// Two days within the seconds of `curve`, with so many requests as it says; `print` gets a line every second and one at the end.
///
/// Requests come at moments that depend on the curve alone, to one of two threads, so an allocator that is fast has no
/// more to do than a slow one. A request receives a body in pieces (none, 4 KiB to 32 KiB, 64 KiB to 512 KiB, 1 MiB to 4 MiB:
/// 600, 300, 97, 3 in a thousand), allocates 20 to 120 objects of 16 B to 1 KiB, waits 0.1 s to 20 s, answers and frees all
/// that. One object in 100 is followed by an entry of a cache (64 B to 8 KiB) that lives a hundredth of a day up to half
/// of one. Four threads a second come, free what has expired, allocate 200 blocks, and go a second later.
///
/// What a request takes is counted from when it was due, so waiting for earlier ones is in it, and what the clock of
/// the system wakes a thread too late is not; its own wait is left out.
///
/// # Errors
///
/// If a request or an entry has another content than was written, or the system does not tell the resident memory.
pub fn day<S: Scope>(curve: Curve, print: &mut dyn FnMut(Line)) -> Result<(), String> {
    let server = Server {
        curve,
        lifetimes: Lifetimes::of(curve.day()),
        start: Instant::now(),
        cache: Cache::new(),
        waiting: AtomicI64::new(0),
        latencies: std::array::from_fn(|_| Mutex::new(histogram())),
        failed: AtomicBool::new(false),
    };
    let server = &server;
    let mut requests = histogram();
    let entries = thread::scope(|threads| {
        let workers: [_; WORKERS] = std::array::from_fn(|worker| {
            threads.spawn(move || server.failing(server.work::<S>(worker as u64)))
        });
        let entries = server.failing(server.watch::<S>(threads, &mut requests, print));
        for worker in workers {
            worker.join().expect("no thread panics")?;
        }
        entries
    })?;
    let entries = entries + server.cache.expire(u64::MAX)?;
    print(Line::Total(Total {
        requests: requests.len(),
        latency: Latency::of(&requests),
        peak: peak_bytes().ok_or(NOT_TOLD)?,
        processor: processor_time().as_secs_f64(),
        entries,
    }));
    Ok(())
}

impl Server {
    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Hands a result through. If it is an error, all threads end soon.
    fn failing<T>(&self, result: Result<T, String>) -> Result<T, String> {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Serves the requests of one worker until the run is over.
    fn work<S: Scope>(&self, worker: u64) -> Result<(), String> {
        let mut arrivals = Arrivals::new(self.curve, WORKERS, worker).map(nanoseconds).peekable();
        let mut numbers = (worker..).step_by(WORKERS);
        let mut waiting: BTreeMap<(u64, u64), (Waiting<S>, u64)> = BTreeMap::new();
        let end = nanoseconds(self.curve.seconds());
        let mut awake = self.now();
        while !self.failed.load(Ordering::Relaxed) {
            let arrival = arrivals.peek().copied().unwrap_or(end);
            let ends = waiting.first_key_value().map_or(end, |((ends, _), _)| *ends);
            let due = arrival.min(ends);
            if due >= end {
                thread::sleep(Duration::from_nanos(end.saturating_sub(self.now())));
                break;
            }
            let now = self.now();
            if now < due {
                thread::sleep(Duration::from_nanos(due - now));
                awake = self.now();
            }
            // Late because of earlier requests counts; late because the system did not wake it in time does not.
            let from = due.max(awake);
            if arrival <= ends {
                arrivals.next();
                let number = numbers.next().expect("numbers do not end");
                let (request, wait) = Waiting::<S>::begin(number, due, &self.lifetimes, &self.cache);
                self.waiting.fetch_add(request.bytes(), Ordering::Relaxed);
                waiting.insert((due + nanoseconds(wait), number), (request, self.now() - from));
            } else if let Some((_, (request, before))) = waiting.pop_first() {
                self.waiting.fetch_sub(request.bytes(), Ordering::Relaxed);
                request.end()?;
                let took = before + self.now() - from;
                let mut histogram = self.latencies[worker as usize].lock().expect("no thread panics");
                histogram.saturating_record(took);
            }
        }
        // Those that would wait beyond the end of the run.
        waiting.into_values().try_for_each(|(request, _)| request.end())
    }

    /// Prints a line every second, with what requests took in it, and lets threads come and go; how many entries these have
    /// compared. `requests` gets what all requests took.
    fn watch<'scope, S: Scope>(
        &'scope self,
        threads: &'scope Threads<'scope, '_>,
        requests: &mut Histogram<u64>,
        print: &mut dyn FnMut(Line),
    ) -> Result<u64, String> {
        let mut helpers: VecDeque<ScopedJoinHandle<'scope, Result<u64, String>>> = VecDeque::new();
        let mut of_second = histogram();
        let mut entries = 0;
        let ticks = (self.curve.seconds() / HELPER_EVERY.as_secs_f64()) as u32;
        for tick in 1..=ticks {
            thread::sleep((HELPER_EVERY * tick).saturating_sub(self.start.elapsed()));
            if self.failed.load(Ordering::Relaxed) {
                break;
            }
            helpers.push_back(threads.spawn(move || self.help::<S>(u64::from(tick))));
            if helpers.len() > HELPERS
                && let Some(helper) = helpers.pop_front()
            {
                entries += helper.join().expect("no thread panics")?;
            }
            if (HELPER_EVERY * tick).subsec_nanos() == 0 {
                of_second.reset();
                for latencies in &self.latencies {
                    let mut latencies = latencies.lock().expect("no thread panics");
                    of_second.add(&*latencies).expect("both have the same bounds");
                    latencies.reset();
                }
                requests.add(&of_second).expect("both have the same bounds");
                print(Line::Second(self.second(&of_second)?));
            }
        }
        for helper in helpers {
            entries += helper.join().expect("no thread panics")?;
        }
        Ok(entries)
    }

    /// The line of a second that ends now.
    fn second(&self, requests: &Histogram<u64>) -> Result<Second, String> {
        Ok(Second {
            at: self.start.elapsed().as_secs_f64(),
            resident: resident_bytes_about().ok_or(NOT_TOLD)?,
            requests: requests.len(),
            latency: Latency::of(requests),
            live: (self.waiting.load(Ordering::Relaxed) + self.cache.bytes()).max(0) as u64,
        })
    }

    /// The life of a thread that comes and goes; how many entries it has compared.
    fn help<S: Scope>(&self, seed: u64) -> Result<u64, String> {
        let mut random = Random::new(seed);
        let mut entries = self.cache.expire(self.now())?;
        let mut report = || -> Vec<Block> {
            (0..REPORT).map(|_| Block::filled(skewed_size(random.bits(), 4, 11))).collect()
        };
        S::Requests::run(|| drop(black_box(report())));
        let report = report();
        thread::sleep(HELPER_EVERY * HELPERS as u32);
        entries += self.cache.expire(self.now())?;
        drop(black_box(report));
        Ok(entries)
    }
}

/// Seconds as nanoseconds.
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoScope;

    #[test]
    fn every_request_is_answered_and_every_second_has_a_line() {
        let curve = Curve::new(3.0, 400.0);
        let mut lines = Vec::new();
        day::<NoScope>(curve, &mut |line| lines.push(line)).unwrap();
        let [Line::Second(one), Line::Second(two), Line::Second(three), Line::Total(total)] = lines[..]
        else {
            panic!("{lines:?}")
        };
        assert!(one.at >= 1.0 && one.at < two.at && two.at < three.at);
        assert_eq!(one.requests + two.requests + three.requests, total.requests);
        // Each is counted once, and nearly all have ended.
        let come: usize =
            (0..WORKERS as u64).map(|worker| Arrivals::new(curve, WORKERS, worker).count()).sum();
        assert!((come as u64 / 2..=come as u64).contains(&total.requests), "{} of {come}", total.requests);
        assert!(total.requests > 0 && total.latency.half > 0 && total.latency.all >= total.latency.most);
        // Not against each other: what the system keeps per processor differs by some hundred KiB between looks.
        assert!(total.peak > one.live && one.resident > one.live && one.live > 0, "{one:?} {total:?}");
        assert!(total.processor > 0.0 && total.entries > 0);
    }
}
