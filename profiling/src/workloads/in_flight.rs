//! Memory of many requests at once.

use std::hint::black_box;

use super::http::{Request, message, parse};
use crate::Scope;
use crate::bench::Scope as _;
use crate::process::resident_bytes;

/// Requests that are open at once.
const REQUESTS: usize = 10_000;

/// Headers of a request, and bytes of its body: with their strings and the list of them, parsed it asks for 2 KiB.
const HEADERS: usize = 8;
const BODY_BYTES: usize = 1234;

/// Resident KiB of each of 10,000 open requests; each has parsed 8 headers and a body, 2 KiB in all. `None` if the
/// system does not tell.
pub fn in_flight<S: Scope>() -> Option<f64> {
    let message = message(HEADERS, BODY_BYTES);
    let begin = || S::Requests::open(|| parse(black_box(&message)).expect("the message is valid"));
    let mut open: Vec<Option<(Request, _)>> = Vec::new();
    open.resize_with(REQUESTS, || None);
    // What the first request of a process sets up is not its own. The next request takes its place.
    drop(begin());
    let before = resident_bytes()?;
    for slot in &mut open {
        *slot = Some(begin());
    }
    let after = resident_bytes()?;
    black_box(&open);
    let bytes = after.saturating_sub(before) as f64 / REQUESTS as f64;
    end::<S>(open);
    Some(bytes / 1024.0)
}

/// Ends the requests, each within its scope.
fn end<S: Scope>(open: Vec<Option<(Request, <S::Requests as crate::bench::Scope>::Open)>>) {
    for (request, arena) in open.into_iter().flatten() {
        S::resume(&arena, || drop(request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_two_kib() {
        let bytes = parse(&message(HEADERS, BODY_BYTES)).unwrap().bytes();
        assert!((2040..=2056).contains(&bytes), "{bytes}");
    }
}
