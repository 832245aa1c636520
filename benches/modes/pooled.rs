//! The original's request object: taken from a pool, filled, read and given back.

use std::hint::black_box;

use shockwave_alloc::Mode;
use shockwave_alloc::pool::{ArenaPool, RequestPool, SlabPool, StandardPool};

use super::driver::Bench;
use crate::workloads::{Driver, Message, sum};

/// The function's name in its groups.
pub const FUNCTION: &str = "pooled";

/// One operation, in words.
pub const OPERATION: &str =
    "the request is copied into an object of the mode's pool, read, and the object returned";

/// The request of a group, if its object is measured there.
pub fn message(group: &str) -> Option<Message> {
    match group {
        "typical_request" => Some(Message::typical()),
        "large_request" => Some(Message::large()),
        "many_headers" => Some(Message::many_headers()),
        _ => None,
    }
}

/// Has criterion measure it with the pool of `mode`. Returns whether it has run.
pub fn bench(bench: Bench<'_, '_>, mode: Mode, message: &Message) -> bool {
    let (standard, slab, arena) = (StandardPool::new(), SlabPool::new(), ArenaPool::new());
    // Not generic, so that the three run the same instructions.
    let pool: &dyn RequestPool = match mode {
        Mode::Standard => &standard,
        Mode::Slab => &slab,
        Mode::Arena => &arena,
    };
    bench.alone(|| || fill_and_read(pool, black_box(message)))
}

fn fill_and_read(pool: &dyn RequestPool, message: &Message) -> u64 {
    let mut request = pool.get();
    let [method, target, protocol] = message.line();
    request.set_method(method);
    request.set_path(target);
    request.set_proto(protocol);
    for (name, value) in message.headers() {
        request.add_header(name, value);
    }
    request.set_body(message.body());
    let parts = [request.method(), request.path(), request.proto(), black_box(request.body())];
    let parts = parts.into_iter().chain(request.headers().flat_map(|(name, value)| [name, value]));
    parts.map(sum).fold(0, u64::wrapping_add)
}
