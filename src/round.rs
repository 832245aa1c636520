//! What a round of returning memory is asked to do, and what it has done so far.

/// How thorough a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thorough {
    /// What the last `Decay` has found and left, because it would have been too much at once.
    Rest,
    /// The end of a period: what was not needed since the last one goes back.
    Decay,
    /// Everything goes back.
    Everything,
}

/// The state of a round that goes from heap to heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Bytes that may still be given back to the OS; the last step may go over it.
    pub budget: usize,
    /// Bytes given back inside of what is in use: holes of slab pages, and between mid-size blocks.
    pub bytes: usize,
    /// Pages returned to the space.
    pub pages: usize,
    /// Whether the next period may find more.
    pub more: bool,
    /// Whether there is a [`Thorough::Rest`].
    pub rest: bool,
}

impl Progress {
    /// Nothing is done yet.
    pub(crate) const fn new(budget: usize) -> Progress {
        Progress { budget, bytes: 0, pages: 0, more: false, rest: false }
    }

    /// Counts bytes that were given back.
    pub(crate) fn gave(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget = self.budget.saturating_sub(bytes);
    }

    /// Something is left that this round might have given back, because it was enough.
    pub(crate) fn leave_rest(&mut self) {
        (self.more, self.rest) = (true, true);
    }
}
