//! Who allocates what outlives its arena: feature `escape-trace`.
//!
//! Some arenas are traced. A traced arena is watched, so that every allocation and free in its scopes takes the slow path,
//! which notes the call stack of each block and forgets it when the block is freed. What is left at the arena's end has escaped
//! and is added to a table by call stack.
//!
//! A recorder belongs to its arena, like the chunks do; the table is behind a lock. Everything here allocates from the program's
//! allocator with no arena entered, so it neither lands in an arena nor traces itself.

use core::alloc::Layout;
use core::fmt;
use core::hash::BuildHasherDefault;
use std::collections::HashMap;
use std::hash::DefaultHasher;

use crate::sync::{AtomicU64, Lock, Ordering};
use crate::thread::{self, Thread};

/// Frames of a call stack that are kept, those of the allocator itself included.
const FRAMES: usize = 48;

/// Bytes of a chunk.
const CHUNK: u64 = crate::space::PAGE_SIZE as u64;

/// Arenas per traced one; 0 if none is.
static EVERY: AtomicU64 = AtomicU64::new(0);
/// Arenas opened since tracing was switched on.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Traces one in `every` arenas from now on, in all threads; 0 traces none.
///
/// A traced arena is slow: some microseconds for each allocation, for its call stack. It holds what pretenuring would place in
/// the slab, so that it is seen. Needs [`Mode::Arena`](crate::Mode::Arena). The environment variable `SHOCKWAVE_ESCAPES=N` does the
/// same from the start.
pub fn trace_escapes(every: u64) {
    EVERY.store(every, Ordering::Relaxed);
}

/// Reads the value of `SHOCKWAVE_ESCAPES`. Returns false if it is not understood.
pub(crate) fn configure(value: &[u8]) -> bool {
    let number = core::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
    number.inspect(|&number| trace_escapes(number)).is_some()
}

/// What a traced arena records. Belongs to the arena until [`closed`].
#[derive(Clone, Copy)]
pub(crate) struct Recorder(*mut Recorded);

/// Live blocks of the arena by address: size and call stack.
#[derive(Default)]
struct Recorded(HashMap<usize, (usize, Stack)>);

/// Instruction pointers, innermost first.
type Stack = Box<[usize]>;

/// Runs `f` with no arena entered, unless this thread is at it already: a backing allocator that `f` calls may come back with
/// scopes of its own, and finds the table locked or a recorder in use.
fn apart<R>(thread: &Thread, f: impl FnOnce() -> R) -> Option<R> {
    if thread.tracing.replace(true) {
        return None;
    }
    let suspended = thread.suspend();
    let result = f();
    thread.leave(suspended);
    thread.tracing.set(false);
    Some(result)
}

/// Whether there are arenas that are traced.
#[inline]
pub(crate) fn may_record() -> bool {
    EVERY.load(Ordering::Relaxed) != 0
}

/// A recorder, if the arena that is being opened is to be traced.
#[inline]
pub(crate) fn recorder_for_next_arena(thread: &Thread) -> Option<Recorder> {
    let every = EVERY.load(Ordering::Relaxed);
    if every == 0 || !OPENED.fetch_add(1, Ordering::Relaxed).is_multiple_of(every) {
        return None;
    }
    apart(thread, || Recorder(Box::into_raw(Box::default())))
}

/// Notes a block that was allocated in a traced arena.
#[cold]
pub(crate) fn allocated(recorder: Recorder, thread: &Thread, block: *const u8, layout: Layout) {
    apart(thread, || {
        let mut frames = [0usize; FRAMES];
        let mut count = 0;
        // SAFETY: only `resolve` in other threads must be kept out, and it is not called by code that this interrupts:
        // capturing instruction pointers alone needs no lock of the crate.
        unsafe {
            backtrace::trace_unsynchronized(|frame| {
                frames[count] = frame.ip().addr();
                count += 1;
                count < FRAMES
            });
        }
        // SAFETY: the recorder belongs to the arena that this thread has entered.
        unsafe { &mut (*recorder.0).0 }.insert(block.addr(), (layout.size(), frames[..count].into()));
    });
}

/// Notes a free in a traced arena.
#[cold]
pub(crate) fn freed(recorder: Recorder, thread: &Thread, block: *const u8) {
    // SAFETY: as in `allocated`.
    apart(thread, || drop(unsafe { &mut (*recorder.0).0 }.remove(&block.addr())));
}

