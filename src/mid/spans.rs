//! Runs of 4 KiB units in spans of pages: exact best fit, neighbours merged at once.
//!
//! ```text
//! base (a multiple of 64 KiB)
//! | Head | Tag | Tag | .. | Tag |  unit  |  unit  |  unit  |  ..  |  unit  |
//! '-- the first units of the span, never handed out --'
//! ```
//!
//! What is known of units stands apart from them, so that memory which nobody asked for stays untouched and what is freed
//! is not touched again. Free runs are listed by their exact length, with a bitmap of the lengths there are.
//!
//! Knows nothing of where spans come from and of who asks: [`mid`](super) does.

use core::cell::Cell;
use core::ptr;

use super::classes::{MID_MAX, UNIT};
use crate::round::{Progress, Thorough};
use crate::space::PAGE_SIZE;

/// Lists of free runs: one for each length that can be asked for, and one for all that are longer.
const BINS: usize = MID_MAX / UNIT + 2;
const WORDS: usize = BINS.div_ceil(u64::BITS as usize);

const PAGE_UNITS: usize = PAGE_SIZE / UNIT;

/// Most pages of a span: all of it is described in the first.
pub(super) const SPAN_MAX: usize = (PAGE_SIZE - size_of::<Head>()) / size_of::<Tag>() / PAGE_UNITS - 1;

/// Pages of the shortest span that has `units` units to hand out.
pub(super) const fn pages_for(units: usize) -> usize {
    let mut pages = units.div_ceil(PAGE_UNITS);
    while pages * PAGE_UNITS - own_units(pages * PAGE_UNITS) < units {
        pages += 1;
    }
    pages
}

/// Units that a span of `units` units needs for itself.
const fn own_units(units: usize) -> usize {
    (size_of::<Head>() + (units + 1) * size_of::<Tag>()).div_ceil(UNIT)
}

/// The first words of a span.
#[repr(C, align(8))]
struct Head {
    /// Units of the span, its own included.
    units: u32,
}

/// What is known of one unit. There is one tag more than units, for what would follow.
///
/// Invariant: of each run, free or handed out, the tags of the first and the last unit are true. The others mean nothing.
#[repr(C)]
struct Tag {
    /// First unit of a free run: its neighbours in the list of its length. Before the first one is the last.
    next: Cell<*mut Tag>,
    prev: Cell<*mut Tag>,
    /// Units of the free run that begins or ends here; 0 if the run is handed out.
    free: Cell<u32>,
    /// First unit of a free run: [`CLEAN`], or whether somebody had a part of it since the OS was last given all of it.
    dirty: Cell<u8>,
}

/// States of a free run: the OS has all of it; somebody had a part of it; it was so at the end of a period; and at the end of the next,
/// so it may go back.
const CLEAN: u8 = 0;
const DIRTY: u8 = 1;
const AGED: u8 = 2;
const DUE: u8 = 3;

/// A span, by the pointer to its first byte.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Span(*mut u8);

impl Span {
    /// The span that `tag` is part of.
    fn of(tag: *mut Tag) -> Span {
        Span(tag.map_addr(|addr| addr & !(PAGE_SIZE - 1)).cast())
    }

    fn units(self) -> usize {
        // SAFETY: a span that is in use begins with its head.
        unsafe { (*self.0.cast::<Head>()).units as usize }
    }

    fn tag_pointer(self, unit: usize) -> *mut Tag {
        self.0.wrapping_add(size_of::<Head>()).cast::<Tag>().wrapping_add(unit)
    }

    fn tag(self, unit: usize) -> &'static Tag {
        debug_assert!(unit <= self.units());
        // SAFETY: the span has tags for its units and one more; zeros and anything else are valid in them; they are used under
        // the lock of the heap that has the span, and nobody keeps the reference.
        unsafe { &*self.tag_pointer(unit) }
    }

    /// The unit that a tag describes.
    fn unit_of(self, tag: *mut Tag) -> usize {
        (tag.addr() - self.tag_pointer(0).addr()) / size_of::<Tag>()
    }

    fn unit_at(self, block: *const u8) -> usize {
        (block.addr() - self.0.addr()) / UNIT
    }

    /// Marks both ends of a run: free, or handed out.
    fn mark(self, first: usize, units: usize, free: bool) {
        let value = if free { units as u32 } else { 0 };
        self.tag(first).free.set(value);
        self.tag(first + units - 1).free.set(value);
    }
}

