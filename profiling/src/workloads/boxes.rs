//! Boxes of one size: the shortest paths of an allocator.

use std::hint::black_box;

use crate::{Clock, Sample, Scope};

/// Pairs in one scope: an arena per pair would measure entering it and nothing else.
const PAIRS_PER_SCOPE: u64 = 1000;

/// Boxes alive at once in [`batch`].
const BATCH: u64 = 1000;

/// One operation: a box of 32 B is made and dropped. The block that was freed last is the next one handed
/// out, so this is the fast path with everything in the first cache level.
pub fn pair<S: Scope>(clock: &Clock) -> Sample {
    let call = || {
        for number in 0..PAIRS_PER_SCOPE {
            drop(black_box(Box::new([number; 4])));
        }
        PAIRS_PER_SCOPE
    };
    // SAFETY: each box is dropped where it is made.
    unsafe { clock.measure_scoped::<S>(PAIRS_PER_SCOPE, call) }
}

/// One operation: 1000 boxes of 64 B are made, then all dropped in the order they were made. The list that
/// holds them is there before.
pub fn batch<S: Scope>(clock: &Clock) -> Sample {
    let mut boxes = Vec::with_capacity(BATCH as usize);
    let call = || {
        for number in 0..BATCH {
            boxes.push(Box::new([number; 8]));
        }
        black_box(&boxes);
        boxes.clear();
        BATCH
    };
    // SAFETY: `clear` drops every box within the call, and the list never grows.
    unsafe { clock.measure_scoped::<S>(1, call) }
}