/// A traced arena has ended: what is left has escaped, if `escaped` blocks have, which is the count of the chunks.
///
/// The arena began at address `begin` in a chunk with `inherited` survivors of others; both are 0 if it did not.
#[cold]
pub(crate) fn closed(recorder: Recorder, thread: &Thread, escaped: u64, begin: usize, inherited: u64) {
    // SAFETY: it was made by `recorder_for_next_arena`, and the arena has let it go.
    let recorded = unsafe { Box::from_raw(recorder.0) };
    apart(thread, || {
        let mut table = TABLE.lock();
        table.arenas += 1;
        if escaped == 0 {
            return;
        }
        let mut chunks: HashMap<usize, Shares> = HashMap::new();
        for (address, (size, stack)) in recorded.0 {
            let site = table.sites.entry(stack.clone()).or_default();
            site.count += 1;
            site.bytes += size as u64;
            let shares = chunks.entry(address / CHUNK as usize).or_default();
            shares.known += 1;
            *shares.by_stack.entry(stack).or_default() += 1;
        }
        for (chunk, shares) in chunks {
            if chunk == begin / CHUNK as usize {
                table.chunks.entry(chunk).or_default().add(shares, inherited);
            } else if let Some(before) = table.chunks.insert(chunk, shares) {
                // The page has been empty since.
                before.settle(&mut table.sites);
            }
        }
    });
}

type Sites = HashMap<Stack, Sums, BuildHasherDefault<DefaultHasher>>;

struct Table {
    arenas: u64,
    /// Sums by call stack; pinned bytes without those of `chunks`.
    sites: Sites,
    /// Chunks by page number, in which later arenas may leave survivors, too.
    chunks: HashMap<usize, Shares, BuildHasherDefault<DefaultHasher>>,
}

impl Table {
    const EMPTY: Table = Table {
        arenas: 0,
        sites: HashMap::with_hasher(BuildHasherDefault::new()),
        chunks: HashMap::with_hasher(BuildHasherDefault::new()),
    };
}

#[derive(Clone, Copy, Default)]
struct Sums {
    count: u64,
    bytes: u64,
    pinned_bytes: u64,
}

/// Survivors of traced arenas in a chunk.
#[derive(Default)]
struct Shares {
    by_stack: HashMap<Stack, u64>,
    known: u64,
    /// Most survivors that are known to have been there at once, those of arenas that are not traced included.
    most: u64,
}

impl Shares {
    /// Adds what another arena left in the chunk, in which `inherited` survivors were before.
    fn add(&mut self, other: Shares, inherited: u64) {
        self.known += other.known;
        self.most = self.most.max(inherited + other.known);
        for (stack, count) in other.by_stack {
            *self.by_stack.entry(stack).or_default() += count;
        }
    }

    /// Adds the chunk's bytes to the sites, in proportion to survivors.
    fn settle(&self, sites: &mut Sites) {
        for (stack, count) in &self.by_stack {
            if let Some(site) = sites.get_mut(stack) {
                site.pinned_bytes += CHUNK * count / self.known.max(self.most).max(1);
            }
        }
    }
}

/// Who holds it allocates, so that all other locks of the crate nest in it.
static TABLE: Lock<Table> = Lock::new(Table::EMPTY);

/// Takes the lock of this module, before a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget(TABLE.lock());
}

/// # Safety
///
/// [`lock_for_fork`] must have been called before the fork.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on.
    unsafe { TABLE.force_unlock() };
}

/// Call stacks whose blocks were alive when their arena ended, by the bytes that they pin. Made by [`escape_report`].
///
/// `Display` names for each the innermost function that belongs neither to the standard library nor to the allocator.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EscapeReport {
    /// Arenas that were traced and have ended.
    pub arenas: u64,
    /// The call sites, those that pin most first.
    pub sites: Vec<EscapeSite>,
}

/// One call stack of an [`EscapeReport`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EscapeSite {
    /// Blocks that escaped. Blocks that were freed before their arena ended, but by another thread or while it was not
    /// entered, are among them if anything else escaped from it.
    pub count: u64,
    /// Bytes that were asked for.
    pub bytes: u64,
    /// Bytes of chunks that they have kept: 64 KiB each, shared by the survivors in it, those of later arenas that go on in the
    /// chunk included. What has been freed since is not taken off.
    pub pinned_bytes: u64,
    /// The call stack, innermost first, from the first function outside of the allocator and the standard library.
    pub frames: Vec<EscapeFrame>,
}

/// One function of a call stack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EscapeFrame {
    /// Its name, demangled; empty if there are no symbols.
    pub function: String,
    /// Source file; empty without debug information.
    pub file: String,
    /// Line in it; 0 without debug information.
    pub line: u32,
}

