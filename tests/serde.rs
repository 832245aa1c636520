//! Statistics as JSON: every field under its name.
#![cfg(feature = "serde")]

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json, to_value};
use shockwave_alloc::pool::{BufferPool, RequestPool, SlabPool};
use shockwave_alloc::{Mode, RequestArena, Shockwave, stats};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// What `Debug` shows as `name: value` at the outermost level.
fn shown_by_debug(value: &impl std::fmt::Debug) -> BTreeSet<String> {
    let text = format!("{value:#?}");
    let fields = text.lines().filter_map(|line| line.strip_prefix("    "));
    let fields = fields.filter(|line| !line.starts_with([' ', '}', ')']));
    fields.filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_owned()).collect()
}

/// The value as an object, after a check that it has every field.
fn complete(value: &(impl Serialize + std::fmt::Debug)) -> Value {
    let object = to_value(value).expect("numbers and names");
    let names: BTreeSet<String> = object.as_object().expect("an object").keys().cloned().collect();
    assert!(!names.is_empty());
    assert_eq!(names, shown_by_debug(value));
    object
}

#[test]
fn statistics_are_serialised_with_every_field() {
    for (mode, name) in [(Mode::Standard, "standard"), (Mode::Slab, "slab"), (Mode::Arena, "arena")] {
        assert_eq!(to_value(mode).expect("a name"), name);
    }

    let stats = stats();
    let object = complete(&stats);
    assert_eq!(object["mode"], "arena");
    assert_eq!(object["committed_bytes"], stats.committed_bytes);
    assert_eq!(object["slab"], json!({ "bytes": stats.slab.bytes, "blocks": stats.slab.blocks }));

    let arena = RequestArena::new();
    let kept = arena.run(|| Box::new([0u8; 100]));
    let object = complete(&arena.stats());
    assert_eq!((&object["blocks"], &object["over_limit"]), (&json!(1), &json!(false)));
    drop(kept);

    let pool = SlabPool::new();
    drop(pool.get());
    std::mem::forget(pool.get());
    let object = complete(&pool.stats());
    assert_eq!(
        (&object["total_requests"], &object["hits"], &object["in_use"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(complete(&pool.check_leaks(0).expect_err("one is forgotten"))["expected"], 0);

    let classes = BufferPool::new().class_stats();
    assert_eq!(complete(&classes[0])["size"], 2048);
    assert_eq!(complete(&classes[6])["size"], Value::Null);
}
