//! The thread that returns memory when nobody else is awake to do it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::{bell, scavenge};

/// How the background thread works; see [`start_scavenger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScavengerConfig {
    /// After this time memory that was not needed has gone back to the OS: 1 s by default; at least 2 ms are taken. It also holds
    /// for what running threads return by the way, once the scavenger has ended.
    pub decay: Duration,
    /// The longest time between two looks while there is nothing to return: 4 s by default. At least `decay` / 2 is taken.
    pub longest_sleep: Duration,
}

impl ScavengerConfig {
    /// The defaults, in a constant.
    pub const DEFAULT: ScavengerConfig = ScavengerConfig {
        decay: Duration::from_millis(scavenge::DEFAULT_DECAY_MS),
        longest_sleep: Duration::from_secs(4),
    };

    /// These settings with another `decay`.
    #[must_use]
    pub const fn decay(mut self, decay: Duration) -> Self {
        self.decay = decay;
        self
    }

    /// These settings with another `longest_sleep`.
    #[must_use]
    pub const fn longest_sleep(mut self, longest_sleep: Duration) -> Self {
        self.longest_sleep = longest_sleep;
        self
    }
}

impl Default for ScavengerConfig {
    fn default() -> Self {
        ScavengerConfig::DEFAULT
    }
}

/// The running thread of [`start_scavenger`]; dropping it ends the thread and waits for that.
#[derive(Debug)]
#[must_use = "the scavenger ends when its handle is dropped"]
pub struct Scavenger {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The process that the thread is of.
    process: u32,
}

/// Starts a thread, `shockwave-scav`, that returns unneeded memory to the OS also when the program does nothing: free pages, spare
/// and empty pages of every thread, asleep or not, and whole OS pages inside slab pages of which few blocks are alive. Out of its reach
/// are only the few free blocks of each size that a sleeping thread has ready for its next allocations, and what it has freed of other
/// threads' blocks and not handed over (at most 512 KiB; [`on_thread_park`](crate::on_thread_park) does).
///
/// Without it threads do the same by the way, a little at a time, when they end arenas or need pages. What is not needed for
/// [`ScavengerConfig::decay`] goes back. While there is nothing to return the looks become rarer, up to
/// [`ScavengerConfig::longest_sleep`].
///
/// # Errors
///
/// If the OS gives no thread.
///
/// ```
/// use shockwave_alloc::{ScavengerConfig, start_scavenger};
///
/// let scavenger = start_scavenger(ScavengerConfig::DEFAULT)?;
/// // ... serve ...
/// drop(scavenger);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn start_scavenger(config: ScavengerConfig) -> io::Result<Scavenger> {
    let ended = Arc::new(AtomicBool::new(false));
    let its = Arc::clone(&ended);
    // Before the thread is there, whose first sleep is of this length.
    let before = scavenge::set_decay(ms(config.decay));
    let thread = Builder::new()
        .name(String::from("shockwave-scav"))
        .stack_size(64 << 10)
        .spawn(move || run(&its, ms(config.longest_sleep)))
        .inspect_err(|_| _ = scavenge::set_decay(before))?;
    Ok(Scavenger { ended, thread: Some(thread), process: std::process::id() })
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn run(ended: &AtomicBool, longest: u64) {
    let _announced = Announced::new();
    let mut sleep = scavenge::period();
    loop {
        let period = scavenge::period();
        bell::sleep(sleep, sleep > period);
        if ended.load(Ordering::Acquire) {
            return;
        }
        let round = scavenge::round();
        sleep = if round.bytes > 0 || round.more {
            period
        } else {
            sleep.saturating_mul(2).min(longest.max(period))
        };
    }
}

/// While it exists nobody else makes rounds.
struct Announced;

impl Announced {
    fn new() -> Announced {
        scavenge::scavenger_starts();
        Announced
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        scavenge::scavenger_ends();
    }
}

impl Drop for Scavenger {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            if self.process != std::process::id() {
                // The child of a fork, which has no such thread.
                std::mem::forget(thread);
                return;
            }
            while !thread.is_finished() {
                // It may just be about to sleep.
                bell::wake_scavengers();
                std::thread::yield_now();
            }
            // The thread does not panic; if it did there would be nothing to clean up.
            let _ = thread.join();
        }
    }
}
