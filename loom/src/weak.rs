//! Copies of the protocols of `src/remote.rs` that can be made wrong, to show that the models notice.
//!
//! A copy is faithful until a field is changed: orderings are values, and steps can be left out.

use crate::heap::{Frees, Mail};
use crate::live_count::Balance;
use crate::remote::Chain;
use crate::sync::{AtomicIsize, AtomicU32, AtomicUsize, Ordering};

/// A copy of [`LiveCount`](crate::remote::LiveCount).
pub(crate) struct WeakLiveCount {
    pub word: AtomicIsize,
    /// Of the remote free.
    pub free: Ordering,
    /// Of the close.
    pub close: Ordering,
    /// Of the look at the balance before an arena starts over in the chunk.
    pub look: Ordering,
    /// The close loads and stores instead of adding.
    pub close_in_two_steps: bool,
    /// The close adds, and then loads what remains.
    pub close_looks_again: bool,
}

impl WeakLiveCount {
    pub(crate) fn faithful() -> WeakLiveCount {
        WeakLiveCount {
            word: AtomicIsize::new(0),
            free: Ordering::AcqRel,
            close: Ordering::AcqRel,
            look: Ordering::Acquire,
            close_in_two_steps: false,
            close_looks_again: false,
        }
    }
}

impl Balance for WeakLiveCount {
    fn free_remote(&self) -> bool {
        self.word.fetch_sub(1, self.free) == 1
    }

    fn close(&self, live: u32) -> usize {
        if live == 0 {
            return 0;
        }
        let live = live as isize;
        if self.close_in_two_steps {
            let remaining = self.word.load(Ordering::Acquire) + live;
            self.word.store(remaining, Ordering::Release);
            return remaining as usize;
        }
        let remaining = self.word.fetch_add(live, self.close) + live;
        if self.close_looks_again {
            return self.word.load(Ordering::Acquire) as usize;
        }
        remaining as usize
    }

    fn balance(&self) -> isize {
        self.word.load(self.look)
    }

    fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
    }
}

/// A copy of [`RemoteFrees`](crate::remote::RemoteFrees).
pub(crate) struct WeakFrees {
    pub word: AtomicU32,
    pub push: Ordering,
    pub take: Ordering,
}

impl WeakFrees {
    pub(crate) fn faithful() -> WeakFrees {
        WeakFrees { word: AtomicU32::new(0), push: Ordering::AcqRel, take: Ordering::AcqRel }
    }
}

impl Frees for WeakFrees {
    fn push(&self, chain: Chain, mut link: impl FnMut(Option<u16>)) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (count, head) = ((word >> 16) as u16, word as u16);
            link((count != 0).then_some(head));
            let new = u32::from(count + chain.count) << 16 | u32::from(chain.head);
            match self.word.compare_exchange(word, new, self.push, Ordering::Relaxed) {
                Ok(_) => return count == 0,
                Err(now) => word = now,
            }
        }
    }

    fn take(&self) -> Chain {
        let word = self.word.swap(0, self.take);
        Chain { head: word as u16, count: (word >> 16) as u16 }
    }
}

/// A copy of [`Mailbox`](crate::remote::Mailbox).
pub(crate) struct WeakMailbox {
    pub word: AtomicUsize,
    pub post: Ordering,
    pub take: Ordering,
    pub abandon: Ordering,
    pub claim: Ordering,
    /// Abandoning looks whether something has arrived and then stores, instead of both at once.
    pub abandon_in_two_steps: bool,
    /// Claiming loads and then stores.
    pub claim_in_two_steps: bool,
}

const OWNERLESS: usize = 1;

impl WeakMailbox {
    pub(crate) fn faithful() -> WeakMailbox {
        WeakMailbox {
            word: AtomicUsize::new(0),
            post: Ordering::Release,
            take: Ordering::Acquire,
            abandon: Ordering::Release,
            claim: Ordering::Acquire,
            abandon_in_two_steps: false,
            claim_in_two_steps: false,
        }
    }
}

impl Mail for WeakMailbox {
    type Link = AtomicUsize;

    fn link() -> AtomicUsize {
        AtomicUsize::new(0)
    }

    fn next(link: &AtomicUsize) -> usize {
        link.load(Ordering::Relaxed)
    }

    fn post(&self, page: usize, link: &AtomicUsize) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            link.store(word & !OWNERLESS, Ordering::Relaxed);
            let new = page | (word & OWNERLESS);
            match self.word.compare_exchange(word, new, self.post, Ordering::Relaxed) {
                Ok(_) => return word & OWNERLESS != 0,
                Err(now) => word = now,
            }
        }
    }

    fn take(&self) -> usize {
        if self.word.load(Ordering::Relaxed) & !OWNERLESS == 0 { 0 } else { self.word.swap(0, self.take) }
    }

    fn try_abandon(&self) -> bool {
        if self.abandon_in_two_steps {
            let empty = self.word.load(Ordering::Relaxed) == 0;
            if empty {
                self.word.store(OWNERLESS, Ordering::Release);
            }
            return empty;
        }
        self.word.compare_exchange(0, OWNERLESS, self.abandon, Ordering::Relaxed).is_ok()
    }

    fn try_claim(&self) -> Option<usize> {
        let mut word = self.word.load(Ordering::Relaxed);
        if self.claim_in_two_steps {
            let word = self.word.load(Ordering::Acquire);
            return (word & OWNERLESS != 0).then(|| {
                self.word.store(0, Ordering::Relaxed);
                word & !OWNERLESS
            });
        }
        while word & OWNERLESS != 0 {
            match self.word.compare_exchange(word, 0, self.claim, Ordering::Relaxed) {
                Ok(_) => return Some(word & !OWNERLESS),
                Err(now) => word = now,
            }
        }
        None
    }
}
