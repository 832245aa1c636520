//! A lock that costs its owner nothing but plain loads and stores, so that another thread may look after what an idle one keeps.
//!
//! Dekker's algorithm, whose two fences are unequal: the owner, who passes often, executes none, and the visitor, who comes seldom, makes all processors execute one for it (Linux: `membarrier`). The idea is that of biased locks and of safe memory
//! reclamation (Dice, Huang and Yang, "Asymmetric Dekker Synchronization"). Where the system has no such call, both are real.

use crate::sync::{AtomicU32, Ordering, fence_heavy, fence_light, wait_while, wake_all};

/// The lock of a heap between its owner and one visitor at a time.
///
/// Invariant: never both is the owner inside and a visitor at work. Owner: sets `inside`, light fence, looks at `visitor`. Visitor: sets
/// `visitor`, heavy fence, looks at `inside`. At least one of them sees the other; the visitor then gives up, the owner waits.
/// Each leaves with a release that the other's look acquires, so what one did comes before what the other does.
pub(crate) struct Gate {
    /// 1 while the owner is inside. Written by the owner alone.
    inside: AtomicU32,
    /// [`NOBODY`], [`AT_WORK`] or [`AWAITED`].
    visitor: AtomicU32,
}

const NOBODY: u32 = 0;
const AT_WORK: u32 = 1;
/// A visitor is at work, and the owner sleeps until it has left.
const AWAITED: u32 = 2;

/// The owner inside its gate, until dropped.
#[must_use]
pub(crate) struct Inside<'a> {
    /// Null if it was inside already.
    gate: Option<&'a Gate>,
}

/// A visitor at work, until dropped.
#[must_use]
pub(crate) struct Visit<'a> {
    gate: &'a Gate,
}

impl Gate {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Gate {
        Gate { inside: AtomicU32::new(0), visitor: AtomicU32::new(NOBODY) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Gate {
        Gate { inside: AtomicU32::new(0), visitor: AtomicU32::new(NOBODY) }
    }

    /// Goes inside, waiting for a visitor to leave. May be nested. Only for the owner.
    #[inline]
    pub(crate) fn enter(&self) -> Inside<'_> {
        if self.inside.load(Ordering::Relaxed) != 0 {
            return Inside { gate: None };
        }
        self.inside.store(1, Ordering::Relaxed);
        fence_light();
        // Acquire: what the visitor did comes before what the owner does.
        if self.visitor.load(Ordering::Acquire) != NOBODY {
            self.enter_after_visit();
        }
        Inside { gate: Some(self) }
    }

    #[cold]
    fn enter_after_visit(&self) {
        loop {
            self.inside.store(0, Ordering::Release);
            while self.visitor.load(Ordering::Acquire) != NOBODY {
                // Fails if the visitor has left meanwhile.
                let _ = self.visitor.compare_exchange(AT_WORK, AWAITED, Ordering::Relaxed, Ordering::Relaxed);
                wait_while(&self.visitor, AWAITED);
            }
            self.inside.store(1, Ordering::Relaxed);
            fence_light();
            if self.visitor.load(Ordering::Acquire) == NOBODY {
                return;
            }
        }
    }

    /// Begins a visit, unless the owner is inside or there is a visitor already. For any thread but the owner, and for the owner outside.
    pub(crate) fn try_visit(&self) -> Option<Visit<'_>> {
        // Acquire: what an earlier visitor did comes first.
        if self.visitor.compare_exchange(NOBODY, AT_WORK, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return None;
        }
        let visit = Visit { gate: self };
        fence_heavy();
        // Acquire: what the owner did comes before what the visitor does.
        (self.inside.load(Ordering::Acquire) == 0).then_some(visit)
    }
}

impl Visit<'_> {
    /// Whether the owner waits for the end of the visit.
    pub(crate) fn is_awaited(&self) -> bool {
        self.gate.visitor.load(Ordering::Relaxed) == AWAITED
    }
}

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(gate) = self.gate {
            gate.inside.store(0, Ordering::Release);
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if self.gate.visitor.swap(NOBODY, Ordering::Release) == AWAITED {
            wake_all(&self.gate.visitor);
        }
    }
}
