//! Requests that leave something behind: what it costs beyond its own bytes.

use std::hint::black_box;

use crate::Scope;
use crate::bench::Scope as _;
use crate::blocks::{Block, Random, skewed_size};
use crate::process::resident_bytes;

/// Requests, of which each leaves one block.
const REQUESTS: usize = 100_000;

/// Bytes that a request asks for, at least.
const REQUEST_BYTES: usize = 4 << 10;

/// Bytes of the block it leaves.
const KEPT_BYTES: usize = 100;

/// Requests before memory is looked at, for what an allocator sets up once.
const WARM_UP: usize = 100;

/// Resident bytes as a multiple of the kept ones: 100,000 requests of 4 KiB (blocks of 16 B to 1 KiB), one after the
/// other, each of which leaves a block of 100 B, made half-way by code that knows of no arena. `None` if the system
/// does not tell.
pub fn escape<S: Scope>() -> Option<f64> {
    let mut kept: Vec<Option<Block>> = Vec::new();
    kept.resize_with(REQUESTS, || None);
    let mut random = Random::new(4);
    for _ in 0..WARM_UP {
        drop(serve::<S>(&mut random));
    }
    let before = resident_bytes()?;
    for slot in &mut kept {
        *slot = Some(serve::<S>(&mut random));
    }
    let after = resident_bytes()?;
    black_box(&kept);
    Some(after.saturating_sub(before) as f64 / (REQUESTS * KEPT_BYTES) as f64)
}

/// One request; the block that it leaves.
fn serve<S: Scope>(random: &mut Random) -> Block {
    S::Requests::run(|| {
        let (mut objects, mut bytes, mut kept) = (Vec::new(), 0, None);
        while bytes < REQUEST_BYTES {
            let size = skewed_size(random.bits(), 4, 10);
            objects.push(Block::filled(size));
            bytes += size;
            if bytes >= REQUEST_BYTES / 2 && kept.is_none() {
                kept = Some(Block::filled(KEPT_BYTES));
            }
        }
        black_box(&objects);
        kept.expect("half of the bytes come before all of them")
    })
}
