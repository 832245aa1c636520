//! The pool of buffers.
#![forbid(unsafe_code)]

use core::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::buffer::PooledBuffer;
use super::depot::{Bounds, Depot, Item, Use};
use super::stats::{ClassStats, Leak, PoolStats};
use super::wipe::wipe;
use crate::outside_arena;

/// Classes of size, each twice the one before.
const CLASSES: usize = 6;

/// Capacity of the buffers of the first class in bytes.
const SMALLEST: usize = 2 << 10;

/// Capacity of the buffers of the last class in bytes.
const GREATEST: usize = SMALLEST << (CLASSES - 1);

/// Buffers of a class that a thread has at hand.
const STACK: usize = 8;

/// Bytes of the buffers of a class that are shared.
const SHARED_BYTES: usize = 4 << 20;

/// Bigger buffers are not pooled, in bytes.
const LARGE_MAX: usize = 4 << 20;

/// Capacities above [`LARGE_MAX`] are a multiple of this in bytes.
const LARGE_GRAIN: usize = 64 << 10;

/// Contents of a buffer that waits may be anything, but are never uninitialised.
type Memory = Box<[u8]>;

impl Item for Memory {
    fn weight(&self) -> usize {
        self.len()
    }
}

/// A pool of byte buffers in six classes of size, 2, 4, 8, 16, 32 and 64 KiB, and of some bigger ones.
///
/// For each class a thread has up to eight at hand; 4 MiB more of them are shared. Above 64 KiB capacities are rounded up to
/// a power of two and together 16 MiB are kept; those above 4 MiB are not kept at all. Memory comes from the global
/// allocator, outside any arena. The pool may be a `static`.
///
/// ```
/// use shockwave_alloc::pool::BufferPool;
///
/// static POOL: BufferPool = BufferPool::new();
///
/// let mut buffer = POOL.get(1000);
/// buffer.put("hello ");
/// buffer.extend(b"world");
/// assert_eq!(&buffer[..], b"hello world");
/// drop(buffer);
/// assert_eq!(POOL.stats().retained_bytes, 2048);
/// ```
pub struct BufferPool {
    classes: [Depot<Memory, STACK>; CLASSES],
    large: Mutex<Large>,
    large_bytes: usize,
    secret: bool,
}

/// Buffers above the greatest class.
struct Large {
    waiting: Vec<Memory>,
    stats: PoolStats,
}

impl BufferPool {
    /// A pool without buffers.
    pub const fn new() -> BufferPool {
        let mut classes = [const {
            Depot::new(Bounds { stack_bytes: usize::MAX, shared_items: 0, shared_item_bytes: usize::MAX })
        }; CLASSES];
        let mut class = 0;
        while class < CLASSES {
            classes[class].bounds_mut().shared_items = SHARED_BYTES / (SMALLEST << class);
            class += 1;
        }
        let stats = PoolStats::NEW;
        BufferPool {
            classes,
            large: Mutex::new(Large { waiting: Vec::new(), stats }),
            large_bytes: 16 << 20,
            secret: false,
        }
    }

    /// A pool for secrets: whatever was written to a buffer is overwritten with zeros when it is returned, exchanged for a
    /// bigger one or freed.
    ///
    /// A buffer that is forgotten is not overwritten.
    ///
    /// ```
    /// use shockwave_alloc::pool::BufferPool;
    ///
    /// static KEYS: BufferPool = BufferPool::secret();
    ///
    /// let mut buffer = KEYS.get(32);
    /// buffer.put("correct horse battery staple");
    /// drop(buffer);
    ///
    /// let mut same = KEYS.get(32);
    /// assert!(same.spare_mut().iter().all(|byte| *byte == 0));
    /// ```
    pub const fn secret() -> BufferPool {
        let mut pool = BufferPool::new();
        pool.secret = true;
        pool
    }

    /// Sets how many bytes of buffers above 64 KiB are kept; 16 MiB if not set.
    #[must_use]
    pub const fn with_large_bytes(mut self, bytes: usize) -> BufferPool {
        self.large_bytes = bytes;
        self
    }

