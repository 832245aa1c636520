//! A pooled buffer.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::{Deref, DerefMut};
use std::io;

use super::buffer_pool::BufferPool;

/// A buffer taken from a [`BufferPool`], returned when this is dropped.
///
/// It is the bytes that were put in. When they are more than its capacity it is exchanged for a buffer of the next class.
///
/// ```
/// use shockwave_alloc::pool::BufferPool;
///
/// static POOL: BufferPool = BufferPool::new();
///
/// let mut buffer = POOL.get(3000);
/// assert_eq!((buffer.len(), buffer.capacity()), (0, 4096));
/// buffer.put(b"HTTP/1.1 200 OK\r\n");
/// assert!(buffer.starts_with(b"HTTP/1.1"));
/// ```
#[must_use = "the buffer returns to its pool when it is dropped"]
pub struct PooledBuffer<'pool> {
    pool: &'pool BufferPool,
    memory: Box<[u8]>,
    /// Bytes of `memory` that are the contents.
    len: usize,
    /// The most bytes of `memory` that may have been written to before `len` last became smaller.
    written: usize,
}

impl<'pool> PooledBuffer<'pool> {
    pub(super) fn new(pool: &'pool BufferPool, memory: Box<[u8]>) -> PooledBuffer<'pool> {
        PooledBuffer { pool, memory, len: 0, written: 0 }
    }

    /// Bytes that fit without exchanging the buffer.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Appends bytes.
    pub fn put(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.reserve(bytes.len());
        self.memory[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Makes room for `additional` bytes more than there are.
    ///
    /// # Panics
    ///
    /// If that is more than the address space.
    pub fn reserve(&mut self, additional: usize) {
        if additional > self.memory.len() - self.len {
            self.exchange(additional);
        }
    }

    #[cold]
    fn exchange(&mut self, additional: usize) {
        let needed = self.len.checked_add(additional).expect("a capacity of less than the address space");
        let mut bigger = self.pool.get(needed.max(self.memory.len().saturating_mul(2)));
        bigger.put(&self[..]);
        // The old one is returned, and wiped if it has to be.
        *self = bigger;
    }

    /// Makes the contents `len` bytes long; new ones are `value`.
    pub fn resize(&mut self, len: usize, value: u8) {
        if let Some(more) = len.checked_sub(self.len) {
            self.reserve(more);
            self.memory[self.len..len].fill(value);
            self.len = len;
        } else {
            self.truncate(len);
        }
    }

    /// Drops all contents but the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.written = self.written.max(self.len);
        self.len = self.len.min(len);
    }

    /// Drops the contents.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// The room behind the contents, for reading into; then call [`PooledBuffer::advance`].
    ///
    /// It contains whatever earlier users left there, unless the pool is one for secrets, which has zeros.
    ///
    /// ```
    /// # use shockwave_alloc::pool::BufferPool;
    /// use std::io::Read;
    ///
    /// let pool = BufferPool::new();
    /// let mut buffer = pool.get(4096);
    /// let count = (&b"from a socket"[..]).read(buffer.spare_mut())?;
    /// buffer.advance(count);
    /// assert_eq!(&buffer[..], b"from a socket");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn spare_mut(&mut self) -> &mut [u8] {
        self.written = self.memory.len();
        &mut self.memory[self.len..]
    }

    /// Makes the next `count` bytes of the room contents.
    ///
    /// # Panics
    ///
    /// If there is less room.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.memory.len() - self.len, "no room for {count} B");
        self.len += count;
    }

    /// Makes the contents a `Bytes` without copying them; the buffer returns to its pool when the last clone or slice of it
    /// is dropped.
    ///
    /// This allocates some 50 B for the count of the clones, outside any arena.
    ///
    /// ```
    /// use shockwave_alloc::pool::BufferPool;
    ///
    /// static POOL: BufferPool = BufferPool::new();
    ///
    /// let mut buffer = POOL.get(2048);
    /// buffer.put("a body");
    /// let body: bytes::Bytes = buffer.freeze();
    /// let word = body.slice(2..);
    /// drop(body);
    /// assert_eq!((&word[..], POOL.stats().in_use), (&b"body"[..], 1));
    /// drop(word);
    /// assert_eq!(POOL.stats().in_use, 0);
    /// ```
    #[cfg(feature = "bytes")]
    #[cfg_attr(docsrs, doc(cfg(feature = "bytes")))]
    pub fn freeze(self) -> bytes::Bytes
    where
        'pool: 'static,
    {
        crate::outside_arena(|| bytes::Bytes::from_owner(self))
    }
}

impl Deref for PooledBuffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for PooledBuffer<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl AsRef<[u8]> for PooledBuffer<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Extend<u8> for PooledBuffer<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        let bytes = bytes.into_iter();
        self.reserve(bytes.size_hint().0);
        bytes.for_each(|byte| self.put([byte]));
    }
}

impl<'bytes> Extend<&'bytes u8> for PooledBuffer<'_> {
    fn extend<I: IntoIterator<Item = &'bytes u8>>(&mut self, bytes: I) {
        self.extend(bytes.into_iter().copied());
    }
}

/// Appends; never fails.
impl io::Write for PooledBuffer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PooledBuffer<'_> {
    fn drop(&mut self) {
        let written = self.written.max(self.len);
        self.pool.put(core::mem::take(&mut self.memory), written);
    }
}

/// The contents are not shown: they may be long or secret.
impl fmt::Debug for PooledBuffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
