//! What a heap has learned of the arenas of its thread, by their kind.

use core::ptr;

use super::Heap;
use crate::space;
use crate::tenure::{KINDS, Tenure};

/// What is known of arenas from which nothing has escaped: nothing. Never written.
pub(crate) static UNLEARNED: Unlearned = Unlearned(Tenure::new());

pub(crate) struct Unlearned(pub Tenure);

// SAFETY: nobody writes it: it is reached through `Heap::tenure`, which is only read, and `learned` leaves it out.
unsafe impl Sync for Unlearned {}

impl Heap {
    /// What it knows of arenas of a kind: never null, never freed. Only for the owner.
    #[inline]
    pub(crate) fn tenure(&self, kind: u8) -> *const Tenure {
        self.tenures[usize::from(kind) % KINDS].get()
    }

    /// What it has learned of arenas of a kind, if anything has escaped from one. Only for the owner.
    #[inline]
    pub(crate) fn learned(&self, kind: u8) -> Option<&'static Tenure> {
        let tenure = self.tenure(kind);
        // SAFETY: records live for ever.
        (!ptr::eq(tenure, &raw const UNLEARNED.0)).then(|| unsafe { &*tenure })
    }

    /// Where to write what there is to learn of arenas of a kind. `None` if there is no memory for it. Only for the owner.
    pub(crate) fn to_teach(&self, kind: u8) -> Option<&'static Tenure> {
        self.learned(kind).or_else(|| {
            let record = space::alloc_record(size_of::<Tenure>()).cast::<Tenure>();
            if record.is_null() {
                return None;
            }
            // SAFETY: the record is big and aligned enough, lives for ever, and nobody else has it.
            unsafe { record.write(Tenure::new()) };
            self.tenures[usize::from(kind) % KINDS].set(record);
            self.learned(kind)
        })
    }
}
