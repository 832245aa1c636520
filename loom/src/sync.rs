//! The twin of the crate's `sync`: loom's atomics, each beside a probe that makes loom see all its accesses.
//!
//! Loom explores two orders of two accesses only where it knows that the order matters, and remembers but the last access
//! to an atomic. A thread's own load therefore hides what other threads did before from the exchange that follows it
//! (tokio-rs/loom#166, #392), which is every compare-and-swap loop. A relaxed read-modify-write of the probe before each
//! access depends on all others and is never hidden; it orders nothing, so it hides no race.
//!
//! `AtomicIsize` goes without: only the owner of a chunk ever loads its balance.

pub(crate) use loom::sync::atomic::{AtomicIsize, Ordering};

use std::cell::Cell;

macro_rules! probed {
    ($($name:ident $value:ty;)*) => {$(
        #[derive(Debug)]
        pub(crate) struct $name {
            probe: loom::sync::atomic::AtomicUsize,
            word: loom::sync::atomic::$name,
        }

        #[allow(dead_code, reason = "not every type is used in every way")]
        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                $name {
                    probe: loom::sync::atomic::AtomicUsize::new(0),
                    word: loom::sync::atomic::$name::new(value),
                }
            }

            fn probed(&self) -> &loom::sync::atomic::$name {
                self.probe.fetch_add(1, Ordering::Relaxed);
                &self.word
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.probed().load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.probed().store(value, order);
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                self.probed().swap(value, order)
            }

            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.probed().fetch_add(value, order)
            }

            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.probed().fetch_sub(value, order)
            }

            pub(crate) fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.probed().fetch_and(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.probed().compare_exchange(current, new, success, failure)
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.probed().compare_exchange_weak(current, new, success, failure)
            }
        }
    )*};
}

probed! {
    AtomicU32 u32;
    AtomicUsize usize;
}

/// A fence of the gate that is left out, to show that the model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    Nothing,
    LightFence,
    HeavyFence,
}

std::thread_local! {
    /// Loom runs the threads of a model on one thread of the system.
    static LEFT_OUT: Cell<LeftOut> = const { Cell::new(LeftOut::Nothing) };
}

/// Leaves a fence out from now on, in the models of this test.
pub(crate) fn leave_out(fence: LeftOut) {
    LEFT_OUT.set(fence);
}

/// The crate's is a fence of the compiler, for which the heavy one stands in: it is as if both were real.
pub(crate) fn fence_light() {
    if LEFT_OUT.get() != LeftOut::LightFence {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

pub(crate) fn fence_heavy() {
    if LEFT_OUT.get() != LeftOut::HeavyFence {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Returns at once: the caller looks again.
pub(crate) fn wait_while(_state: &AtomicU32, _value: u32) {
    loom::thread::yield_now();
}

pub(crate) fn wake_all(_state: &AtomicU32) {}
