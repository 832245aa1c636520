//! What requests and responses have in common: fields and headers in one block of memory.
//!
//! Bytes of fields and headers are copied to the beginning of the block, one after the other. Each header has an entry of
//! twelve bytes at the end of the block, and the entries grow towards the bytes:
//!
//! ```text
//! | GET /users HTTP/1.1 Host example.com ... body | room | ... entry 2 | entry 1 | entry 0 |
//! ```
//!
//! So a header costs two copies and no allocation. A field that is set again leaves its old bytes as garbage, unless they
//! are the last ones or the new ones fit; garbage goes when the block is replaced.
#![forbid(unsafe_code)]

use super::depot::Use;
use super::memory::{Block, Memory, Origin};

/// Fields of a message.
const FIELDS: usize = 4;

/// Bytes of the entry of a header: position, length of the name, length of the value.
const ENTRY: usize = 12;

/// Positions and lengths are 32 bits wide.
const CAPACITY_MAX: usize = (u32::MAX - 15) as usize;

/// Bytes in the head of the block.
#[derive(Clone, Copy, Default)]
struct Span {
    at: u32,
    len: u32,
}

impl Span {
    fn new(at: usize, len: usize) -> Span {
        // Lossless: positions and lengths are less than the capacity.
        Span { at: at as u32, len: len as u32 }
    }

    fn end(self) -> usize {
        (self.at + self.len) as usize
    }

    fn of(self, head: &[u8]) -> &[u8] {
        &head[self.at as usize..self.end()]
    }
}

/// Where the bytes of a header are: the value follows the name.
#[derive(Clone, Copy)]
struct Entry {
    at: u32,
    name: u32,
    value: u32,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..4].copy_from_slice(&self.at.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.name.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Entry {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Entry { at: word(0), name: word(4), value: word(8) }
    }

    fn of(self, head: &[u8]) -> (&[u8], &[u8]) {
        let bytes = &head[self.at as usize..][..(self.name + self.value) as usize];
        bytes.split_at(self.name as usize)
    }
}

/// Fields and headers.
pub struct Message {
    memory: Memory,
    fields: [Span; FIELDS],
    /// Bytes of the head that belong to nothing.
    garbage: usize,
    /// The most bytes of the block that were in use.
    peak: usize,
    /// Size of a new block, at least, in bytes.
    reserve: usize,
    /// Most bytes to keep for the next use.
    keep: usize,
}

impl Message {
    pub(super) fn new(origin: Origin) -> Message {
        Message {
            memory: Memory::new(origin),
            fields: [Span::default(); FIELDS],
            garbage: 0,
            peak: 0,
            reserve: 0,
            keep: 0,
        }
    }

    /// Begins a use: how big a block to start with, and how much to keep afterwards, in bytes.
    pub(super) fn begin(&mut self, reserve: usize, keep: usize) {
        (self.reserve, self.keep) = (reserve, keep);
    }

    /// Ends a use.
    pub(super) fn end(&mut self) -> Use {
        self.clear();
        self.memory.reset(self.keep);
        Use { peak: core::mem::take(&mut self.peak), allocated: self.memory.take_allocated() }
    }

    /// Allocates a block of `capacity` bytes, touches it and ends the use.
    pub(super) fn warm(&mut self, capacity: usize) {
        if self.memory.capacity() < capacity {
            self.memory.replace(capacity, |_, _| ());
        }
        self.memory.touch();
        self.memory.reset(self.memory.capacity());
    }

    /// Bytes kept while it waits in the pool.
    pub(super) fn kept(&self) -> usize {
        self.memory.kept()
    }

    /// Empties fields and headers.
    pub(super) fn clear(&mut self) {
        self.memory.block_mut().clear();
        self.fields = [Span::default(); FIELDS];
        self.garbage = 0;
    }

    pub(super) fn field(&self, field: usize) -> &[u8] {
        self.fields[field].of(self.memory.block().head())
    }

