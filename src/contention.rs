//! What threads do to each other, counted by the allocator's own code: the feature `contention`.
//!
//! Every atomic operation of the allocator passes through here (fences and the reference counts of handles aside), and so does every lock
//! and every system call. A benchmark on a few cores
//! cannot show how a program scales to many; what it does per request can be counted on any machine: a request that makes no
//! read-modify-write, takes no lock, makes no system call and writes no cache line that another thread touches costs the same
//! beside 63 others as alone.
//!
//! What the counts cannot see is a plain field: those belong to one thread each, and stand in cache lines of their own.
//! Counting begins with the first [`reset`]. It takes atomic operations itself, which are not counted, so a program with this feature is
//! no program to be timed.
//!
//! *Owned by* everyone: all of it is static and atomic. *Invariant*: a place of the table is claimed once, by the thread that
//! exchanges its zero for an address, and stays that line's until [`reset`]. Two threads at once on one line may count a transfer more or less.

// Not those of `sync`, which are counted.
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What has been counted since the last [`reset`], over all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contention {
    /// Atomic read-modify-write operations, failed exchanges included.
    pub read_modify_writes: u64,
    /// Locks taken.
    pub locks: u64,
    /// Groups of system calls: `madvise`, `mremap`, `mmap`, `mprotect`, `futex`, `membarrier`. Reading the coarse clock is none.
    pub system_calls: u64,
    /// Cache lines that at least two threads touched with atomic operations, and at least one wrote.
    pub shared_lines_written: u64,
    /// How often a cache line had to come from another processor's cache, if each thread ran on one of its own: a thread wrote it
    /// that was not the last to touch it, or read it after another one had written it.
    pub line_transfers: u64,
    /// Operations on cache lines for which the table had no place: if this is not 0, the two figures before it are too small.
    pub unplaced: u64,
}

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Lines in the table; a thread of a server touches some hundreds.
const LINES: usize = 1 << 16;

/// How many places are tried for a line.
const PROBES: usize = 64;

/// Stands for more than one thread.
const SEVERAL: u32 = u32::MAX;

/// A cache line with atomics in it.
struct Line {
    /// Its address, divided by its size; 0 is nobody's.
    number: AtomicUsize,
    /// The thread that wrote it last, and the one that read it last since then; 0 is none.
    writer: AtomicU32,
    reader: AtomicU32,
    /// The thread that touched it, or [`SEVERAL`]; 0 is none.
    toucher: AtomicU32,
    transfers: AtomicU64,
}

static TABLE: [Line; LINES] = [const {
    Line {
        number: AtomicUsize::new(0),
        writer: AtomicU32::new(0),
        reader: AtomicU32::new(0),
        toucher: AtomicU32::new(0),
        transfers: AtomicU64::new(0),
    }
}; LINES];

/// Whether anything is counted.
static COUNTING: AtomicBool = AtomicBool::new(false);

static READ_MODIFY_WRITES: AtomicU64 = AtomicU64::new(0);
static LOCKS: AtomicU64 = AtomicU64::new(0);
static SYSTEM_CALLS: AtomicU64 = AtomicU64::new(0);
static UNPLACED: AtomicU64 = AtomicU64::new(0);
static THREADS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The thread's number, from 1 on; 0 before it is asked for.
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

/// What an operation does with its atomic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    ReadModifyWrite,
}

/// An atomic operation on the place.
pub(crate) fn note(place: *const (), access: Access) {
    if !COUNTING.load(Ordering::Relaxed) {
        return;
    }
    if access == Access::ReadModifyWrite {
        READ_MODIFY_WRITES.fetch_add(1, Ordering::Relaxed);
    }
    let Some(line) = line(place.addr() / LINE_BYTES) else {
        UNPLACED.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let me = number();
    let other = |thread: u32| thread != 0 && thread != me;
    let toucher = line.toucher.load(Ordering::Relaxed);
    if toucher != me {
        line.toucher.store(if toucher == 0 { me } else { SEVERAL }, Ordering::Relaxed);
    }
    let (writer, reader) = (line.writer.load(Ordering::Relaxed), line.reader.load(Ordering::Relaxed));
    let transferred = if access == Access::Read {
        line.reader.store(me, Ordering::Relaxed);
        other(writer) && reader != me
    } else {
        line.writer.store(me, Ordering::Relaxed);
        line.reader.store(0, Ordering::Relaxed);
        other(writer) || other(reader)
    };
    if transferred {
        line.transfers.fetch_add(1, Ordering::Relaxed);
    }
}

/// A lock was taken.
pub(crate) fn note_lock() {
    if COUNTING.load(Ordering::Relaxed) {
        LOCKS.fetch_add(1, Ordering::Relaxed);
    }
}

/// The system is about to be called.
pub(crate) fn note_system_call() {
    if COUNTING.load(Ordering::Relaxed) {
        SYSTEM_CALLS.fetch_add(1, Ordering::Relaxed);
    }
}

fn line(number: usize) -> Option<&'static Line> {
    // Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4).
    let first = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - LINES.trailing_zeros());
    (0..PROBES).map(|probe| &TABLE[(first as usize + probe) % LINES]).find(|line| {
        match line.number.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(found) => found == number,
        }
    })
}

