//! Arena records and trackers that nobody uses: they live for ever and are used again.

use core::cell::Cell;
use core::ptr;

use super::{Arena, Cursor, Diverted};
use crate::space;
use crate::sync::{AtomicU32, AtomicUsize, Lock};
use crate::tenure::Tracker;

/// Unused trackers, and unused records that no heap keeps.
static TRACKERS: Lock<List<Tracker>> = Lock::new(List(ptr::null()));
static RECORDS: Lock<List<Arena>> = Lock::new(List(ptr::null()));

/// What can be in a [`List`].
trait Linked: Sized + 'static {
    fn next(&self) -> &Cell<*const Self>;
}

impl Linked for Tracker {
    fn next(&self) -> &Cell<*const Tracker> {
        &self.next
    }
}

impl Linked for Arena {
    fn next(&self) -> &Cell<*const Arena> {
        &self.next
    }
}

/// A list of what nobody uses, newest first.
struct List<T>(*const T);

// SAFETY: members belong to whoever holds the lock.
unsafe impl<T> Send for List<T> {}

/// Takes a member of the list, or makes one that lives for ever. `None` when there is no memory.
fn take_or_make<T: Linked>(list: &Lock<List<T>>, make: impl FnOnce() -> T) -> Option<&'static T> {
    let mut unused = list.lock();
    // SAFETY: members are valid for ever and belong to whoever takes them from the list.
    if let Some(member) = unsafe { unused.0.as_ref() } {
        unused.0 = member.next().get();
        return Some(member);
    }
    drop(unused);
    let record = space::alloc_record(size_of::<T>()).cast::<T>();
    if record.is_null() {
        return None;
    }
    // SAFETY: the record is big and aligned enough, lives for ever, and nobody else has it.
    unsafe {
        record.write(make());
        Some(&*record)
    }
}

/// Puts back what nobody uses any more.
fn put<T: Linked>(list: &Lock<List<T>>, member: &'static T) {
    let mut unused = list.lock();
    member.next().set(unused.0);
    unused.0 = member;
}

/// Takes the locks of this module, before a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget((RECORDS.lock(), TRACKERS.lock()));
}

/// # Safety
///
/// [`lock_for_fork`] must have been called before the fork.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on.
    unsafe {
        RECORDS.force_unlock();
        TRACKERS.force_unlock();
    }
}

/// A tracker for an arena. `None` when there is no memory.
#[cold]
pub(super) fn new_tracker() -> Option<&'static Tracker> {
    take_or_make(&TRACKERS, Tracker::new)
}

/// Keeps a tracker for any arena.
pub(super) fn retire_tracker(tracker: &'static Tracker) {
    put(&TRACKERS, tracker);
}

/// A new record, or one that was used before. `None` when there is no memory.
#[cold]
#[inline(never)]
pub(crate) fn new_record() -> Option<&'static Arena> {
    take_or_make(&RECORDS, || Arena {
        cursor: Cell::new(Cursor::NONE),
        entered: AtomicU32::new(0),
        thread: AtomicUsize::new(0),
        next: Cell::new(ptr::null()),
        chunks: Cell::new(0),
        earlier_bytes: Cell::new(0),
        reserve: Cell::new(ptr::null()),
        reserved: Cell::new(0),
        keep: Cell::new(0),
        inherited: Cell::new((0, 0)),
        floor: Cell::new(0),
        bypassed: Cell::new((0, 0)),
        bypassed_now: Cell::new(0),
        outside: Cell::new((0, 0)),
        allocs: Cell::new(0),
        past_allocs: Cell::new(0),
        retired_bytes: Cell::new(0),
        past_bytes: Cell::new((0, 0)),
        limit: Cell::new(u64::MAX),
        diverted: Cell::new(Diverted::No),
        kind: Cell::new(0),
        wiping: Cell::new(false),
        tracker: Cell::new(ptr::null()),
        recorder: Cell::new(None),
        plain: Cell::new(false),
    })
}

/// Keeps a record, which must be closed, for any thread.
pub(crate) fn retire_record(arena: &'static Arena) {
    put(&RECORDS, arena);
}
