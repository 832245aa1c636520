//! Atomics and a lock that never allocates.
//!
//! the workspace member `loom` compiles the modules that hand memory from thread to thread against a twin of this module made of
//! loom's atomics; nothing else in the crate knows of loom.

pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// A mutual exclusion lock around `T`. Locking never allocates; waiting is a futex on Linux and yielding elsewhere.
pub(crate) type Lock<T> = lock_api::Mutex<RawLock, T>;

/// State of a [`Lock`]: 0 free, 1 held, 2 held with a possible waiter (Drepper, "Futexes Are Tricky", mutex 2).
pub(crate) struct RawLock {
    state: AtomicU32,
}

// SAFETY: only the thread that changed the state from 0 holds the lock, and only `unlock` sets it back to 0.
// The exchange acquires what the previous holder released.
unsafe impl lock_api::RawMutex for RawLock {
    const INIT: RawLock = RawLock { state: AtomicU32::new(0) };
    type GuardMarker = lock_api::GuardNoSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_contended();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.state.swap(0, Ordering::Release) == 2 {
            wake_one(&self.state);
        }
    }
}

impl RawLock {
    #[cold]
    fn lock_contended(&self) {
        for _ in 0..100 {
            if self.state.load(Ordering::Relaxed) == 0 && lock_api::RawMutex::try_lock(self) {
                return;
            }
            core::hint::spin_loop();
        }
        while self.state.swap(2, Ordering::Acquire) != 0 {
            wait_while_contended(&self.state);
        }
    }
}

/// Runs system calls and leaves `errno` as it was: a program may free memory before it looks at an error of its own.
#[cfg(all(unix, not(miri)))]
pub(crate) fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    #[cfg(target_os = "linux")]
    // SAFETY: the location is this thread's own and always valid.
    let errno = unsafe { libc::__errno_location() };
    #[cfg(target_os = "linux")]
    // SAFETY: as above.
    let before = unsafe { *errno };
    let result = call();
    #[cfg(target_os = "linux")]
    // SAFETY: as above.
    unsafe {
        *errno = before;
    }
    result
}

#[cfg(miri)]
fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    call()
}

/// Waits until the state may no longer be 2; spurious returns are allowed.
fn wait_while_contended(state: &AtomicU32) {
    #[cfg(target_os = "linux")]
    keeping_errno(|| {
        let forever = core::ptr::null::<libc::timespec>();
        let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the futex word is valid for the whole call; a null timeout waits without limit.
        unsafe { libc::syscall(libc::SYS_futex, state.as_ptr(), wait, 2u32, forever) };
    });
    #[cfg(not(target_os = "linux"))]
    {
        let _ = state;
        std::thread::yield_now();
    }
}

/// Wakes one thread that waits for the state.
#[cold]
fn wake_one(state: &AtomicU32) {
    #[cfg(target_os = "linux")]
    keeping_errno(|| {
        let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: waking takes the address of the word only.
        unsafe { libc::syscall(libc::SYS_futex, state.as_ptr(), wake, 1u32) };
    });
    #[cfg(not(target_os = "linux"))]
    let _ = state;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_excludes_and_wakes() {
        static COUNT: Lock<u64> = Lock::new(0);
        let rounds = if cfg!(miri) { 20 } else { 50_000 };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        *COUNT.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*COUNT.lock(), 4 * rounds);
    }
}
