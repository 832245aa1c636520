//! The original's request object: taken from a pool, filled, read and given back.

use std::hint::black_box;
use std::sync::Arc;

use super::message::Message;

/// A pool of request objects.
pub trait Pool: Send + Sync + 'static {
    /// A filled object; it returns to its pool when it is dropped.
    type Object<'pool>;

    /// An empty pool.
    fn new() -> Self;

    /// Takes an object and copies the parts of `message` into it.
    fn fill(&self, message: &Message) -> Self::Object<'_>;

    /// Reads every byte of an object.
    fn sum(object: &Self::Object<'_>) -> u64;
}

/// The operation that fills and reads an object.
pub fn pooled<P: Pool>(pool: Arc<P>, message: Message) -> impl FnMut() -> u64 {
    move || P::sum(&pool.fill(black_box(&message)))
}
