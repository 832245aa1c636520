//! Fields of one request, made and dropped as fast as the allocator allows.

use std::collections::HashMap;
use std::hint::black_box;

use super::message::sum;

/// A map with room for four entries, of which one is used, and a body.
pub struct Fields {
    map: HashMap<String, String>,
    body: Vec<u8>,
}

impl Fields {
    /// One entry and 1 KiB.
    pub fn filled() -> Fields {
        let mut map = HashMap::with_capacity(4);
        map.insert(black_box("Content-Type").to_owned(), black_box("application/json").to_owned());
        Fields { map, body: vec![black_box(b'x'); 1 << 10] }
    }

    /// Reads every byte.
    pub fn sum(&self) -> u64 {
        let text = self.map.iter().flat_map(|(name, value)| [name, value]).map(|text| sum(text.as_bytes()));
        text.fold(sum(black_box(&self.body)), u64::wrapping_add)
    }
}
