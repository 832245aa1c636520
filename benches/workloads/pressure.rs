//! Requests beside a live heap that they slowly replace: what the original calls GC pressure.
//!
//! There is no collector here whose pauses could grow with the live heap. What can grow is the time that
//! finding and returning blocks takes, and the memory that survivors of requests keep.

use std::hint::black_box;

use super::Scope;
use super::message::Message;
use super::random::Random;

/// Entries of the cache, all live.
const ENTRIES: usize = 20_000;

/// Values are of 16 B up to this.
const MAX_VALUE: usize = 1 << 10;

/// A long-lived entry that a request makes.
pub struct Entry {
    key: String,
    value: Vec<u8>,
}

/// The cache and the request that is served beside it.
pub struct Pressure {
    cache: Vec<Entry>,
    message: Message,
    random: Random,
}

impl Pressure {
    /// A full cache.
    pub fn new() -> Pressure {
        let message = Message::under_pressure();
        let mut random = Random::new(7);
        let cache = (0..ENTRIES).map(|_| entry("/api/v1/entries", message.body(), &mut random)).collect();
        Pressure { cache, message, random }
    }

    /// Serves one request, within a scope. In three of ten it replaces an entry, which `keep` makes.
    pub fn operate<S: Scope>(&mut self, keep: impl FnOnce(&mut dyn FnMut() -> Entry) -> Entry) -> u64 {
        let Pressure { cache, message, random } = self;
        S::run(|| {
            let request = black_box(&*message).parse();
            if random.below(10) < 3 {
                let slot = random.below(ENTRIES);
                cache[slot] = keep(&mut || entry(request.path(), request.body(), random));
            }
            request.sum()
        })
    }

    /// Bytes that the cache asks for: its own table, keys and values.
    pub fn live_bytes(&self) -> usize {
        let content = self.cache.iter().map(|entry| entry.key.capacity() + entry.value.capacity());
        content.sum::<usize>() + self.cache.capacity() * size_of::<Entry>()
    }
}

/// A copy of `key` and of a piece of `body`.
fn entry(key: &str, body: &[u8], random: &mut Random) -> Entry {
    let length = 16 + random.below(MAX_VALUE - 15);
    Entry { key: key.to_owned(), value: body[..length].to_vec() }
}
