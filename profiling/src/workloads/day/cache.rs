//! What outlives requests: entries with an expiry, whose content is compared when they leave.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::blocks::{Random, skewed_size};

/// Parts of the cache, each with a lock of its own.
const SHARDS: usize = 8;

/// Entries that are taken out under one lock.
const AT_ONCE: usize = 64;

/// Powers of two between which the sizes of values are: 64 B to 8 KiB.
const VALUE: (u32, u32) = (6, 13);

/// Entries by when they expire, in nanoseconds since the beginning, and a number that is theirs alone.
type Shard = BTreeMap<(u64, u64), Entry>;

/// The entries that are alive.
pub(super) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    /// Bytes of keys and values.
    bytes: AtomicI64,
}

/// A key and a value, both made from a number.
struct Entry {
    key: String,
    value: Vec<u8>,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), bytes: AtomicI64::new(0) }
    }

    /// Makes the entry `number`, which is not yet there.
    pub(super) fn insert(&self, number: u64, expires: u64) {
        let entry = Entry::new(number);
        self.bytes.fetch_add(entry.bytes(), Ordering::Relaxed);
        let shard = &self.shards[number as usize % SHARDS];
        shard.lock().expect("no thread panics").insert((expires, number), entry);
    }

    /// Frees the entries that have expired by `now`; how many these were. The error names one with another content than it
    /// was made with.
    pub(super) fn expire(&self, now: u64) -> Result<u64, String> {
        let mut count = 0;
        for shard in &self.shards {
            loop {
                let expired = take_expired(&mut shard.lock().expect("no thread panics"), now);
                for (number, entry) in &expired {
                    entry.verify(*number)?;
                    self.bytes.fetch_sub(entry.bytes(), Ordering::Relaxed);
                }
                count += expired.len() as u64;
                if expired.len() < AT_ONCE {
                    break;
                }
            }
        }
        Ok(count)
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Some entries that have expired, with their numbers.
fn take_expired(shard: &mut Shard, now: u64) -> Vec<(u64, Entry)> {
    let mut expired = Vec::new();
    while expired.len() < AT_ONCE
        && let Some(first) = shard.first_entry()
        && first.key().0 <= now
    {
        let ((_, number), entry) = first.remove_entry();
        expired.push((number, entry));
    }
    expired
}

impl Entry {
    fn new(number: u64) -> Self {
        let mut random = Random::new(number);
        let size = skewed_size(random.bits(), VALUE.0, VALUE.1);
        let words = std::iter::repeat_with(|| random.bits().to_le_bytes()).flatten();
        let mut value = Vec::with_capacity(size);
        value.extend(words.take(size));
        Self { key: key(number), value }
    }

    /// Compares it with another one made from the same number.
    fn verify(&self, number: u64) -> Result<(), String> {
        let made = Self::new(number);
        match self.key == made.key && self.value == made.value {
            true => Ok(()),
            false => Err(format!("entry {number} of the cache has another content than it was made with")),
        }
    }

    fn bytes(&self) -> i64 {
        (self.key.len() + self.value.len()) as i64
    }
}

fn key(number: u64) -> String {
    format!("session/{number:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_leave_when_they_expire() {
        let cache = Cache::new();
        for number in 0..1000 {
            cache.insert(number, number / 10);
        }
        let full = cache.bytes();
        assert!(full > 1000 * 64, "{full}");
        assert_eq!((cache.expire(49), cache.expire(49)), (Ok(500), Ok(0)));
        assert!((full / 3..full * 2 / 3).contains(&cache.bytes()));
        assert_eq!((cache.expire(u64::MAX), cache.bytes()), (Ok(500), 0));
    }

    #[test]
    fn another_content_is_noticed() {
        let cache = Cache::new();
        cache.insert(7, 1);
        let mut shard = cache.shards[7].lock().unwrap();
        *shard.get_mut(&(1, 7)).unwrap().value.last_mut().unwrap() ^= 1;
        drop(shard);
        assert!(cache.expire(1).unwrap_err().contains("entry 7"));
    }
}
