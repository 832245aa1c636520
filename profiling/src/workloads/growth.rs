//! One large buffer that grows: what `realloc` is for.

use std::hint::black_box;

use crate::{Clock, Sample};

/// Elements pushed, 8 B each: 32 MB at the end.
const ELEMENTS: u64 = 4_000_000;

/// One operation: a `Vec<u64>` starts empty, four million numbers are pushed without reserving, and it is
/// dropped. The capacity doubles from 4 on, so there are 20 calls of `realloc`.
pub fn vecgrow(clock: &Clock) -> Sample {
    clock.measure(1, || {
        let mut numbers = Vec::new();
        for number in 0..ELEMENTS {
            numbers.push(number);
        }
        black_box(&numbers).len() as u64
    })
}
