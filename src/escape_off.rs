//! What `escape.rs` offers, without the feature `escape-trace`: nothing is traced, at no cost.

use core::alloc::Layout;

use crate::thread::Thread;

/// What a traced arena records: there is none.
#[derive(Clone, Copy)]
pub(crate) enum Recorder {}

pub(crate) fn configure(_value: &[u8]) -> bool {
    false
}

#[inline]
pub(crate) fn may_record() -> bool {
    false
}

#[inline]
pub(crate) fn recorder_for_next_arena(_thread: &Thread) -> Option<Recorder> {
    None
}

pub(crate) fn allocated(recorder: Recorder, _thread: &Thread, _block: *const u8, _layout: Layout) {
    match recorder {}
}

pub(crate) fn freed(recorder: Recorder, _thread: &Thread, _block: *const u8) {
    match recorder {}
}

pub(crate) fn closed(recorder: Recorder, _thread: &Thread, _escaped: u64, _begin: usize, _inherited: u64) {
    match recorder {}
}

pub(crate) fn lock_for_fork() {}

/// # Safety
///
/// None: there is no lock.
pub(crate) unsafe fn unlock_after_fork() {}