/// Runs that were taken to be given back to the OS while nobody holds the lock. To others they are handed out.
///
/// They are linked through the `next` of their first tags; the `prev` of these leads to their last tags. Both mean nothing to anybody else
/// meanwhile.
pub(super) struct Due {
    first: *mut Tag,
    /// Whether runs are left for which the budget was not enough.
    pub left: bool,
    /// Whether there are others that may be due at the end of the next period.
    pub more: bool,
}

impl Due {
    /// Whether nothing is left to be put back.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Gives the memory back with `purge`, which returns the bytes that the OS took. What it did not take is due again at the end of the
    /// next period.
    pub(super) fn purge(&self, progress: &mut Progress, purge: impl Fn(*mut u8, usize) -> usize) {
        let mut tag = self.first;
        while !tag.is_null() {
            let (span, unit, units) = taken(tag);
            let done = purge(span.0.wrapping_add(unit * UNIT), units * UNIT);
            span.tag(unit).dirty.set(if done == 0 { AGED } else { CLEAN });
            progress.gave(done);
            tag = span.tag(unit).next.get();
        }
    }
}

/// Span, first unit and units of a member of [`Due`].
fn taken(tag: *mut Tag) -> (Span, usize, usize) {
    let span = Span::of(tag);
    let unit = span.unit_of(tag);
    (span, unit, span.unit_of(span.tag(unit).prev.get()) + 1 - unit)
}

/// Runs that are put back while the lock is held once.
const BATCH: usize = 64;

/// The free runs of any number of spans.
pub(super) struct Spans {
    bins: [*mut Tag; BINS],
    nonempty: [u64; WORDS],
    /// A span that is free as a whole and kept for the next need, or null.
    spare: *mut u8,
}

// SAFETY: the pointers lead into the spans, which belong to whoever has this value.
unsafe impl Send for Spans {}

impl Spans {
    pub(super) const fn new() -> Spans {
        Spans { bins: [ptr::null_mut(); BINS], nonempty: [0; WORDS], spare: ptr::null_mut() }
    }

    /// Takes over `pages` pages at `base`.
    ///
    /// # Safety
    ///
    /// `base` must be a multiple of 64 KiB, `pages` at most [`SPAN_MAX`] and enough for one unit, and the memory the caller's
    /// until [`Spans::free`] gives it back.
    pub(super) unsafe fn add(&mut self, base: *mut u8, pages: usize) {
        let span = Span(base);
        let units = pages * PAGE_UNITS;
        let own = own_units(units);
        // SAFETY: the memory is the caller's, aligned, and longer than what describes it. The tags at both ends are written
        // before any reference leads to them: there is no free neighbour before the first or behind the last unit.
        unsafe {
            base.cast::<Head>().write(Head { units: units as u32 });
            for unit in [own - 1, units] {
                (&raw mut (*span.tag_pointer(unit)).free).write(Cell::new(0));
            }
        }
        self.insert(span, own, units - own, DIRTY);
    }

    /// Takes a run of `units` units, or null if there is none.
    pub(super) fn alloc(&mut self, units: usize) -> *mut u8 {
        let Some(tag) = self.find(units) else { return ptr::null_mut() };
        let span = Span::of(tag);
        let first = span.unit_of(tag);
        let dirty = span.tag(first).dirty.get();
        let free = self.remove(span, first);
        if free > units {
            self.insert(span, first + units, free - units, dirty);
        }
        span.mark(first, units, false);
        if span.0 == self.spare {
            self.spare = ptr::null_mut();
        }
        span.0.wrapping_add(first * UNIT)
    }

    /// Returns a run. If that makes the whole span free, and another one that is free is kept already, it is the caller's again: its
    /// first byte is returned.
    ///
    /// # Safety
    ///
    /// `block` must be a run of `units` units that was taken from here, in the span at `base`.
    pub(super) unsafe fn free(&mut self, base: *mut u8, block: *mut u8, units: usize) -> Option<*mut u8> {
        let span = Span(base);
        // SAFETY: passed on.
        unsafe { self.put(span, span.unit_at(block), units, DIRTY) }
    }

