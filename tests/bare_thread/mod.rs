//! Threads without what the standard library does at the start of its own, which allocates: the first call to
//! the allocator in such a thread is the test's.

use std::ffi::{c_int, c_void};
use std::ptr;

unsafe extern "C" {
    fn pthread_create(
        thread: *mut usize,
        attributes: *const c_void,
        start: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> c_int;
    fn pthread_join(thread: usize, result: *mut *mut c_void) -> c_int;
}

/// Runs `body` with `argument` in a bare thread and waits until the thread, destructors of its thread-locals
/// included, has ended. A panic in `body` aborts the process.
pub fn run<T: Send>(argument: &mut T, body: fn(&mut T)) {
    struct Call<'a, T>(&'a mut T, fn(&mut T));

    extern "C" fn start<T>(call: *mut c_void) -> *mut c_void {
        // SAFETY: `run` passes a `Call<T>` that lives until this thread is joined, and does not touch it
        // meanwhile.
        let call = unsafe { &mut *call.cast::<Call<'_, T>>() };
        (call.1)(call.0);
        ptr::null_mut()
    }

    let mut call = Call(argument, body);
    let mut thread = 0;
    // SAFETY: the start routine takes what it is given, `T` may be used by another thread, and the thread is
    // joined before `call` goes out of scope.
    unsafe {
        let created = pthread_create(&mut thread, ptr::null(), start::<T>, (&raw mut call).cast());
        assert_eq!(created, 0, "a thread starts");
        assert_eq!(pthread_join(thread, ptr::null_mut()), 0);
    }
}