fn number() -> u32 {
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(THREADS.fetch_add(1, Ordering::Relaxed) + 1);
        }
        number.get()
    })
}

/// Begins to count, anew if it was done before. What other threads do meanwhile is counted or not.
pub fn reset() {
    COUNTING.store(true, Ordering::Relaxed);
    for line in &TABLE {
        line.number.store(0, Ordering::Relaxed);
        for thread in [&line.writer, &line.reader, &line.toucher] {
            thread.store(0, Ordering::Relaxed);
        }
        line.transfers.store(0, Ordering::Relaxed);
    }
    for count in [&READ_MODIFY_WRITES, &LOCKS, &SYSTEM_CALLS, &UNPLACED] {
        count.store(0, Ordering::Relaxed);
    }
}

/// The counts since the last [`reset`]; 0 before the first. What other threads do meanwhile is counted or not.
pub fn contention() -> Contention {
    let (mut shared_lines_written, mut line_transfers) = (0, 0);
    for line in &TABLE {
        if line.toucher.load(Ordering::Relaxed) == SEVERAL && line.writer.load(Ordering::Relaxed) != 0 {
            shared_lines_written += 1;
        }
        line_transfers += line.transfers.load(Ordering::Relaxed);
    }
    Contention {
        read_modify_writes: READ_MODIFY_WRITES.load(Ordering::Relaxed),
        locks: LOCKS.load(Ordering::Relaxed),
        system_calls: SYSTEM_CALLS.load(Ordering::Relaxed),
        shared_lines_written,
        line_transfers,
        unplaced: UNPLACED.load(Ordering::Relaxed),
    }
}

/// Addresses of the lines that had to move from one processor to another, and how often each did, for whoever looks for the cause.
pub fn moved_lines() -> impl Iterator<Item = (usize, u64)> {
    let lines = TABLE
        .iter()
        .map(|line| (line.number.load(Ordering::Relaxed), line.transfers.load(Ordering::Relaxed)));
    lines.filter(|(_, transfers)| *transfers > 0).map(|(number, transfers)| (number * LINE_BYTES, transfers))
}

#[cfg(test)]
mod tests {
    use core::ptr;

    use super::*;

    #[repr(align(64))]
    struct Alone(#[expect(dead_code, reason = "only its address counts")] u8);

    /// Has another thread do something.
    fn elsewhere(f: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(f).join()).expect("it ends");
    }

    #[test]
    fn a_line_moves_when_another_thread_wrote_it_or_it_is_written_and_another_has_it() {
        static PLACE: Alone = Alone(0);
        let address = ptr::from_ref(&PLACE).addr();
        let touch = |access| note(ptr::from_ref(&PLACE).cast(), access);
        let moved = || moved_lines().find(|line| line.0 == address).map_or(0, |line| line.1);
        reset();
        touch(Access::Write);
        touch(Access::Read);
        touch(Access::ReadModifyWrite);
        assert_eq!(moved(), 0);
        elsewhere(|| {
            touch(Access::Read);
            assert_eq!(moved(), 1, "it was written here");
            touch(Access::Read);
            assert_eq!(moved(), 1, "it is there already");
        });
        touch(Access::Read);
        assert_eq!(moved(), 1, "both have it");
        elsewhere(|| touch(Access::Write));
        assert_eq!(moved(), 2);
        touch(Access::ReadModifyWrite);
        assert_eq!(moved(), 3);
        assert!(contention().shared_lines_written > 0);
    }
}