    /// Returns a run in a state. What it becomes with its neighbours is [`DIRTY`] if the run is, else in the latest of their states.
    ///
    /// # Safety
    ///
    /// The run must have been taken from here.
    unsafe fn put(&mut self, span: Span, first: usize, units: usize, state: u8) -> Option<*mut u8> {
        let (mut first, mut units, mut dirty) = (first, units, state);
        let behind = first + units;
        if span.tag(behind).free.get() != 0 {
            dirty = dirty.max(span.tag(behind).dirty.get());
            units += self.remove(span, behind);
        }
        let before = span.tag(first - 1).free.get() as usize;
        if before != 0 {
            first -= before;
            dirty = dirty.max(span.tag(first).dirty.get());
            units += self.remove(span, first);
        }
        if units + own_units(span.units()) == span.units() {
            if !self.spare.is_null() {
                return Some(span.0);
            }
            self.spare = span.0;
        }
        self.insert(span, first, units, if state == DIRTY { DIRTY } else { dirty });
        None
    }

    /// Gives up the free span that is kept, if there is one: its first byte.
    pub(super) fn take_spare(&mut self) -> Option<*mut u8> {
        let base = core::mem::replace(&mut self.spare, ptr::null_mut());
        if base.is_null() {
            return None;
        }
        let span = Span(base);
        self.remove(span, own_units(span.units()));
        Some(base)
    }

    /// Changes the length of a run in place, if the units behind it allow it.
    ///
    /// # Safety
    ///
    /// As [`Spans::free`].
    pub(super) unsafe fn resize(
        &mut self,
        base: *mut u8,
        block: *mut u8,
        units: usize,
        wanted: usize,
    ) -> bool {
        let span = Span(base);
        let first = span.unit_at(block);
        let free = span.tag(first + units).free.get() as usize;
        if units + free < wanted {
            return false;
        }
        let mut dirty = DIRTY;
        if free != 0 {
            if wanted >= units {
                dirty = span.tag(first + units).dirty.get();
            }
            self.remove(span, first + units);
        }
        span.mark(first, wanted, false);
        if units + free > wanted {
            self.insert(span, first + wanted, units + free - wanted, dirty);
        }
        true
    }

    /// Takes the runs that are due, as a part of a round: at most `budget` bytes and one run more.
    pub(super) fn take_due(&mut self, thorough: Thorough, budget: usize) -> Due {
        let mut due = Due { first: ptr::null_mut(), left: false, more: false };
        let mut bytes = 0;
        for bin in 0..BINS {
            let mut tag = self.bins[bin];
            while !tag.is_null() {
                let (span, this) = (Span::of(tag), tag);
                let unit = span.unit_of(tag);
                let first = span.tag(unit);
                tag = first.next.get();
                match (first.dirty.get(), thorough) {
                    (CLEAN, _) => continue,
                    (DIRTY, Thorough::Decay) => {
                        first.dirty.set(AGED);
                        due.more = true;
                        continue;
                    }
                    // In the middle of a period this would be too early.
                    (DIRTY | AGED, Thorough::Rest) => {
                        due.more = true;
                        continue;
                    }
                    _ if bytes >= budget => {
                        first.dirty.set(DUE);
                        due.left = true;
                        continue;
                    }
                    _ => {}
                }
                let units = self.remove(span, unit);
                span.mark(unit, units, false);
                if span.0 == self.spare {
                    self.spare = ptr::null_mut();
                }
                first.next.set(due.first);
                first.prev.set(span.tag_pointer(unit + units - 1));
                due.first = this;
                bytes += units * UNIT;
            }
        }
        due
    }

    /// Puts back some of what [`Spans::take_due`] has taken. If that makes a whole span free that is not kept, it is the caller's again: its
    /// first byte is returned.
    pub(super) fn put_back(&mut self, due: &mut Due) -> Option<*mut u8> {
        for _ in 0..BATCH {
            if due.is_empty() {
                break;
            }
            let (span, unit, units) = taken(due.first);
            let tag = span.tag(unit);
            due.first = tag.next.get();
            // SAFETY: the run was taken from here, and nobody else knows of it.
            let empty = unsafe { self.put(span, unit, units, tag.dirty.get()) };
            if empty.is_some() {
                return empty;
            }
        }
        None
    }

    /// The first unit of the shortest run that has `units` units.
    fn find(&self, units: usize) -> Option<*mut Tag> {
        let mut word = units / 64;
        let mut bits = self.nonempty[word] & (u64::MAX << (units % 64));
        while bits == 0 {
            word += 1;
            bits = *self.nonempty.get(word)?;
        }
        Some(self.bins[word * 64 + bits.trailing_zeros() as usize])
    }

