//! The gate between the owner of a heap and a visitor.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::explore;
use crate::gate::Gate;
use crate::remote::{MailLink, Mailbox};
use crate::sync::{LeftOut, leave_out};

/// A heap: what may be touched inside the gate, or during a visit, only.
struct Heap {
    gate: Gate,
    kept: UnsafeCell<u32>,
}

// SAFETY: the gate keeps the accesses apart, which is what the models are about; loom notices if it does not.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

impl Heap {
    fn touch(&self) {
        // SAFETY: loom fails if another access is under way or is not ordered with this one.
        self.kept.with_mut(|kept| unsafe { *kept += 1 });
    }
}

/// The owner goes inside `passes` times, nested the second time, while `visitors` come once each.
fn meet(passes: u32, visitors: u32) {
    let heap = Arc::new(Heap { gate: Gate::new(), kept: UnsafeCell::new(0) });
    let threads: Vec<_> = (0..visitors)
        .map(|_| {
            let heap = heap.clone();
            thread::spawn(move || {
                let visit = heap.gate.try_visit();
                if visit.is_some() {
                    heap.touch();
                }
                u32::from(visit.is_some())
            })
        })
        .collect();
    for pass in 0..passes {
        let _inside = heap.gate.enter();
        if pass == 1 {
            drop(heap.gate.enter());
        }
        heap.touch();
    }
    let visits: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    // SAFETY: all others have ended.
    assert_eq!(heap.kept.with(|kept| unsafe { *kept }), passes + visits);
    assert!(heap.gate.try_visit().is_some(), "the gate is open again");
}

/// An owner that ends and the thread that comes after it, which took the heap over through an atomic of its own, and a visitor.
fn hand_over() {
    let heap = Arc::new(Heap { gate: Gate::new(), kept: UnsafeCell::new(0) });
    let visitor = {
        let heap = heap.clone();
        thread::spawn(move || {
            if let Some(_visit) = heap.gate.try_visit() {
                heap.touch();
            }
        })
    };
    let _ = heap.gate.enter();
    let next = {
        let heap = heap.clone();
        thread::spawn(move || {
            let _inside = heap.gate.enter();
            heap.touch();
        })
    };
    next.join().unwrap();
    visitor.join().unwrap();
}

/// The owner of a heap ends while a visitor takes a page from the mailbox, or finds none.
fn abandon_during_a_visit(posted: bool) {
    const PAGE: usize = 128;
    let heap = Arc::new((Mailbox::new(), MailLink::new()));
    if posted {
        heap.0.post(PAGE, &heap.1);
    }
    let visitor = {
        let heap = heap.clone();
        thread::spawn(move || heap.0.take_as_visitor())
    };
    // Once, as if the owner had found nothing: a page that has arrived keeps it from ending.
    let ended = heap.0.try_abandon();
    let taken = visitor.join().unwrap();
    let left = if ended {
        heap.0.try_claim().expect("the visit leaves the heap without an owner")
    } else {
        assert_eq!(heap.0.try_claim(), None, "the heap has its owner");
        heap.0.take()
    };
    // Nothing is lost, nothing is there twice.
    assert_eq!(taken + left, if posted { PAGE } else { 0 });
    assert!(ended || posted);
}

#[test]
fn an_owner_ends_during_a_visit() {
    explore(None, || abandon_during_a_visit(true));
    explore(None, || abandon_during_a_visit(false));
}

#[test]
fn one_visitor() {
    explore(None, || meet(1, 1));
}

#[test]
fn one_visitor_while_the_owner_passes_twice() {
    explore(Some(3), || meet(2, 1));
}

#[test]
fn two_visitors() {
    explore(Some(2), || meet(1, 2));
}

#[test]
fn the_next_owner_passes_too() {
    explore(Some(3), hand_over);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_the_owners_fence_both_go_inside() {
    leave_out(LeftOut::LightFence);
    explore(None, || meet(1, 1));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_the_visitors_fence_both_go_inside() {
    leave_out(LeftOut::HeavyFence);
    explore(None, || meet(1, 1));
}
