//! `fork`: the child gets a copy of the one thread that forked, and of every lock as it was.
//!
//! A lock that another thread held at that moment would never be released in the child. So the process takes all locks
//! of the allocator before it forks, in the order in which they nest, and releases them on both sides afterwards:
//! the child may allocate and free. Heaps of threads that do not exist there stay as they are; blocks of theirs that the child
//! frees wait in their mailboxes.

use crate::{aligned, chunk, escape, mid, scavenge, space, sync};

/// Registers the handlers. Called once.
#[cfg(all(unix, not(miri)))]
pub(crate) fn register() {
    // SAFETY: the handlers do nothing but lock and unlock, and live as long as the process.
    unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after_in_child)) };
}

#[cfg(not(all(unix, not(miri))))]
pub(crate) fn register() {
    let _ = (before, after, after_in_child);
}

extern "C" fn before() {
    escape::lock_for_fork();
    scavenge::lock_for_fork();
    chunk::lock_for_fork();
    mid::lock_for_fork();
    aligned::lock_for_fork();
    space::lock_for_fork();
}

extern "C" fn after() {
    // SAFETY: `before` has taken these locks, in this thread or, in the child, in the thread that this one is a copy of.
    unsafe {
        space::unlock_after_fork();
        aligned::unlock_after_fork();
        mid::unlock_after_fork();
        chunk::unlock_after_fork();
        scavenge::unlock_after_fork();
        escape::unlock_after_fork();
    }
}

extern "C" fn after_in_child() {
    // Kernels that do not copy the registration do it again.
    sync::register_fences();
    scavenge::forget_scavengers();
    after();
}