    /// Lists a free run: first in the list of its length, or last if it has no memory.
    fn insert(&mut self, span: Span, first: usize, units: usize, dirty: u8) {
        span.mark(first, units, true);
        span.tag(first).dirty.set(dirty);
        let bin = units.min(BINS - 1);
        let (tag, this) = (span.tag_pointer(first), span.tag(first));
        // SAFETY: list members are tags of spans that are in use.
        match unsafe { self.bins[bin].as_ref() } {
            None => {
                this.prev.set(tag);
                this.next.set(ptr::null_mut());
                self.bins[bin] = tag;
                self.nonempty[bin / 64] |= 1 << (bin % 64);
            }
            Some(head) => {
                let last = head.prev.replace(tag);
                this.prev.set(last);
                if dirty == CLEAN {
                    this.next.set(ptr::null_mut());
                    // SAFETY: as above.
                    unsafe { (*last).next.set(tag) };
                } else {
                    this.next.set(self.bins[bin]);
                    self.bins[bin] = tag;
                }
            }
        }
    }

    /// Takes a free run off its list. Returns its length.
    fn remove(&mut self, span: Span, first: usize) -> usize {
        let this = span.tag(first);
        let units = this.free.get() as usize;
        let bin = units.min(BINS - 1);
        let (prev, next) = (this.prev.get(), this.next.get());
        if self.bins[bin] == span.tag_pointer(first) {
            self.bins[bin] = next;
        } else {
            // SAFETY: list members are tags of spans that are in use.
            unsafe { (*prev).next.set(next) };
        }
        // What follows, or the first one if this was the last.
        let behind = if next.is_null() { self.bins[bin] } else { next };
        // SAFETY: as above.
        match unsafe { behind.as_ref() } {
            Some(behind) => behind.prev.set(prev),
            None => self.nonempty[bin / 64] &= !(1 << (bin % 64)),
        }
        units
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::{Layout, alloc, dealloc};

    use super::*;

    /// Most units that are asked for at once.
    const LONGEST: usize = MID_MAX / UNIT;
    const PAGES: usize = pages_for(LONGEST);

    fn memory() -> Layout {
        Layout::from_size_align(PAGES * PAGE_SIZE, PAGE_SIZE).unwrap()
    }

    /// Memory for a span, full of what earlier users left.
    fn span() -> *mut u8 {
        // SAFETY: the size is not zero, and all of it may be written.
        unsafe {
            let base = alloc(memory());
            assert!(!base.is_null());
            base.write_bytes(0xEE, memory().size());
            base
        }
    }

    /// Who has units that are being purged.
    const PURGED: u32 = u32::MAX;

    /// Which units of a span are handed out, and to whom.
    struct Shadow {
        base: *mut u8,
        units: Vec<u32>,
    }

    impl Shadow {
        fn new(spans: &mut Spans) -> Shadow {
            let base = span();
            // SAFETY: the memory is new and long enough.
            unsafe { spans.add(base, PAGES) };
            Shadow { base, units: vec![0; PAGES * PAGE_UNITS] }
        }

        /// Changes the owner of some units.
        fn set(&mut self, block: *mut u8, units: std::ops::Range<usize>, from: u32, to: u32) {
            let first = (block.addr() - self.base.addr()) / UNIT;
            assert!((block.addr() - self.base.addr()).is_multiple_of(UNIT));
            for unit in &mut self.units[first + units.start..first + units.end] {
                assert_eq!(*unit, from);
                *unit = to;
            }
        }

        /// Every run between blocks is free in one piece, listed under its length, and nothing else is.
        fn check(&self, spans: &Spans) {
            let (span, own) = (Span(self.base), own_units(self.units.len()));
            let mut free = Vec::new();
            let mut unit = own;
            while unit < self.units.len() {
                let owner = self.units[unit];
                let run = self.units[unit..].iter().take_while(|other| **other == owner).count();
                let said = if owner == 0 { run as u32 } else { 0 };
                assert_eq!((span.tag(unit).free.get(), span.tag(unit + run - 1).free.get()), (said, said));
                if owner == 0 {
                    free.push((run.min(BINS - 1), unit));
                }
                unit += run;
            }
            let mut listed = Vec::new();
            for bin in 0..BINS {
                let mut tag = spans.bins[bin];
                assert_eq!(spans.nonempty[bin / 64] >> (bin % 64) & 1 == 1, !tag.is_null());
                // SAFETY: list members are tags.
                let mut before = unsafe { tag.as_ref() }.map_or(tag, |first| first.prev.get());
                while !tag.is_null() {
                    // SAFETY: as above.
                    assert_eq!(unsafe { (*tag).prev.get() }, core::mem::replace(&mut before, tag));
                    if Span::of(tag) == span {
                        listed.push((bin, span.unit_of(tag)));
                    }
                    // SAFETY: list members are tags.
                    tag = unsafe { (*tag).next.get() };
                }
            }
            free.sort_unstable();
            listed.sort_unstable();
            assert_eq!(listed, free);
        }
    }

    /// Changes the owner of what is being purged.
    fn set_due(shadows: &mut [Shadow], due: &Due, from: u32, to: u32) {
        let mut tag = due.first;
        while !tag.is_null() {
            let (span, unit, units) = taken(tag);
            let shadow = shadows.iter_mut().find(|shadow| shadow.base == span.0).unwrap();
            shadow.set(shadow.base, unit..unit + units, from, to);
            tag = span.tag(unit).next.get();
        }
    }

    /// Ends a purge.
    fn put_back(spans: &mut Spans, shadows: &mut [Shadow], due: &mut Due) {
        set_due(shadows, due, PURGED, 0);
        due.purge(&mut Progress::new(usize::MAX), |_, bytes| bytes);
        while !due.is_empty() {
            let empty = spans.put_back(due);
            if let Some(shadow) = shadows.iter_mut().find(|shadow| empty == Some(shadow.base)) {
                assert!(shadow.units.iter().all(|owner| *owner == 0));
                // SAFETY: the span is empty and was given back.
                unsafe {
                    dealloc(shadow.base, memory());
                    *shadow = Shadow::new(spans);
                }
            }
        }
    }

    #[test]
    fn blocks_do_not_overlap_and_free_runs_are_merged() {
        let rounds = if cfg!(miri) { 300 } else { 20_000 };
        let mut spans = Spans::new();
        let mut shadows = [Shadow::new(&mut spans), Shadow::new(&mut spans)];
        let mut blocks: Vec<(usize, *mut u8, usize, u32)> = Vec::new();
        let mut state = 1u64;
        let mut random = |bound: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % bound
        };
        let mut due = spans.take_due(Thorough::Rest, 0);
        for round in 1..rounds {
            let most = 1 << random(9);
            let units = (1 + random(most)).min(LONGEST);
            if round % 64 == 0 {
                // Somebody gives memory back to the OS meanwhile.
                due = spans.take_due(Thorough::Everything, random(64) * UNIT);
                set_due(&mut shadows, &due, 0, PURGED);
            } else if round % 64 == 32 {
                put_back(&mut spans, &mut shadows, &mut due);
            }
            match random(if blocks.len() < 40 { 4 } else { 8 }) {
                0..=2 => {
                    let block = spans.alloc(units);
                    let span = shadows.iter().position(|shadow| {
                        (0..memory().size()).contains(&block.addr().wrapping_sub(shadow.base.addr()))
                    });
                    match span {
                        Some(span) => {
                            shadows[span].set(block, 0..units, 0, round);
                            blocks.push((span, block, units, round));
                        }
                        None => assert!(block.is_null()),
                    }
                }
                3 if !blocks.is_empty() => {
                    let chosen = random(blocks.len());
                    let (span, block, old, owner) = blocks[chosen];
                    let shadow = &mut shadows[span];
                    // SAFETY: the block has this length.
                    if unsafe { spans.resize(shadow.base, block, old, units) } {
                        shadow.set(block, 0..old, owner, 0);
                        shadow.set(block, 0..units, 0, owner);
                        blocks[chosen].2 = units;
                    } else {
                        let behind = (block.addr() - shadow.base.addr()) / UNIT + old;
                        let room = shadow.units[behind..].iter().take_while(|unit| **unit == 0).count();
                        assert!(old + room < units, "{old} units with {room} behind did not become {units}");
                    }
                }
                _ if !blocks.is_empty() => {
                    let (span, block, units, owner) = blocks.swap_remove(random(blocks.len()));
                    let shadow = &mut shadows[span];
                    shadow.set(block, 0..units, owner, 0);
                    // SAFETY: the block has this length and is not used any more.
                    let empty = unsafe { spans.free(shadow.base, block, units) };
                    let empty = if random(2) == 0 { empty.or_else(|| spans.take_spare()) } else { empty };
                    if let Some(shadow) = shadows.iter_mut().find(|shadow| empty == Some(shadow.base)) {
                        assert!(shadow.units.iter().all(|owner| *owner == 0));
                        // SAFETY: the span is empty and was given back.
                        unsafe {
                            dealloc(shadow.base, memory());
                            *shadow = Shadow::new(&mut spans);
                        }
                    }
                }
                _ => {}
            }
            if round % 16 == 0 {
                shadows.iter().for_each(|shadow| shadow.check(&spans));
            }
        }
        put_back(&mut spans, &mut shadows, &mut due);
        for (span, block, units, owner) in blocks {
            shadows[span].set(block, 0..units, owner, 0);
            // SAFETY: as above; a span is freed below.
            unsafe { spans.free(shadows[span].base, block, units) };
        }
        assert!(spans.take_spare().is_some(), "one of the two is kept");
        assert_eq!((spans.take_spare(), spans.nonempty), (None, [0; WORDS]), "the other is not");
        for shadow in shadows {
            // SAFETY: nobody uses the spans any more.
            unsafe { dealloc(shadow.base, memory()) };
        }
    }

