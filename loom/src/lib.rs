//! Models of the hand-overs between threads, explored by loom: `cargo test --release -p loom-models`.
//!
//! `src/remote.rs` and `src/gate.rs` are compiled here a second time, as they stand, against loom's atomics. Around it the models put what
//! the rest of the crate does with memory that is not atomic, in loom's `UnsafeCell`, so that a missing happens-before
//! is a failure as much as a wrong result is.
//!
//! Each model also runs with copies of the protocols ([`weak`]) in which one ordering is weaker or one step is left out,
//! and loom must refuse every one of them: a model that cannot fail shows nothing.
//!
//! What loom does not explore: loads that see a store which comes later in its own order (load buffering). Where that
//! matters the comments in `src/remote.rs` argue instead.
#![cfg(test)]

mod abandonment;
mod gates;
mod heap;
mod live_count;
mod remote_frees;
mod sync;
mod weak;

#[expect(dead_code, reason = "the models need no statistics")]
#[path = "../../src/remote.rs"]
mod remote;

#[expect(dead_code, reason = "whether the owner waits matters to nobody here")]
#[path = "../../src/gate.rs"]
mod gate;

/// Explores all executions of a model in which threads are preempted at most `preemptions` times, or all if `None`.
fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}
