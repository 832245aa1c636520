//! Process-wide state: the mode, and what happens once at the first allocation.

use crate::config::{self, Config, Mode};
use crate::invariant::say;
use crate::size_class::{self, SMALL_MAX};
use crate::sync::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use crate::{escape, fork, heap, space, sync, trace};

/// What the fast path of an allocation reads. One static, because finding one costs a load in itself.
#[repr(C, align(64))]
pub(crate) struct Routes {
    /// Requests whose extent is below this take the fast path: [`SMALL_MAX`], or 0 as long as nothing is set up, in
    /// [`Mode::Standard`], and where there is no reservation. So one comparison tells all of these apart from the ordinary.
    small_limit: AtomicUsize,
    class_of: [u8; SMALL_MAX / 8],
}

static ROUTES: Routes = Routes { small_limit: AtomicUsize::new(0), class_of: size_class::CLASS_OF };

/// Whether sizes whose blocks escape are placed outside of arenas.
static PRETENURES: AtomicBool = AtomicBool::new(true);

/// Whether arenas learn from what escapes, and keep away from what pins too much.
#[inline]
pub(crate) fn pretenures() -> bool {
    PRETENURES.load(Ordering::Relaxed)
}

/// The size class of a request whose extent is below the limit; `None` sends it to the slow path.
#[inline]
pub(crate) fn route(extent: usize) -> Option<usize> {
    if extent >= ROUTES.small_limit.load(Ordering::Relaxed) {
        return None;
    }
    Some(class_of(extent))
}

/// The size class of a small extent.
#[inline]
pub(crate) fn class_of(extent: usize) -> usize {
    debug_assert!(extent < SMALL_MAX);
    // SAFETY: the extent is small: no limit is above SMALL_MAX, and other callers have compared.
    usize::from(unsafe { *ROUTES.class_of.get_unchecked(extent >> 3) })
}

static MODE: AtomicU8 = AtomicU8::new(Mode::Arena as u8);
/// Whether [`set_mode`] was called, which outweighs configuration.
static MODE_SET: AtomicU8 = AtomicU8::new(0);

/// 0 nothing done, 1 under way, 2 ready with a reservation, 3 ready without.
static STATE: AtomicU8 = AtomicU8::new(0);
const UNDER_WAY: u8 = 1;
const READY: u8 = 2;
const REFUSED: u8 = 3;

/// The current mode.
///
/// ```
/// use shockwave_alloc::{Mode, mode, set_mode};
///
/// set_mode(Mode::Slab);
/// assert_eq!(mode(), Mode::Slab);
/// ```
#[inline]
pub fn mode() -> Mode {
    Mode::from_repr(MODE.load(Ordering::Relaxed))
}

/// Changes the mode of the process, at any moment and from any thread.
///
/// New allocations follow the new mode as soon as each thread sees it. Frees and reallocations find their way by address,
/// so blocks allocated in another mode stay valid and are freed where they came from. A scope that is entered while
/// the mode changes is finished in its arena.
///
/// ```
/// use shockwave_alloc::{Mode, set_mode};
///
/// let block = vec![1u8; 100];
/// set_mode(Mode::Standard);
/// drop(block);
/// set_mode(Mode::Arena);
/// ```
pub fn set_mode(mode: Mode) {
    MODE_SET.store(1, Ordering::Relaxed);
    MODE.store(mode as u8, Ordering::SeqCst);
    publish_limit();
}

fn publish_limit() {
    loop {
        let mode = mode();
        let limit = if has_reservation() && mode != Mode::Standard { SMALL_MAX } else { 0 };
        ROUTES.small_limit.store(limit, Ordering::SeqCst);
        // Another thread may have set the mode and published its limit before this one.
        if MODE.load(Ordering::SeqCst) == mode as u8 {
            return;
        }
    }
}

/// Whether there is a reservation to allocate from. Sets everything up at the first call.
#[inline]
pub(crate) fn ready(config: &Config) -> bool {
    match STATE.load(Ordering::Acquire) {
        READY => true,
        REFUSED => false,
        _ => start(config),
    }
}

#[cold]
fn start(config: &Config) -> bool {
    if STATE.compare_exchange(0, UNDER_WAY, Ordering::Acquire, Ordering::Acquire).is_err() {
        // Another thread is at it; it makes two system calls.
        loop {
            match STATE.load(Ordering::Acquire) {
                READY => return true,
                REFUSED => return false,
                _ => std::thread::yield_now(),
            }
        }
    }
    let mut config = *config;
    read_environment(&mut config);
    heap::set_slab_size(config.slab_size);
    PRETENURES.store(config.pretenuring, Ordering::Relaxed);
    if MODE_SET.load(Ordering::Relaxed) == 0 {
        MODE.store(config.mode as u8, Ordering::Relaxed);
    }
    sync::register_fences();
    let granted = space::reserve(config.reservation, config.huge_pages);
    fork::register();
    STATE.store(if granted { READY } else { REFUSED }, Ordering::Release);
    publish_limit();
    granted
}

/// Lets the environment override the configuration, and says so if it cannot.
fn read_environment(config: &mut Config) {
    match variable(c"SHOCKWAVE_MODE") {
        None => {}
        Some(value) => match Mode::from_bytes(value) {
            Some(mode) => config.mode = mode,
            None => {
                complain(b"SHOCKWAVE_MODE", value, b"standard, slab or arena", config.mode.name().as_bytes())
            }
        },
    }
    if let Some(value) = variable(c"SHOCKWAVE_TRACE")
        && !trace::configure(value)
    {
        complain(b"SHOCKWAVE_TRACE", value, trace::ACCEPTED, b"0");
    }
    if let Some(value) = variable(c"SHOCKWAVE_ESCAPES")
        && !escape::configure(value)
    {
        let accepted =
            b"with the feature `escape-trace` of the crate the number of arenas per traced one, 0 for none";
        complain(b"SHOCKWAVE_ESCAPES", value, accepted, b"0");
    }
    if let Some(value) = variable(c"SHOCKWAVE_SLAB_SIZE") {
        match config::parse_slab_size(value) {
            Some(size) => config.slab_size = size,
            None => complain(
                b"SHOCKWAVE_SLAB_SIZE",
                value,
                b"a multiple of 64K from 64K to 16M, in bytes or with the suffix K or M",
                b"the configured size",
            ),
        }
    }
}

fn complain(name: &[u8], value: &[u8], accepted: &[u8], used: &[u8]) {
    // Long values are cut, so that the line says what is accepted in any case.
    let shown = value.get(..40).unwrap_or(value);
    say(&[
        b"shockwave: ",
        name,
        b"=",
        shown,
        b" is not understood; accepted: ",
        accepted,
        b"; using ",
        used,
        b"\n",
    ]);
}

/// The value of an environment variable, without allocating.
fn variable(name: &core::ffi::CStr) -> Option<&'static [u8]> {
    #[cfg(all(unix, not(miri)))]
    {
        // SAFETY: the name is a C string. The first allocation of a Rust program comes before `main`, when no other
        // thread can change the environment; the value is not used after that.
        let value = unsafe { libc::getenv(name.as_ptr()) };
        // SAFETY: not null, so a C string of the environment.
        (!value.is_null()).then(|| unsafe { core::ffi::CStr::from_ptr(value) }.to_bytes())
    }
    #[cfg(not(all(unix, not(miri))))]
    {
        let _ = name;
        None
    }
}

/// Whether there is a reservation, without setting anything up.
#[inline]
pub(crate) fn has_reservation() -> bool {
    STATE.load(Ordering::Acquire) == READY
}
