//! `SHOCKWAVE_TRACE`: what happens to memory, a line at a time on standard error.
//!
//! Lines are written with `write(2)` and without allocating; the crate's documentation has their format, field by field.

use crate::invariant::{Decimal, say};
use crate::stats::Counters;
use crate::sync::{AtomicU64, Ordering};

/// Arenas per line; 0 if there is no trace.
static EVERY: AtomicU64 = AtomicU64::new(0);

/// Arenas per line if the variable is just 1.
const DEFAULT_EVERY: u64 = 10_000;

/// What `SHOCKWAVE_TRACE` accepts.
pub(crate) const ACCEPTED: &[u8] = b"0 (off), 1 (on), or the number of arenas per line";

/// Reads the value of `SHOCKWAVE_TRACE`. Returns false if it is not understood.
pub(crate) fn configure(value: &[u8]) -> bool {
    let Some(number) = core::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok()) else {
        return false;
    };
    EVERY.store(if number == 1 { DEFAULT_EVERY } else { number }, Ordering::Relaxed);
    if number != 0 {
        #[cfg(all(unix, not(miri)))]
        // SAFETY: the handler is a plain function that does not unwind.
        unsafe {
            libc::atexit(at_exit);
        }
    }
    true
}

/// A thread with `counters`, whose heap has number `heap`, has closed an arena.
#[inline]
pub(crate) fn arena_closed(heap: usize, counters: &Counters) {
    let every = EVERY.load(Ordering::Relaxed);
    if every != 0 {
        arena_closed_slow(heap, counters, every);
    }
}

#[cold]
fn arena_closed_slow(heap: usize, counters: &Counters, every: u64) {
    let closed = counters.arenas_closed.get();
    if !closed.is_multiple_of(every) {
        return;
    }
    let [bytes, escaped, bypassed, allocs] = counters.since_trace();
    line(
        b"arenas",
        &[
            (b"heap", heap as u64),
            (b"closed", closed),
            (b"bytes", bytes),
            (b"escaped", escaped),
            (b"bypassed", bypassed),
        ],
    );
    // Escaped blocks are not measured; they are taken to be of average size.
    if escaped.saturating_mul(20) > allocs {
        let percent = escaped.saturating_mul(100) / allocs.max(1);
        line(b"warning", &[(b"heap", heap as u64), (b"escaped_percent", percent.min(100))]);
    }
}

/// Free pages went back to the OS.
pub(crate) fn purged(bytes: usize, kept: usize) {
    if EVERY.load(Ordering::Relaxed) != 0 && bytes != 0 {
        line(b"purge", &[(b"bytes", bytes as u64), (b"kept", kept as u64)]);
    }
}

#[cfg(all(unix, not(miri)))]
extern "C" fn at_exit() {
    let stats = crate::snapshot::stats();
    line(
        b"exit",
        &[
            (b"closed", stats.arenas_closed),
            (b"bytes", stats.arena_bytes),
            (b"escaped", stats.escaped_blocks),
            (b"bypassed", stats.bypassed_blocks),
            (b"pinned", stats.pinned_bytes),
            (b"committed", stats.committed_bytes),
            (b"resident", stats.resident_bytes),
            (b"backing", stats.backing_calls),
        ],
    );
}

/// Writes one line.
fn line(event: &[u8], fields: &[(&[u8], u64)]) {
    let mut parts: [&[u8]; 40] = [b""; 40];
    let digits: [Decimal; 9] =
        core::array::from_fn(|index| Decimal::new(fields.get(index).map_or(0, |field| field.1)));
    let mut used = 0;
    let mut push = |part| {
        if let Some(place) = parts.get_mut(used) {
            *place = part;
            used += 1;
        }
    };
    push(b"shockwave: ");
    push(event);
    for ((name, _), digits) in fields.iter().zip(&digits) {
        push(b" ");
        push(name);
        push(b"=");
        push(digits.as_bytes());
    }
    push(b"\n");
    say(&parts);
}
