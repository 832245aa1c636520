//! Atomics and a lock that never allocates.
//!
//! The workspace member `loom` compiles the modules that hand memory from thread to thread against a twin of this module made of
//! loom's atomics; nothing else in the crate knows of loom.

pub(crate) use core::sync::atomic::Ordering;
#[cfg(not(feature = "contention"))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
};

#[cfg(feature = "contention")]
mod counted;
#[cfg(feature = "contention")]
pub(crate) use counted::{
    AtomicBool, AtomicI32, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
};

/// A mutual exclusion lock around `T`. Locking never allocates; waiting is a futex on Linux and yielding elsewhere.
pub(crate) type Lock<T> = lock_api::Mutex<RawLock, T>;

/// Who holds a [`Lock`].
pub(crate) type LockGuard<'a, T> = lock_api::MutexGuard<'a, RawLock, T>;

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
        let taken = self.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        #[cfg(feature = "contention")]
        if taken {
            crate::contention::note_lock();
        }
        taken
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.state.swap(0, Ordering::Release) == 2 {
            wake(&self.state, 1);
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
            wait_while(&self.state, 2);
        }
        #[cfg(feature = "contention")]
        crate::contention::note_lock();
    }
}

/// Runs system calls and leaves `errno` as it was: a program may free memory before it looks at an error of its own.
#[cfg(all(unix, not(miri)))]
pub(crate) fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    #[cfg(feature = "contention")]
    crate::contention::note_system_call();
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

#[cfg(not(all(unix, not(miri))))]
#[allow(dead_code, reason = "not every platform has calls that set it")]
pub(crate) fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    call()
}

/// Waits as long as the state is `value`; spurious returns are allowed.
pub(crate) fn wait_while(state: &AtomicU32, value: u32) {
    #[cfg(all(target_os = "linux", not(miri)))]
    wait(state, value, core::ptr::null());
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        let _ = (state, value);
        std::thread::yield_now();
    }
}

/// Waits as long as the state is `value`, for `ms` milliseconds at most; spurious returns are allowed.
pub(crate) fn wait_while_for(state: &AtomicU32, value: u32, ms: u64) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(ms / 1000).unwrap_or(libc::time_t::MAX),
            tv_nsec: (ms % 1000 * 1_000_000) as _,
        };
        wait(state, value, &timeout);
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        let _ = (state, value);
        std::thread::sleep(core::time::Duration::from_millis(ms.min(50)));
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn wait(state: &AtomicU32, value: u32, timeout: *const libc::timespec) {
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the futex word is valid for the whole call, and so is the timeout, if there is one.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, state.as_ptr(), wait, value, timeout) });
}

/// Wakes all threads that wait for the state.
#[cold]
pub(crate) fn wake_all(state: &AtomicU32) {
    wake(state, i32::MAX);
}

/// Wakes at most `threads` threads that wait for the state.
#[cold]
fn wake(state: &AtomicU32, threads: i32) {
    #[cfg(all(target_os = "linux", not(miri)))]
    keeping_errno(|| {
        let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: waking takes the address of the word only.
        unsafe { libc::syscall(libc::SYS_futex, state.as_ptr(), wake, threads) };
    });
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (state, threads);
}

/// Milliseconds of a clock that never goes back. Coarse: a few ms late, and cheap.
#[inline]
pub(crate) fn now_ms() -> u64 {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the place is valid; the call does not fail for this clock, and if it did the time would stand still.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_millis() as u64
    }
}

/// Whether [`fence_heavy`] makes the other threads' processors execute a fence.
static REMOTE_FENCES: AtomicBool = AtomicBool::new(false);

/// Prepares for [`fence_heavy`]. Called once, before any gate is used.
pub(crate) fn register_fences() {
    #[cfg(all(target_os = "linux", not(miri)))]
    REMOTE_FENCES.store(membarrier(REGISTER_PRIVATE_EXPEDITED), Ordering::Relaxed);
}

/// The fence of the side that passes often: a real one only where [`fence_heavy`] cannot stand in for it.
#[inline]
pub(crate) fn fence_light() {
    if REMOTE_FENCES.load(Ordering::Relaxed) {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    } else {
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// The fence of the side that passes seldom: in every other thread's order of events there is a place before which what it did is
/// visible to this one, and after which it sees what this one did.
pub(crate) fn fence_heavy() {
    #[cfg(all(target_os = "linux", not(miri)))]
    if REMOTE_FENCES.load(Ordering::Relaxed) && !membarrier(PRIVATE_EXPEDITED) {
        crate::invariant::fatal("membarrier fails although it was registered");
    }
    core::sync::atomic::fence(Ordering::SeqCst);
}

/// Commands of `membarrier`, from the kernel's `uapi/linux/membarrier.h`.
#[cfg(all(target_os = "linux", not(miri)))]
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
#[cfg(all(target_os = "linux", not(miri)))]
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

#[cfg(all(target_os = "linux", not(miri)))]
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes no pointer.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } == 0)
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
