//! Blocks that come back to a heap which has an owner.

use std::sync::Arc;

use loom::sync::atomic::Ordering;
use loom::thread;

use crate::explore;
use crate::heap::{Frees, Heap, Mail, Mistake};
use crate::remote::{Mailbox, RemoteFrees};
use crate::weak::{WeakFrees, WeakMailbox};

fn spawn<F: Frees, M: Mail>(
    heap: &Arc<Heap<F, M>>,
    work: impl FnOnce(&Heap<F, M>) + Send + 'static,
) -> thread::JoinHandle<()> {
    let heap = heap.clone();
    thread::spawn(move || work(&heap))
}

/// Two threads free into the same page, one two single blocks, the other a chain; the owner collects meanwhile, so that
/// the page is taken between pushes and posted again.
fn one_page<F: Frees, M: Mail>(mailbox: M, frees: F, mistake: Mistake) {
    let heap = Heap::new(mailbox, vec![frees], mistake);
    let first = spawn(&heap, |heap| {
        heap.free(0, &[0]);
        heap.free(0, &[1]);
    });
    let second = spawn(&heap, |heap| heap.free(0, &[3, 2]));
    heap.drain();
    heap.drain();
    first.join().unwrap();
    second.join().unwrap();
    heap.drain();
    heap.assert_back(4);
}

/// Two threads free into two pages each; the owner collects meanwhile.
fn two_pages<F: Frees, M: Mail>(mailbox: M, frees: impl Fn() -> F, mistake: Mistake) {
    let heap = Heap::new(mailbox, vec![frees(), frees()], mistake);
    let first = spawn(&heap, |heap| {
        heap.free(0, &[1, 0]);
        heap.free(1, &[0]);
    });
    let second = spawn(&heap, |heap| {
        heap.free(1, &[2, 1]);
        heap.free(0, &[2]);
    });
    heap.drain();
    heap.drain();
    first.join().unwrap();
    second.join().unwrap();
    heap.drain();
    heap.assert_back(3);
}

/// Three threads free into two pages; the owner collects once meanwhile.
fn three_threads<F: Frees, M: Mail>(mailbox: M, frees: impl Fn() -> F, mistake: Mistake) {
    let heap = Heap::new(mailbox, vec![frees(), frees()], mistake);
    let freers = [
        spawn(&heap, |heap| heap.free(0, &[0])),
        spawn(&heap, |heap| heap.free(1, &[1, 0])),
        spawn(&heap, |heap| heap.free(0, &[1])),
    ];
    heap.drain();
    freers.into_iter().for_each(|freer| freer.join().unwrap());
    heap.drain();
    heap.assert_back(2);
}

#[test]
fn frees_into_one_page_come_back_once() {
    explore(Some(4), || one_page(Mailbox::new(), RemoteFrees::new(), Mistake::None));
}

#[test]
fn frees_into_two_pages_come_back_once() {
    explore(Some(3), || two_pages(Mailbox::new(), RemoteFrees::new, Mistake::None));
}

#[test]
fn frees_of_three_threads_come_back_once() {
    explore(Some(3), || three_threads(Mailbox::new(), RemoteFrees::new, Mistake::None));
}

#[test]
fn the_copies_with_nothing_weakened_pass() {
    explore(Some(2), || two_pages(WeakMailbox::faithful(), WeakFrees::faithful, Mistake::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_push_that_does_not_release_is_refused() {
    explore(Some(3), || {
        let frees = WeakFrees { push: Ordering::Acquire, ..WeakFrees::faithful() };
        one_page(WeakMailbox::faithful(), frees, Mistake::None);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn frees_taken_without_acquiring_are_refused() {
    explore(Some(3), || {
        let frees = WeakFrees { take: Ordering::Release, ..WeakFrees::faithful() };
        one_page(WeakMailbox::faithful(), frees, Mistake::None);
    });
}

// Without the next two a page that is posted again may keep the link it had before: the link is stored by one thread,
// then by another, and only the owner's taking of the frees in between says which comes last.

#[test]
#[should_panic(expected = "a block is lost")]
fn a_push_that_does_not_acquire_is_refused() {
    explore(Some(3), || {
        let frees = || WeakFrees { push: Ordering::Release, ..WeakFrees::faithful() };
        two_pages(WeakMailbox::faithful(), frees, Mistake::None);
    });
}

#[test]
#[should_panic(expected = "a page without frees is in the mailbox")]
fn frees_taken_without_releasing_are_refused() {
    explore(Some(3), || {
        let frees = || WeakFrees { take: Ordering::Acquire, ..WeakFrees::faithful() };
        two_pages(WeakMailbox::faithful(), frees, Mistake::None);
    });
}

#[test]
#[should_panic(expected = "a block is lost")]
fn a_post_that_does_not_release_is_refused() {
    explore(Some(3), || {
        let mailbox = WeakMailbox { post: Ordering::Relaxed, ..WeakMailbox::faithful() };
        two_pages(mailbox, WeakFrees::faithful, Mistake::None);
    });
}

#[test]
#[should_panic(expected = "a block is lost")]
fn pages_taken_without_acquiring_are_refused() {
    explore(Some(3), || {
        let mailbox = WeakMailbox { take: Ordering::Relaxed, ..WeakMailbox::faithful() };
        two_pages(mailbox, WeakFrees::faithful, Mistake::None);
    });
}

#[test]
#[should_panic]
fn a_link_read_after_the_frees_were_taken_is_refused() {
    explore(Some(3), || two_pages(Mailbox::new(), RemoteFrees::new, Mistake::LinkReadLate));
}

#[test]
#[should_panic]
fn a_post_for_every_push_is_refused() {
    explore(Some(3), || two_pages(Mailbox::new(), RemoteFrees::new, Mistake::PostAlways));
}