    /// Sets a field to the concatenation of `pieces`.
    pub(super) fn set_field(&mut self, field: usize, pieces: &[&[u8]]) {
        let len = total(pieces.iter().map(|piece| piece.len()));
        let old = core::mem::take(&mut self.fields[field]);
        let block = self.memory.block_mut();
        let head = block.head().len();
        if old.end() == head {
            block.truncate_head(old.at as usize);
        } else if len <= old.len as usize {
            let mut rest = &mut block.head_mut()[old.at as usize..][..len];
            for piece in pieces {
                let (bytes, after) = rest.split_at_mut(piece.len());
                bytes.copy_from_slice(piece);
                rest = after;
            }
            self.garbage += old.len as usize - len;
            self.fields[field] = Span { at: old.at, len: len as u32 };
            return;
        } else {
            self.garbage += old.len as usize;
        }
        let block = self.room_for(len);
        let at = block.head().len();
        pieces.iter().for_each(|piece| block.append(piece));
        self.fields[field] = Span::new(at, len);
        self.note_peak();
    }

    pub(super) fn add_header(&mut self, name: &[u8], value: &[u8]) {
        let block = self.room_for(total([name.len(), value.len(), ENTRY]));
        let at = block.head().len();
        block.append(name);
        block.append(value);
        // Lossless, as in `Span::new`.
        let entry = Entry { at: at as u32, name: name.len() as u32, value: value.len() as u32 };
        block.prepend(&entry.to_bytes());
        self.note_peak();
    }

    /// Names and values in the order in which they were added.
    pub(super) fn headers(
        &self,
    ) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + DoubleEndedIterator + Clone {
        let (head, tail) = (self.memory.block().head(), self.memory.block().tail());
        tail.rchunks_exact(ENTRY).map(|entry| Entry::from_bytes(entry).of(head))
    }

    /// The value of the first header with this name, whatever its case.
    pub(super) fn header(&self, name: &[u8]) -> Option<&[u8]> {
        self.headers().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn used(&self) -> usize {
        let block = self.memory.block();
        block.head().len() + block.tail().len()
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.used());
    }

    /// The block, with room for `extra` bytes more.
    fn room_for(&mut self, extra: usize) -> &mut Block {
        if extra > self.memory.block().room() {
            self.grow(extra);
        }
        self.memory.block_mut()
    }

    #[cold]
    fn grow(&mut self, extra: usize) {
        let needed = total([self.used() - self.garbage, extra]);
        assert!(needed <= CAPACITY_MAX, "a message of {needed} B: the most is 4 GiB");
        let capacity = self.memory.capacity();
        let new = if needed <= capacity / 2 {
            // Most of it is garbage.
            capacity
        } else {
            needed.max(capacity + capacity / 2).max(self.reserve).min(CAPACITY_MAX)
        };
        let (fields, garbage) = (&mut self.fields, self.garbage);
        self.memory.replace(new, |old, new| {
            if garbage == 0 {
                new.append(old.head());
                new.prepend(old.tail());
            } else {
                copy_live(old, new, fields);
            }
        });
        self.garbage = 0;
    }
}

/// Copies what is not garbage.
fn copy_live(old: &Block, new: &mut Block, fields: &mut [Span; FIELDS]) {
    for field in fields {
        let bytes = field.of(old.head());
        *field = Span::new(new.head().len(), bytes.len());
        new.append(bytes);
    }
    for entry in old.tail().rchunks_exact(ENTRY) {
        let entry = Entry::from_bytes(entry);
        let at = new.head().len() as u32;
        let (name, value) = entry.of(old.head());
        new.append(name);
        new.append(value);
        new.prepend(&Entry { at, ..entry }.to_bytes());
    }
}

/// The sum of lengths that together may be more than the address space.
fn total(lengths: impl IntoIterator<Item = usize>) -> usize {
    lengths.into_iter().fold(0, usize::saturating_add)
}