    /// Lengths in units of the runs that a purge gives back, shortest first.
    fn purged(spans: &mut Spans, thorough: Thorough, budget: usize) -> (Vec<usize>, Progress) {
        let given = std::cell::RefCell::new(Vec::new());
        let mut progress = Progress::new(budget);
        let mut due = spans.take_due(thorough, progress.budget);
        due.purge(&mut progress, |_, bytes| {
            given.borrow_mut().push(bytes / UNIT);
            bytes
        });
        while !due.is_empty() {
            assert_eq!(spans.put_back(&mut due), None);
        }
        progress.more |= due.more;
        if due.left {
            progress.leave_rest();
        }
        let mut given = given.into_inner();
        given.reverse();
        (given, progress)
    }

    #[test]
    fn what_a_period_did_not_need_is_purged_as_far_as_the_budget_goes() {
        let mut spans = Spans::new();
        let base = span();
        // SAFETY: the memory is new and long enough.
        unsafe { spans.add(base, PAGES) };
        let blocks: Vec<_> = [5, 1, 7, 1, 9, 1].map(|units| (spans.alloc(units), units)).into();
        let rest = PAGES * PAGE_UNITS - own_units(PAGES * PAGE_UNITS) - 24;
        let free = |spans: &mut Spans, index: usize| {
            // SAFETY: the block has this length and is not used any more.
            assert_eq!(unsafe { spans.free(base, blocks[index].0, blocks[index].1) }, None);
        };
        free(&mut spans, 0);
        free(&mut spans, 2);
        // The first period tells what is there, the middle of it nothing.
        let (given, progress) = purged(&mut spans, Thorough::Decay, usize::MAX);
        assert!(given.is_empty() && progress.more && !progress.rest);
        free(&mut spans, 4);
        let seven = spans.alloc(7);
        assert!(!seven.is_null());
        // Nobody needed 5 and the long rest; 9 is new.
        let (given, progress) = purged(&mut spans, Thorough::Decay, 1);
        assert_eq!((given, progress.more, progress.rest), (vec![5], true, true));
        let (given, progress) = purged(&mut spans, Thorough::Rest, usize::MAX);
        assert_eq!((given, progress.bytes, progress.rest), (vec![rest], rest * UNIT, false));
        let (given, _) = purged(&mut spans, Thorough::Decay, usize::MAX);
        assert_eq!(given, vec![9]);
        // SAFETY: as above.
        unsafe { spans.free(base, seven, 7) };
        assert_eq!(purged(&mut spans, Thorough::Everything, usize::MAX).0, vec![7]);
        assert_eq!(purged(&mut spans, Thorough::Everything, usize::MAX).0, Vec::<usize>::new());
        // SAFETY: it came from there, and nothing of it is used any more.
        unsafe { dealloc(base, memory()) };
    }

