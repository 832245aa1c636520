//! Pools of requests or responses, and the guard that returns one.
#![forbid(unsafe_code)]

use core::fmt;
use core::ops::{Deref, DerefMut};

use super::depot::{Bounds, Depot, Item};
use super::memory::Origin;
use super::message::Message;
use super::stats::PoolStats;
use crate::outside_arena;

/// Size of a new object's block in bytes, unless configured.
const CAPACITY: usize = 2 << 10;

/// Objects in the shared list, at most, unless configured.
const RETAINED: usize = 256;

/// Objects that wait for one thread, at most.
const STACK: usize = 32;

/// Bytes that the objects waiting for one thread keep together.
const STACK_BYTES: usize = 4 << 20;

/// Bytes that an object in the shared list keeps, at most.
const SHARED_ITEM_BYTES: usize = 64 << 10;

/// A block is not made bigger than this in bytes because of what the last uses needed: the few that need more ask for it.
const RESERVE_MAX: usize = 8 << 10;

/// A message with a meaning: [`Request`](super::Request) or [`Response`](super::Response).
pub trait Object: Send {
    /// An object without contents.
    #[doc(hidden)]
    fn from_message(message: Message) -> Self;

    /// The contents.
    #[doc(hidden)]
    fn message(&self) -> &Message;

    /// The contents.
    #[doc(hidden)]
    fn message_mut(&mut self) -> &mut Message;

    /// Empties what is not in the message.
    #[doc(hidden)]
    fn clear_rest(&mut self);
}

impl<T: Object> Item for Box<T> {
    fn weight(&self) -> usize {
        self.message().kept()
    }
}

/// A pool of one kind of object.
pub(super) struct ObjectPool<T> {
    depot: Depot<Box<T>, STACK>,
    origin: Origin,
    /// Size of a new object's block in bytes.
    capacity: usize,
}

impl<T: Object> ObjectPool<T> {
    pub(super) const fn new(origin: Origin) -> ObjectPool<T> {
        let bounds = Bounds { stack_bytes: 0, shared_items: 0, shared_item_bytes: 0 };
        let mut pool = ObjectPool { depot: Depot::new(bounds), origin, capacity: 0 };
        pool.configure(CAPACITY, RETAINED);
        pool
    }

    /// Sets the size of a new object's block in bytes, and how many objects are shared.
    pub(super) const fn configure(&mut self, capacity: usize, retained: usize) {
        // What warming up makes must be kept.
        let item = if capacity > SHARED_ITEM_BYTES { capacity } else { SHARED_ITEM_BYTES };
        let half_a_stack = item.saturating_mul(STACK / 2);
        let stack = if half_a_stack > STACK_BYTES { half_a_stack } else { STACK_BYTES };
        *self.depot.bounds_mut() =
            Bounds { stack_bytes: stack, shared_items: retained, shared_item_bytes: item };
        self.capacity = capacity;
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) const fn retained(&self) -> usize {
        self.depot.bounds().shared_items
    }

    pub(super) fn get(&self) -> Pooled<'_, T> {
        let (object, recent) = self.depot.take();
        let mut object = object.unwrap_or_else(|| self.create());
        // Blocks grow by halves, so what holds `recent` bytes has at most one and a half times that.
        let keep = recent.saturating_mul(2).max(self.capacity);
        object.message_mut().begin(recent.min(RESERVE_MAX).max(self.capacity), keep);
        Pooled { pool: self, object: Some(object) }
    }

    fn create(&self) -> Box<T> {
        outside_arena(|| Box::new(T::from_message(Message::new(self.origin))))
    }

    fn put(&self, mut object: Box<T>) {
        object.clear_rest();
        let usage = object.message_mut().end();
        self.depot.give(object, usage, self.capacity);
    }

    pub(super) fn warm_up(&self, count: usize) {
        self.depot.warm_up(count, || self.create(), |object| object.message_mut().warm(self.capacity));
    }

    pub(super) fn purge(&self) -> usize {
        self.depot.purge()
    }

    pub(super) fn stats(&self) -> PoolStats {
        self.depot.stats(self.depot.taken())
    }
}

/// An object taken from a pool. It is cleared and returned when this is dropped.
///
/// Forgetting it leaks the object, which then counts as in use for ever.
#[must_use = "the object returns to its pool when the guard is dropped"]
pub struct Pooled<'pool, T: Object> {
    pool: &'pool ObjectPool<T>,
    /// There until it is dropped.
    object: Option<Box<T>>,
}

impl<T: Object> Deref for Pooled<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.object.as_ref().expect("there until the guard is dropped")
    }
}

impl<T: Object> DerefMut for Pooled<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.object.as_mut().expect("there until the guard is dropped")
    }
}

impl<T: Object> Drop for Pooled<'_, T> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.pool.put(object);
        }
    }
}

impl<T: Object + fmt::Debug> fmt::Debug for Pooled<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
