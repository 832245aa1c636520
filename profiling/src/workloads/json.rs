//! A document as a tree of small allocations.

use std::fmt::Write;
use std::hint::black_box;

use serde_json::Value;

use super::fragmented::aged_heap;
use crate::{Clock, Sample, Scope};

/// Objects in the document.
const OBJECTS: usize = 50;

/// One operation: a document of 50 objects (four members each: a number, a string, a truth value and an array
/// of two strings; 3.6 KB) is parsed into a [`serde_json::Value`], printed into a new buffer, as a server
/// does, and both are dropped.
pub fn json<S: Scope>(clock: &Clock) -> Sample {
    let text = document();
    let call = || {
        let value: Value = serde_json::from_str(black_box(&text)).expect("the document is valid");
        serde_json::to_vec(&value).expect("a value can be printed").len() as u64
    };
    // SAFETY: the value and the buffer end with the call; parsing keeps nothing.
    unsafe { clock.measure_scoped::<S>(1, call) }
}

/// [`json`] on the heap of [`typical_fragmented`](super::http::typical_fragmented).
pub fn json_fragmented<S: Scope>(clock: &Clock) -> Sample {
    let _left = aged_heap();
    json::<S>(clock)
}

/// The text that is parsed.
fn document() -> String {
    let mut text = String::from("{\"users\":[");
    for id in 0..OBJECTS {
        let separator = if id == 0 { "" } else { "," };
        let active = id % 3 == 0;
        write!(
            text,
            "{separator}{{\"id\":{id},\"name\":\"Member {id}\",\"active\":{active},\
             \"tags\":[\"reader\",\"since 20{id:02}\"]}}"
        )
        .expect("writing to a string does not fail");
    }
    text.push_str("]}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_fifty_objects_and_survives_the_round_trip() {
        let value: Value = serde_json::from_str(&document()).unwrap();
        assert_eq!(value["users"].as_array().unwrap().len(), OBJECTS);
        assert_eq!(serde_json::from_str::<Value>(&value.to_string()).unwrap(), value);
    }
}