    #[test]
    fn what_is_freed_beside_a_run_that_is_purged_is_purged_later() {
        let mut spans = Spans::new();
        let base = span();
        // SAFETY: the memory is new and long enough.
        unsafe { spans.add(base, PAGES) };
        // A free span is kept for the next need, but not while it is away.
        let one = spans.alloc(1);
        // SAFETY: taken above.
        unsafe { assert_eq!(spans.free(base, one, 1), None) };
        let mut due = spans.take_due(Thorough::Everything, usize::MAX);
        assert_eq!((spans.take_spare(), spans.alloc(1)), (None, ptr::null_mut()));
        due.purge(&mut Progress::new(usize::MAX), |_, bytes| bytes);
        assert_eq!(spans.put_back(&mut due), None);
        assert_eq!(spans.spare, base);
        let [first, second, _third] = [5, 7, 1].map(|units| spans.alloc(units));
        // SAFETY: taken above with these lengths.
        unsafe { assert_eq!(spans.free(base, first, 5), None) };
        let mut due = spans.take_due(Thorough::Everything, usize::MAX);
        // SAFETY: as above.
        unsafe { assert_eq!(spans.free(base, second, 7), None) };
        due.purge(&mut Progress::new(usize::MAX), |_, bytes| bytes);
        assert_eq!(spans.put_back(&mut due), None);
        assert!(due.is_empty());
        assert_eq!(purged(&mut spans, Thorough::Everything, usize::MAX).0, vec![12]);
        // What the OS refuses is tried again.
        let two = spans.alloc(12);
        // SAFETY: as above.
        unsafe { assert_eq!(spans.free(base, two, 12), None) };
        let mut due = spans.take_due(Thorough::Everything, usize::MAX);
        due.purge(&mut Progress::new(usize::MAX), |_, _| 0);
        assert_eq!(spans.put_back(&mut due), None);
        assert_eq!(purged(&mut spans, Thorough::Decay, usize::MAX).0, vec![12]);
        // SAFETY: it came from there, and nothing of it is used any more.
        unsafe { dealloc(base, memory()) };
    }