/// What the traced arenas have left behind so far, by call site; see [`trace_escapes`].
///
/// Names need symbols, lines need debug information (`debug = 1` in the profile). Takes milliseconds and more: it reads them.
pub fn escape_report() -> EscapeReport {
    let report = apart(thread::current(), || {
        let (arenas, sites) = {
            let table = TABLE.lock();
            let mut sites = table.sites.clone();
            table.chunks.values().for_each(|shares| shares.settle(&mut sites));
            (table.arenas, sites)
        };
        let mut known: HashMap<usize, Vec<EscapeFrame>> = HashMap::new();
        let mut sites: Vec<EscapeSite> = sites
            .into_iter()
            .map(|(stack, sums)| {
                let all: Vec<EscapeFrame> = stack
                    .iter()
                    .flat_map(|&ip| known.entry(ip).or_insert_with(|| resolve(ip)).clone())
                    .collect();
                let first = all.iter().position(|frame| !is_plumbing(&frame.function)).unwrap_or(0);
                let frames = all.into_iter().skip(first).collect();
                EscapeSite { count: sums.count, bytes: sums.bytes, pinned_bytes: sums.pinned_bytes, frames }
            })
            .collect();
        sites.sort_by_key(|site| std::cmp::Reverse((site.pinned_bytes, site.bytes)));
        EscapeReport { arenas, sites }
    });
    report.unwrap_or(EscapeReport { arenas: 0, sites: Vec::new() })
}

/// Forgets what the report is made of.
pub fn clear_escape_report() {
    apart(thread::current(), || *TABLE.lock() = Table::EMPTY);
}

/// The functions at an instruction pointer: several if some are inlined, innermost first.
fn resolve(ip: usize) -> Vec<EscapeFrame> {
    let mut frames = Vec::new();
    // The pointer is where the call returns to; the byte before it belongs to the call.
    backtrace::resolve(core::ptr::without_provenance_mut(ip.saturating_sub(1)), |symbol| {
        frames.push(EscapeFrame {
            function: symbol.name().map_or_else(String::new, |name| format!("{name:#}")),
            file: symbol.filename().map_or_else(String::new, |file| file.display().to_string()),
            line: symbol.lineno().unwrap_or(0),
        });
    });
    frames
}

/// Whether a function is of the allocator, the standard library or a hash table: not who wanted the memory.
fn is_plumbing(function: &str) -> bool {
    const CRATES: [&str; 9] =
        ["", "alloc", "core", "std", "hashbrown", "shockwave_alloc", "backtrace", "__rustc", "__rust_alloc"];
    let crate_of = |path: &str| {
        let path = path.trim_start_matches(['<', '&']);
        let path = path.strip_prefix("dyn ").unwrap_or(path);
        path.split([':', '<', ' ', '[']).next().unwrap_or("").to_owned()
    };
    // `<alloc::vec::Vec<T> as app::Trait>::f` belongs to the crate of the type, `<T as core::convert::Into<U>>::into` to that of the
    // trait, because the type is a parameter.
    let name = match function.strip_prefix('<').and_then(|rest| rest.split_once(" as ")) {
        Some((of, of_trait)) if !of.contains("::") => crate_of(of_trait),
        _ => crate_of(function),
    };
    CRATES.contains(&name.as_str()) || name.starts_with("__rust") || name.starts_with("_R")
}

impl fmt::Display for EscapeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: u64 = self.sites.iter().map(|site| site.count).sum();
        let pinned: u64 = self.sites.iter().map(|site| site.pinned_bytes).sum();
        writeln!(
            f,
            "{count} blocks escaped from {} traced arenas and pinned {} KiB, by call site:",
            self.arenas,
            pinned.div_ceil(1024)
        )?;
        for site in &self.sites {
            writeln!(
                f,
                "{:>8} blocks {:>8} B {:>8} KiB pinned",
                site.count,
                site.bytes,
                site.pinned_bytes.div_ceil(1024)
            )?;
            for frame in site.frames.iter().filter(|frame| !frame.function.is_empty()).take(6) {
                write!(f, "           {}", frame.function)?;
                if frame.line > 0 {
                    write!(f, " ({}:{})", frame.file, frame.line)?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

impl EscapeReport {
    /// The report as a profile for `pprof`: protocol buffer `profile.proto`, not compressed, with the sample types `blocks`, `space` and
    /// `pinned` (the latter two in bytes).
    pub fn to_pprof(&self) -> Vec<u8> {
        crate::outside_arena(|| crate::pprof::encode(self))
    }
}
