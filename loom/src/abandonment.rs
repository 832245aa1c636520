//! A heap whose owner ends while others post to it, and which a new thread adopts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use loom::sync::atomic::Ordering;
use loom::thread;

use crate::explore;
use crate::heap::{Heap, Mail, Mistake};
use crate::remote::{Mailbox, RemoteFrees};
use crate::weak::WeakMailbox;

/// The owner of a heap collects and ends; `posters` threads free a block each, into a page each, at any time; if
/// `adopter`, another thread adopts the heap if it finds it ownerless, works with it and keeps it.
fn abandon<M: Mail>(mailbox: M, posters: usize, adopter: bool, mistake: Mistake) {
    let pages = (0..posters).map(|_| RemoteFrees::new()).collect();
    let heap = Heap::new(mailbox, pages, mistake);
    let adopted = Arc::new(AtomicBool::new(false));
    let mut threads: Vec<_> = (0..posters)
        .map(|page| {
            let heap = heap.clone();
            thread::spawn(move || heap.free(page, &[0]))
        })
        .collect();
    if adopter {
        let (heap, adopted) = (heap.clone(), adopted.clone());
        threads.push(thread::spawn(move || {
            if heap.try_claim() {
                heap.drain();
                adopted.store(true, Relaxed);
            }
        }));
    }
    heap.drain();
    heap.abandon();
    threads.into_iter().for_each(|thread| thread.join().unwrap());

    if adopted.load(Relaxed) {
        assert!(heap.mailbox.try_claim().is_none(), "the heap has an owner and was claimed");
        // For the adopter, which owns the heap still.
        heap.drain();
    } else {
        assert_eq!(heap.mailbox.try_claim(), Some(0), "an ownerless heap has a page that nobody collects");
    }
    heap.assert_back(1);
}

/// Two threads look for an ownerless heap, and a third posts to it: one at a time has it.
fn adopt_and_post<M: Mail>(mailbox: M, mistake: Mistake) {
    let heap = Heap::new(mailbox, vec![RemoteFrees::new()], mistake);
    heap.abandon();
    let poster = thread::spawn({
        let heap = heap.clone();
        move || heap.free(0, &[0])
    });
    let owners: Vec<_> = (0..2)
        .map(|_| {
            let heap = heap.clone();
            thread::spawn(move || heap.try_claim())
        })
        .collect();
    poster.join().unwrap();
    let owners = owners.into_iter().filter_map(|owner| owner.join().unwrap().then_some(())).count();
    // None if both found the poster at work.
    assert!(owners <= 1, "two threads own the heap");
    if owners == 1 {
        assert!(heap.mailbox.try_claim().is_none(), "the heap has an owner and was claimed");
        heap.drain();
    } else {
        assert_eq!(heap.mailbox.try_claim(), Some(0), "an ownerless heap has a page that nobody collects");
    }
    heap.assert_back(1);
}

#[test]
fn an_owner_ends_while_one_thread_posts() {
    explore(None, || abandon(Mailbox::new(), 1, false, Mistake::None));
}

#[test]
fn an_owner_ends_while_two_threads_post() {
    explore(Some(3), || abandon(Mailbox::new(), 2, false, Mistake::None));
}

#[test]
fn an_owner_ends_while_one_thread_posts_and_one_adopts() {
    explore(Some(3), || abandon(Mailbox::new(), 1, true, Mistake::None));
}

#[test]
fn an_owner_ends_while_two_threads_post_and_one_adopts() {
    explore(Some(2), || abandon(Mailbox::new(), 2, true, Mistake::None));
}

#[test]
fn one_of_two_adopters_wins_beside_a_poster() {
    explore(Some(3), || adopt_and_post(Mailbox::new(), Mistake::None));
}

#[test]
fn the_copy_with_nothing_weakened_passes() {
    explore(Some(3), || abandon(WeakMailbox::faithful(), 1, true, Mistake::None));
    explore(Some(3), || adopt_and_post(WeakMailbox::faithful(), Mistake::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn abandoning_without_releasing_is_refused() {
    explore(Some(3), || {
        let mailbox = WeakMailbox { abandon: Ordering::Relaxed, ..WeakMailbox::faithful() };
        abandon(mailbox, 1, true, Mistake::None);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn claiming_without_acquiring_is_refused() {
    explore(Some(3), || {
        let mailbox = WeakMailbox { claim: Ordering::Relaxed, ..WeakMailbox::faithful() };
        abandon(mailbox, 1, true, Mistake::None);
    });
}

#[test]
#[should_panic]
fn abandoning_in_two_steps_is_refused() {
    explore(Some(3), || {
        let mailbox = WeakMailbox { abandon_in_two_steps: true, ..WeakMailbox::faithful() };
        abandon(mailbox, 1, false, Mistake::None);
    });
}

#[test]
#[should_panic(expected = "two threads own the heap")]
fn claiming_in_two_steps_is_refused() {
    explore(Some(3), || {
        let mailbox = WeakMailbox { claim_in_two_steps: true, ..WeakMailbox::faithful() };
        // Nothing is posted, so that nothing but the two claims can go wrong.
        let heap = Heap::new(mailbox, vec![RemoteFrees::new()], Mistake::None);
        heap.abandon();
        let other = thread::spawn({
            let heap = heap.clone();
            move || heap.mailbox.try_claim().is_some()
        });
        let mine = heap.mailbox.try_claim().is_some();
        assert!(!(other.join().unwrap() && mine), "two threads own the heap");
    });
}

#[test]
#[should_panic(expected = "an ownerless heap has a page that nobody collects")]
fn a_poster_that_does_not_claim_is_refused() {
    explore(Some(3), || abandon(Mailbox::new(), 1, false, Mistake::NoClaim));
}