    #[test]
    fn what_a_block_gives_up_is_young_and_what_has_memory_is_taken_first() {
        let mut spans = Spans::new();
        let base = span();
        // SAFETY: the memory is new and long enough.
        unsafe { spans.add(base, PAGES) };
        let rest = PAGES * PAGE_UNITS - own_units(PAGES * PAGE_UNITS) - 12;
        let [first, _, second, _, last] = [3, 1, 3, 1, 6].map(|units| spans.alloc(units));
        assert!(purged(&mut spans, Thorough::Decay, usize::MAX).0.is_empty());
        // SAFETY: taken above with this length.
        assert!(unsafe { spans.resize(base, last, 6, 4) });
        assert!(purged(&mut spans, Thorough::Decay, usize::MAX).0.is_empty(), "a part of it was just used");
        assert_eq!(purged(&mut spans, Thorough::Decay, usize::MAX).0, vec![rest]);
        // SAFETY: as above.
        unsafe { assert_eq!(spans.free(base, first, 3), None) };
        let mut due = spans.take_due(Thorough::Everything, usize::MAX);
        // SAFETY: as above.
        unsafe { assert_eq!(spans.free(base, second, 3), None) };
        due.purge(&mut Progress::new(usize::MAX), |_, bytes| bytes);
        assert_eq!(spans.put_back(&mut due), None);
        assert_eq!([spans.alloc(3), spans.alloc(3)], [second, first]);
        // SAFETY: nobody uses the span any more.
        unsafe { dealloc(base, memory()) };
    }

    #[test]
    fn the_best_fitting_run_is_taken() {
        let mut spans = Spans::new();
        let shadow = Shadow::new(&mut spans);
        let blocks: Vec<*mut u8> = [5, 1, 9, 1, 7, 1].iter().map(|units| spans.alloc(*units)).collect();
        // SAFETY: taken above with these lengths.
        unsafe {
            for (block, units) in [(blocks[0], 5), (blocks[2], 9), (blocks[4], 7)] {
                assert!(spans.free(shadow.base, block, units).is_none());
            }
        }
        assert_eq!(spans.alloc(6), blocks[4]);
        assert_eq!(spans.alloc(1), blocks[4].wrapping_add(6 * UNIT));
        assert_eq!(spans.alloc(9), blocks[2]);
        assert_eq!(spans.alloc(5), blocks[0]);
        // SAFETY: nobody uses the span any more.
        unsafe { dealloc(shadow.base, memory()) };
    }
}
