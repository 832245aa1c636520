//! Many requests that are live at once and are read over and over: whether their bytes lie well.

use super::Scope;
use super::message::{Message, Request};
use super::random::Random;

/// Requests in one set, as in the original.
const LIVE: usize = 100;

/// Requests that come and go before the aged set is complete, for each that stays.
const AGE: usize = 20;

/// A set of live requests, each of them open.
pub struct Locality<S: Scope> {
    requests: Vec<(Request, S::Open)>,
}

impl<S: Scope> Locality<S> {
    /// Parses all of them one after another.
    pub fn build(message: &Message) -> Self {
        Locality { requests: (0..LIVE).map(|_| S::open(|| message.parse())).collect() }
    }

    /// A set in which random requests have been replaced many times, as in a server that has run for a while.
    pub fn build_aged(message: &Message) -> Self {
        let mut set = Self::build(message);
        let mut random = Random::new(1);
        for _ in 0..LIVE * AGE {
            let index = random.below(LIVE);
            set.requests[index] = S::open(|| message.parse());
        }
        set
    }

    /// Reads every byte of every request.
    pub fn read(&self) -> u64 {
        self.requests.iter().map(|(request, _)| request.sum()).fold(0, u64::wrapping_add)
    }
}
