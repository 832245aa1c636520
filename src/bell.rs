//! The scavenger's sleep, and what wakes it.

use crate::sync::{AtomicU32, Ordering, wait_while_for, wake_all};

/// [`AWAKE`], [`DOZING`] or [`RUNG`]: whether the scavenger has found nothing to do and sleeps for longer than a period.
static BELL: AtomicU32 = AtomicU32::new(AWAKE);
const AWAKE: u32 = 0;
const DOZING: u32 = 1;
const RUNG: u32 = 2;

/// Tells a dozing scavenger that there is something to do.
#[inline]
pub(crate) fn ring() {
    if BELL.load(Ordering::Relaxed) == DOZING && BELL.swap(RUNG, Ordering::Relaxed) == DOZING {
        wake_all(&BELL);
    }
}

/// The scavenger sleeps for `ms` milliseconds, or until [`ring`] if `dozing`. Returns early now and then.
pub(crate) fn sleep(ms: u64, dozing: bool) {
    let state = if dozing { DOZING } else { AWAKE };
    BELL.store(state, Ordering::Relaxed);
    wait_while_for(&BELL, state, ms);
    BELL.store(AWAKE, Ordering::Relaxed);
}

/// Wakes the scavengers from any sleep.
pub(crate) fn wake_scavengers() {
    BELL.store(RUNG, Ordering::Relaxed);
    wake_all(&BELL);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_dozes_is_woken() {
        let (done, ended) = mpsc::channel();
        thread::spawn(move || {
            sleep(3_600_000, true);
            done.send(()).expect("the test waits");
        });
        while BELL.load(Ordering::Relaxed) != DOZING {
            thread::yield_now();
        }
        ring();
        ended.recv_timeout(Duration::from_secs(30)).expect("it wakes up");
        assert_eq!(BELL.load(Ordering::Relaxed), AWAKE);
    }
}