    /// Takes an empty buffer with room for at least `len` bytes from the pool, or creates one.
    pub fn get(&self, len: usize) -> PooledBuffer<'_> {
        let memory = match class_of(len) {
            Some(class) => self.classes[class].take().0.unwrap_or_else(|| create(capacity_of(class))),
            None => self.get_large(len),
        };
        PooledBuffer::new(self, memory)
    }

    #[cold]
    fn get_large(&self, len: usize) -> Memory {
        let capacity = large_capacity(len);
        let mut large = self.large();
        large.stats.total_requests += 1;
        if let Some(at) = large.waiting.iter().rposition(|memory| memory.len() == capacity) {
            return large.waiting.swap_remove(at);
        }
        large.stats.misses += 1;
        large.stats.bytes_allocated += capacity as u64;
        drop(large);
        create(capacity)
    }

    /// Takes the memory of a buffer back, of which `written` bytes were written to.
    pub(super) fn put(&self, mut memory: Memory, written: usize) {
        if self.secret {
            wipe(&mut memory[..written]);
        }
        match class_of(memory.len()) {
            Some(class) => {
                self.classes[class].give(memory, Use { peak: written, allocated: 0 }, SMALLEST);
            }
            None => self.put_large(memory),
        }
    }

    #[cold]
    fn put_large(&self, memory: Memory) {
        let mut large = self.large();
        large.stats.total_frees += 1;
        let bytes = large.bytes() + memory.len();
        if memory.len() <= LARGE_MAX && bytes <= self.large_bytes {
            outside_arena(|| large.waiting.push(memory));
        } else {
            large.stats.discards += 1;
            drop(large);
            drop(memory);
        }
    }

    /// Prepares for `count` buffers of each of the six classes in use at the same time: 126 KiB times `count`.
    ///
    /// Afterwards this thread can take that many without an allocation and without a page fault, as long as other threads do
    /// not take them first. The pool keeps them from then on.
    ///
    /// ```
    /// use shockwave_alloc::pool::BufferPool;
    ///
    /// let pool = BufferPool::new();
    /// pool.warm_up(10);
    /// let held: Vec<_> = (0..10).map(|_| pool.get(64 << 10)).collect();
    /// assert_eq!(pool.stats().misses, 0);
    /// # drop(held);
    /// ```
    pub fn warm_up(&self, count: usize) {
        for class in 0..CLASSES {
            self.warm_up_for(capacity_of(class), count);
        }
    }

    /// Prepares for `count` buffers with room for `len` bytes, as [`BufferPool::warm_up`] does. Buffers above 64 KiB are not
    /// prepared.
    pub fn warm_up_for(&self, len: usize, count: usize) {
        let Some(class) = class_of(len) else { return };
        self.classes[class].warm_up(
            count,
            || create(capacity_of(class)),
            |memory| {
                for os_page in memory.chunks_mut(4 << 10) {
                    // Opaque, so that the write is not dropped as of no effect.
                    os_page[0] = core::hint::black_box(0);
                }
            },
        );
    }

    /// Numbers about all buffers.
    ///
    /// A buffer that is exchanged for a bigger one counts as returned and the bigger one as taken.
    pub fn stats(&self) -> PoolStats {
        let mut sum = PoolStats::default();
        self.class_stats().iter().for_each(|class| sum += class.stats);
        sum
    }

    /// Numbers about the buffers of each class, and, last, about those above the greatest.
    ///
    /// ```
    /// use shockwave_alloc::pool::BufferPool;
    ///
    /// let pool = BufferPool::new();
    /// drop((pool.get(5000), pool.get(100_000)));
    /// let classes = pool.class_stats();
    /// assert_eq!((classes[2].size, classes[2].stats.total_requests), (Some(8192), 1));
    /// assert_eq!((classes[6].size, classes[6].stats.total_requests), (None, 1));
    /// ```
    pub fn class_stats(&self) -> [ClassStats; 7] {
        // Of all classes first, because an exchange takes from one and returns to another.
        let taken = self.classes.each_ref().map(Depot::taken);
        let taken_large = self.large().stats;
        core::array::from_fn(|class| match self.classes.get(class) {
            Some(depot) => {
                let mut stats = depot.stats(taken[class]);
                stats.bytes_allocated = stats.created * capacity_of(class) as u64;
                ClassStats { size: Some(capacity_of(class)), stats }
            }
            None => ClassStats { size: None, stats: self.large().snapshot(taken_large) },
        })
    }

    /// Checks that no more than `expected` buffers are in use.
    ///
    /// # Errors
    ///
    /// A [`Leak`] with the numbers if more are in use.
    pub fn check_leaks(&self, expected: u64) -> Result<(), Leak> {
        self.stats().check_leaks(expected)
    }

    /// Frees all buffers that are in the pool. Returns how many bytes that was.
    pub fn purge(&self) -> usize {
        let large = core::mem::take(&mut self.large().waiting);
        large.iter().map(Item::weight).sum::<usize>() + self.classes.iter().map(Depot::purge).sum::<usize>()
    }

    fn large(&self) -> MutexGuard<'_, Large> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Large {
    fn bytes(&self) -> usize {
        self.waiting.iter().map(Item::weight).sum()
    }

    /// The numbers; what was taken is as it was `before`.
    fn snapshot(&self, before: PoolStats) -> PoolStats {
        let mut stats =
            PoolStats { total_frees: self.stats.total_frees, discards: self.stats.discards, ..before };
        stats.in_use = stats.total_requests.saturating_sub(stats.total_frees);
        stats.created = stats.misses;
        stats.hits = stats.total_requests - stats.misses;
        stats.reused = stats.hits;
        stats.retained = self.waiting.len() as u64;
        stats.retained_bytes = self.bytes() as u64;
        stats
    }
}

impl Default for BufferPool {
    fn default() -> BufferPool {
        BufferPool::new()
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("secret", &self.secret)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

fn create(capacity: usize) -> Memory {
    outside_arena(|| vec![0; capacity].into_boxed_slice())
}

/// The class of buffers with room for `len` bytes.
fn class_of(len: usize) -> Option<usize> {
    (len <= GREATEST).then(|| (len.max(SMALLEST).next_power_of_two() / SMALLEST).ilog2() as usize)
}

fn capacity_of(class: usize) -> usize {
    SMALLEST << class
}

/// Capacity of a buffer above the greatest class.
fn large_capacity(len: usize) -> usize {
    if len <= LARGE_MAX { len.next_power_of_two() } else { len.next_multiple_of(LARGE_GRAIN) }
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, GREATEST, capacity_of, class_of, large_capacity};

    #[test]
    fn a_class_is_the_smallest_that_fits() {
        for len in 0..=GREATEST {
            let class = class_of(len).expect("a class");
            assert!(capacity_of(class) >= len && (class == 0 || capacity_of(class - 1) < len), "{len}");
        }
        assert_eq!((class_of(GREATEST), class_of(GREATEST + 1)), (Some(CLASSES - 1), None));
        assert_eq!(large_capacity(GREATEST + 1), 2 * GREATEST);
        assert_eq!(large_capacity((4 << 20) + 1), (4 << 20) + (64 << 10));
    }
}
