//! Arena records and trackers that nobody uses: they live for ever and are used again.

use core::cell::Cell;
use core::ptr;

use super::{Arena, Cursor, Diverted};
use crate::space;
use crate::sync::{AtomicU32, AtomicUsize, Lock};
use crate::tenure::Tracker;

/// Unused trackers.
static TRACKERS: Lock<UnusedTrackers> = Lock::new(UnusedTrackers(ptr::null()));

struct UnusedTrackers(*const Tracker);

// SAFETY: unused trackers belong to whoever holds the lock.
unsafe impl Send for UnusedTrackers {}

/// Takes the locks of this module, before a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget((UNUSED.lock(), TRACKERS.lock()));
}

/// # Safety
///
/// [`lock_for_fork`] must have been called before the fork.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on.
    unsafe {
        UNUSED.force_unlock();
        TRACKERS.force_unlock();
    }
}

/// A tracker for an arena. `None` when there is no memory.
#[cold]
pub(super) fn new_tracker() -> Option<&'static Tracker> {
    let mut unused = TRACKERS.lock();
    // SAFETY: unused trackers are valid for ever and belong to whoever takes them from the list.
    if let Some(tracker) = unsafe { unused.0.as_ref() } {
        unused.0 = tracker.next.get();
        return Some(tracker);
    }
    drop(unused);
    let record = space::alloc_record(size_of::<Tracker>()).cast::<Tracker>();
    if record.is_null() {
        return None;
    }
    // SAFETY: the record is big and aligned enough, lives for ever, and nobody else has it.
    unsafe {
        record.write(Tracker::new());
        Some(&*record)
    }
}

/// Keeps a tracker for any arena.
pub(super) fn retire_tracker(tracker: &'static Tracker) {
    let mut unused = TRACKERS.lock();
    tracker.next.set(unused.0);
    unused.0 = tracker;
}

/// Unused records that no heap keeps.
static UNUSED: Lock<Unused> = Lock::new(Unused(ptr::null()));

struct Unused(*const Arena);

// SAFETY: unused records belong to whoever holds the lock.
unsafe impl Send for Unused {}

/// A new record, or one that was used before. `None` when there is no memory.
pub(crate) fn new_record() -> Option<&'static Arena> {
    let mut unused = UNUSED.lock();
    // SAFETY: unused records are valid for ever and belong to whoever takes them from the list.
    if let Some(arena) = unsafe { unused.0.as_ref() } {
        unused.0 = arena.next.get();
        return Some(arena);
    }
    drop(unused);
    let record = space::alloc_record(size_of::<Arena>()).cast::<Arena>();
    if record.is_null() {
        return None;
    }
    // SAFETY: the record is big and aligned enough, lives for ever, and nobody else has it.
    unsafe {
        record.write(Arena {
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
            wiping: Cell::new(false),
            tracker: Cell::new(ptr::null()),
            recorder: Cell::new(None),
            plain: Cell::new(false),
        });
        Some(&*record)
    }
}

/// Keeps a record, which must be closed, for any thread.
pub(crate) fn retire_record(arena: &'static Arena) {
    let mut unused = UNUSED.lock();
    arena.next.set(unused.0);
    unused.0 = arena;
}
