//! An [`EscapeReport`] as a profile of `pprof`: the messages of `profile.proto` that it needs.

use std::collections::HashMap;

use prost::Message;

use crate::escape::EscapeReport;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct ValueType {
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Location {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Line {
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    #[prost(int64, tag = "2")]
    pub line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "2")]
    pub name: i64,
    #[prost(int64, tag = "4")]
    pub filename: i64,
}

/// Strings by their index in the profile's table, in which the first is empty.
#[derive(Default)]
struct Strings {
    index: HashMap<String, i64>,
    table: Vec<String>,
}

impl Strings {
    fn index(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.index.get(text) {
            return index;
        }
        let index = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.index.insert(text.to_owned(), index);
        index
    }
}

pub(crate) fn encode(report: &EscapeReport) -> Vec<u8> {
    profile(report).encode_to_vec()
}

fn profile(report: &EscapeReport) -> Profile {
    let mut strings = Strings::default();
    strings.index("");
    let sample_type = [("blocks", "count"), ("space", "bytes"), ("pinned", "bytes")]
        .map(|(name, unit)| ValueType { r#type: strings.index(name), unit: strings.index(unit) })
        .to_vec();
    let mut profile = Profile { sample_type, ..Profile::default() };
    // One location for each function and line; functions and locations have the same numbers.
    let mut ids: HashMap<(i64, i64, u32), u64> = HashMap::new();
    for site in &report.sites {
        let location_id = site
            .frames
            .iter()
            .map(|frame| {
                let (name, file) = (strings.index(&frame.function), strings.index(&frame.file));
                let next = ids.len() as u64 + 1;
                *ids.entry((name, file, frame.line)).or_insert_with(|| {
                    profile.function.push(Function { id: next, name, filename: file });
                    let line = Line { function_id: next, line: i64::from(frame.line) };
                    profile.location.push(Location { id: next, line: vec![line] });
                    next
                })
            })
            .collect();
        let value = [site.count, site.bytes, site.pinned_bytes].map(|value| value as i64).to_vec();
        profile.sample.push(Sample { location_id, value });
    }
    profile.string_table = strings.table;
    profile
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::{EscapeFrame, EscapeSite};

    #[test]
    fn a_report_survives_the_encoding() {
        let frame = |function: &str, line| EscapeFrame {
            function: function.into(),
            file: "src/cache.rs".into(),
            line,
        };
        let site =
            |count, frames| EscapeSite { count, bytes: count * 100, pinned_bytes: count << 16, frames };
        let sites = vec![
            site(3, vec![frame("insert", 10), frame("handle", 20)]),
            site(2, vec![frame("grow", 5), frame("handle", 20)]),
        ];
        let decoded = Profile::decode(&*encode(&EscapeReport { arenas: 1, sites })).expect("a profile");
        let text = |index: i64| decoded.string_table[index as usize].as_str();
        assert_eq!(text(0), "");
        assert_eq!(
            decoded.sample_type.iter().map(|kind| text(kind.r#type)).collect::<Vec<_>>(),
            ["blocks", "space", "pinned"]
        );
        let stacks: Vec<Vec<(&str, i64)>> = decoded
            .sample
            .iter()
            .map(|sample| {
                let location =
                    |id: &u64| decoded.location.iter().find(|location| location.id == *id).expect("known");
                let function =
                    |id: u64| decoded.function.iter().find(|function| function.id == id).expect("known");
                let lines = sample.location_id.iter().map(|id| location(id).line[0]);
                lines.map(|line| (text(function(line.function_id).name), line.line)).collect()
            })
            .collect();
        assert_eq!(stacks, [[("insert", 10), ("handle", 20)], [("grow", 5), ("handle", 20)]]);
        assert_eq!(decoded.sample[1].value, [2, 200, 2 << 16]);
        assert_eq!(decoded.location.len(), 3, "what two stacks share is there once");
    }
}
