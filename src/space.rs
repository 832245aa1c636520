//! The address space: one reservation, committed from the front, divided into 64 KiB pages.
//!
//! ```text
//! base                                        frontier            committed                 base + len
//!  | table of page headers | pages in use or free | committed, unused |   reserved only   ...   |
//! ```
//!
//! The header of the page at `address` is `base + ((address - base) >> 16) * 128`: arithmetic on the base pointer, so it
//! needs no load that depends on the address and never derives from the caller's pointer. The table occupies the first
//! pages of the reservation itself, so base and length are all there is to know.
//!
//! Free runs are kept with boundary tags (`run_len` in the first and last header of a run) in lists by length, so that
//! taking, returning, growing and merging are O(1) but for the longest runs. All of it happens under one lock; heaps
//! take several pages at a time to come here seldom.
//!
//! This is the only user of `region`, `madvise` and `mremap`.

mod dirty;
mod light;
mod os;
mod purging;
mod runs;

pub(crate) use self::light::{LIGHT_BYTES, alloc_light};
pub(crate) use self::purging::{
    can_purge_holes, decay, dirty_bytes, purge, purge_free, purge_hole, purged, release_light,
};

use core::ptr;

use self::dirty::Dirty;
use self::light::Light;
use self::purging::limit_dirty;
use self::runs::BINS;

use crate::header::{Kind, NO_OWNER, PageHeader};
use crate::sync::{AtomicBool, AtomicPtr, AtomicUsize, Lock, Ordering};

/// Bytes of a page.
pub(crate) const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
pub(crate) const PAGE_SHIFT: u32 = 16;

/// Pages committed at once, at least: 4 MiB. Larger spaces are committed in steps of an eighth, up to 64 MiB.
const COMMIT_STEP: usize = if cfg!(miri) { 1 } else { 64 };
const COMMIT_STEP_MAX: usize = 1024;

/// Runs of so many pages, most of them large blocks, may be asked to grow in place, and have more room for that at the beginning of a free
/// run. Spans of mid-size blocks are one shorter.
const GROWS: usize = 18;

/// Where the reservation is. Written once; `len` is 0 until then, so that nothing is found inside.
#[repr(align(64))]
struct Root {
    base: AtomicPtr<u8>,
    len: AtomicUsize,
}

static ROOT: Root = Root { base: AtomicPtr::new(ptr::null_mut()), len: AtomicUsize::new(0) };

static SPACE: Lock<Space> = Lock::new(Space {
    pages: 0,
    frontier: 0,
    committed: 0,
    table_committed: 0,
    dirty: Dirty::NONE,
    dirty_low: 0,
    purged_at_once: 0,
    regretted: 0,
    light: Light::NONE,
    nonempty: 0,
    bins: [ptr::null(); BINS],
    meta: (ptr::null_mut(), 0),
});

/// Pages handed out at least once: a copy of what the space knows, to be read without its lock.
static FRONTIER: AtomicUsize = AtomicUsize::new(0);

/// Pages that have been in use at some time: a measure of how big the program is.
#[inline]
pub(crate) fn pages_ever_used() -> usize {
    FRONTIER.load(Ordering::Relaxed)
}

struct Space {
    /// Pages of the reservation, the table's own included.
    pages: usize,
    /// Pages before this one have been handed out at least once.
    frontier: usize,
    /// Pages before this one are committed.
    committed: usize,
    /// Bytes of the table that are committed.
    table_committed: usize,
    /// Which pages of free runs are dirty.
    dirty: Dirty,
    /// Fewest dirty pages since the last [`decay`]: so many were free all the time.
    dirty_low: usize,
    /// Pages that were purged because too many were dirty, and that nobody has needed since; less those of earlier periods.
    purged_at_once: usize,
    /// Pages that were needed soon after that: so many more may be dirty. Half of them are forgotten at the end of a period.
    regretted: usize,
    /// Pages that wait apart from the free runs.
    light: Light,
    /// Bit `b` is set if `bins[b]` is not empty.
    nonempty: u64,
    bins: [*const PageHeader; BINS],
    /// What is left of the page that records are carved from: pointer and bytes.
    meta: (*mut u8, usize),
}

// SAFETY: the pointers lead to headers in the table, which exist for ever; the lock around the space serialises their use.
unsafe impl Send for Space {}

/// A run that was handed out.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub header: &'static PageHeader,
    /// Whether all bytes are known to be zero.
    pub zeroed: bool,
}

/// The header of the page that contains `ptr`, and the same address with the reservation's provenance; `None` if it is not in
/// the reservation.
#[inline]
pub(crate) fn locate(ptr: *const u8) -> Option<(&'static PageHeader, *mut u8)> {
    // Acquire pairs with the release in `reserve`: who sees the length sees the base.
    let len = ROOT.len.load(Ordering::Acquire);
    let base = ROOT.base.load(Ordering::Relaxed);
    let offset = ptr.addr().wrapping_sub(base.addr());
    if offset >= len {
        return None;
    }
    // SAFETY: there is a reservation, because its length is not 0. A caller's pointer is into a page that was handed out,
    // whose part of the table is committed; headers are never moved or removed.
    unsafe {
        core::hint::assert_unchecked(!base.is_null());
        Some((header_at(base, offset >> PAGE_SHIFT), base.with_addr(ptr.addr())))
    }
}

/// The header of the page that contains `ptr`, or `None` if it is not in the reservation.
#[inline]
pub(crate) fn header_of(ptr: *const u8) -> Option<&'static PageHeader> {
    locate(ptr).map(|(header, _)| header)
}

/// # Safety
///
/// `base` must be the base of the reservation and the table must be committed up to `index`.
#[inline]
unsafe fn header_at(base: *mut u8, index: usize) -> &'static PageHeader {
    // SAFETY: by the caller's promise this is an initialised (zeros are valid) header inside the table.
    unsafe { &*base.add(index * size_of::<PageHeader>()).cast::<PageHeader>() }
}

/// The pointer to `addr`, an address in the reservation, with the reservation's provenance.
#[inline]
pub(crate) fn at(addr: usize) -> *mut u8 {
    ROOT.base.load(Ordering::Relaxed).with_addr(addr)
}

/// First byte of the page that `header` describes.
#[inline]
pub(crate) fn start_of(header: &PageHeader) -> *mut u8 {
    let base = ROOT.base.load(Ordering::Relaxed);
    let index = (header.address() - base.addr()) / size_of::<PageHeader>();
    // SAFETY: the header is in the table, so its page is in the reservation.
    unsafe { base.add(index << PAGE_SHIFT) }
}

/// Makes the reservation: `wanted` bytes, halved until the OS agrees. Called once, before anything else here.
///
/// Returns whether there is one. Where the OS refuses the first wish, half of what it grants is given back, because
/// the program needs address space of its own.
pub(crate) fn reserve(wanted: usize, huge_pages: bool) -> bool {
    let Some((start, len)) = os::reserve(wanted) else { return false };
    if !huge_pages {
        os::avoid_huge_pages(start, len);
    }
    let base = start.map_addr(|addr| addr.next_multiple_of(PAGE_SIZE));
    let pages = (len - (base.addr() - start.addr())) >> PAGE_SHIFT;
    let (headers, bits) = (pages * size_of::<PageHeader>(), Dirty::bytes(pages));
    let table = (headers + bits).div_ceil(PAGE_SIZE);
    if pages <= table {
        return false;
    }
    // SAFETY: the table is inside the reservation.
    let dirty = unsafe { base.add(headers) };
    if !os::commit(dirty, bits) {
        return false;
    }
    {
        let mut space = SPACE.lock();
        space.pages = pages;
        // SAFETY: committed, never written before, and part of no page that is handed out.
        space.dirty = unsafe { Dirty::new(dirty, pages) };
        space.frontier = table;
        space.committed = table;
    }
    ROOT.base.store(base, Ordering::Relaxed);
    ROOT.len.store(pages << PAGE_SHIFT, Ordering::Release);
    true
}

/// Takes a run of `pages` pages whose first address is a multiple of `align` pages. `None` when the space is used up or
/// the OS will not commit more.
pub(crate) fn alloc_run(pages: usize, align: usize, kind: Kind) -> Option<Run> {
    let mut space = SPACE.lock();
    let (first, dirty) = space.take(pages, align)?;
    let header = space.header(first);
    space.tag(first, pages, kind);
    header.owner.store(NO_OWNER, Ordering::Relaxed);
    if matches!(kind, Kind::Mid | Kind::Aligned) {
        for index in first..first + pages {
            let header = space.header(index);
            header.set_kind(kind);
            header.owner.store(NO_OWNER, Ordering::Relaxed);
            header.sizes.iter().for_each(|size| size.set(0));
        }
    }
    Some(Run { header, zeroed: dirty == 0 })
}

/// Takes up to `pages` adjacent pages as spare pages linked through `next`; fewer if there are no more, no free run is as long but
/// there are shorter ones, or a shorter one has memory. Returns the first, their number, and of how many the OS has yet to provide the memory.
pub(crate) fn alloc_spares(pages: usize) -> Option<(&'static PageHeader, usize, usize)> {
    let mut space = SPACE.lock();
    let pages = space.short_dirty(pages).unwrap_or_else(|| pages.min(space.longest().unwrap_or(pages)));
    let ((first, dirty), pages) = match space.take(pages, 1) {
        Some(taken) => (taken, pages),
        None => (space.take(1, 1)?, 1),
    };
    let mut next = ptr::null();
    for index in (first..first + pages).rev() {
        let header = space.spare(index, false);
        header.next.set(next);
        next = header;
    }
    Some((space.header(first), pages, pages - dirty))
}

/// Returns the run that begins at `header`, of which any part may have been written to.
pub(crate) fn free_run(header: &PageHeader) {
    let mut space = SPACE.lock();
    let first = space.index(header);
    let len = header.run_len.load(Ordering::Relaxed) as usize;
    space.put(first, len, true);
    drop(space);
    limit_dirty();
}

/// Returns a list of spare pages linked through `next`. If they are `cold`, nobody having needed them for some time, the next
/// [`decay`] counts them among those that may be purged. Those that were used little wait apart ([`light`]).
pub(crate) fn free_spares(mut list: *const PageHeader, cold: bool) {
    let mut space = SPACE.lock();
    // SAFETY: the list consists of headers of the table that the caller owned.
    while let Some(header) = unsafe { list.as_ref() } {
        list = header.next.get();
        if space.light.keep(header) {
            continue;
        }
        let index = space.index(header);
        space.put(index, 1, true);
        space.dirty_low += usize::from(cold);
    }
    drop(space);
    limit_dirty();
}

/// Returns a run to which pages were moved by [`move_pages`], and makes its mapping ordinary again.
pub(crate) fn free_moved_run(header: &PageHeader) {
    let len = header.run_len.load(Ordering::Relaxed) as usize;
    let renewed = os::renew(start_of(header), len << PAGE_SHIFT);
    let mut space = SPACE.lock();
    let first = space.index(header);
    space.put(first, len, !renewed);
}

/// Changes the length of a run in place. Growing takes the pages behind it, if they are free.
pub(crate) fn resize_run(header: &PageHeader, pages: usize) -> bool {
    let mut space = SPACE.lock();
    let first = space.index(header);
    let len = header.run_len.load(Ordering::Relaxed) as usize;
    if pages < len {
        space.tag(first, pages, header.kind());
        space.put(first + pages, len - pages, true);
        drop(space);
        limit_dirty();
        return true;
    }
    let (next, more) = (first + len, pages - len);
    if more == 0 {
        return true;
    }
    if next == space.frontier {
        if !space.advance(more) {
            return false;
        }
        space.regret(more);
    } else {
        let behind = space.header(next);
        let free = behind.run_len.load(Ordering::Relaxed) as usize;
        if behind.kind() != Kind::Free || free < more {
            return false;
        }
        space.cut(next, free, next, more);
        let dirty = space.clean(next, more);
        space.regret(more - dirty);
    }
    space.tag(first, pages, header.kind());
    true
}

/// Whether [`move_pages`] may be tried.
pub(crate) fn can_move() -> bool {
    cfg!(all(target_os = "linux", not(miri))) && MOVING.load(Ordering::Relaxed)
}

/// Cleared when the OS has refused to move pages once.
static MOVING: AtomicBool = AtomicBool::new(true);

/// Moves the OS pages of `bytes` bytes to another run without copying. What remains at `from` reads as zeros.
///
/// Returns false where the OS does not do it. Then `from` is as it was, and the other run is lost: an older kernel may have
/// unmapped it before it failed, so nobody may use it again.
///
/// # Safety
///
/// Both runs must belong to the caller, be at least `bytes` long, and `bytes` must be a multiple of the OS page size.
pub(crate) unsafe fn move_pages(from: *mut u8, to: &PageHeader, bytes: usize) -> bool {
    // SAFETY: passed on.
    if unsafe { os::move_pages(from, start_of(to), bytes) } {
        return true;
    }
    MOVING.store(false, Ordering::Relaxed);
    os::fill_hole(start_of(to), bytes);
    to.set_kind(Kind::Meta);
    false
}

/// Carves a record of `size` bytes aligned to 128 B that lives for ever. Not zeroed. Null when there is no memory.
pub(crate) fn alloc_record(size: usize) -> *mut u8 {
    let size = size.next_multiple_of(128);
    let mut space = SPACE.lock();
    if space.meta.1 < size {
        let Some((first, _)) = space.take(1, 1) else { return ptr::null_mut() };
        space.tag(first, 1, Kind::Meta);
        let header = space.header(first);
        header.owner.store(NO_OWNER, Ordering::Relaxed);
        space.meta = (start_of(header), PAGE_SIZE);
    }
    let (record, left) = space.meta;
    // SAFETY: `size <= left` bytes remain behind `record` in its page.
    space.meta = (unsafe { record.add(size) }, left - size);
    record
}

/// Takes the lock of this module, before a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget(SPACE.lock());
}

/// # Safety
///
/// [`lock_for_fork`] must have been called before the fork.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on.
    unsafe { SPACE.force_unlock() };
}

/// Bytes reserved, and bytes committed with the table's.
pub(crate) fn extent() -> (usize, usize) {
    let space = SPACE.lock();
    let data = space.committed.saturating_sub(space.table()) << PAGE_SHIFT;
    (space.pages << PAGE_SHIFT, data + space.table_committed)
}

/// Calls `visit` with the first header of every run, free or not, and its number of pages.
///
/// No run changes hands with the space meanwhile, but owners go on using theirs.
pub(crate) fn visit_runs(mut visit: impl FnMut(&'static PageHeader, usize)) {
    let space = SPACE.lock();
    let mut index = space.table();
    while index < space.frontier {
        let header = space.header(index);
        let len = (header.run_len.load(Ordering::Relaxed) as usize).max(1);
        visit(header, len);
        index += len;
    }
}

impl Space {
    fn header(&self, index: usize) -> &'static PageHeader {
        debug_assert!(index < self.frontier);
        // SAFETY: the table is committed up to the frontier.
        unsafe { header_at(ROOT.base.load(Ordering::Relaxed), index) }
    }

    /// Pages that the table and the bits behind it take.
    fn table(&self) -> usize {
        (self.pages * size_of::<PageHeader>() + Dirty::bytes(self.pages)).div_ceil(PAGE_SIZE)
    }

    fn index(&self, header: &PageHeader) -> usize {
        (header.address() - ROOT.base.load(Ordering::Relaxed).addr()) / size_of::<PageHeader>()
    }

    /// Marks both ends of a run.
    fn tag(&self, first: usize, len: usize, kind: Kind) {
        for index in [first, first + len - 1] {
            let header = self.header(index);
            header.set_kind(kind);
            header.run_len.store(len as u32, Ordering::Relaxed);
        }
    }

    /// Makes a page that was taken a spare one.
    fn spare(&self, index: usize, light: bool) -> &'static PageHeader {
        self.tag(index, 1, Kind::Spare);
        let header = self.header(index);
        header.owner.store(NO_OWNER, Ordering::Relaxed);
        header.light.set(light);
        header
    }

    /// Takes `pages` pages, first from free runs, then from the frontier, in the end with the help of those that wait apart. Returns the
    /// first and how many were dirty.
    fn take(&mut self, pages: usize, align: usize) -> Option<(usize, usize)> {
        let taken = self.take_at_once(pages, align);
        if taken.is_some() || self.light.count() == 0 {
            return taken;
        }
        self.release_light(0);
        self.take_at_once(pages, align)
    }

    fn take_at_once(&mut self, pages: usize, align: usize) -> Option<(usize, usize)> {
        if pages == 0 || pages > self.pages {
            return None;
        }
        // With this many pages there is an aligned start in any run.
        let wanted = pages.checked_add(align - 1)?;
        if let Some((first, len)) = if wanted <= self.pages { self.find(wanted) } else { None } {
            let start = if align == 1 && self.is_better_at_end(first, len, pages) {
                first + len - pages
            } else {
                self.align_index(first, align)
            };
            self.cut(first, len, start, pages);
            let dirty = self.clean(start, pages);
            self.regret(pages - dirty);
            return Some((start, dirty));
        }
        let first = self.frontier;
        let start = self.align_index(first, align);
        if start >= self.pages || !self.advance(start - first + pages) {
            return None;
        }
        if start > first {
            self.put(first, start - first, false);
        }
        self.regret(pages);
        Some((start, 0))
    }

    /// Whether `pages` pages are better taken from the end of a free run, because there is memory there and none at its beginning.
    fn is_better_at_end(&self, first: usize, len: usize, pages: usize) -> bool {
        pages < GROWS && !self.dirty.is_set(first) && self.dirty.is_set(first + len - 1)
    }

    /// Learns from the need for `pages` pages without memory whether it was given back too soon.
    fn regret(&mut self, pages: usize) {
        let pages = pages.min(self.purged_at_once);
        self.purged_at_once -= pages;
        self.regretted += pages;
    }

    /// The first index from `index` on whose address is a multiple of `align` pages.
    fn align_index(&self, index: usize, align: usize) -> usize {
        let base = ROOT.base.load(Ordering::Relaxed).addr() >> PAGE_SHIFT;
        (base + index).checked_next_multiple_of(align).map_or(usize::MAX, |aligned| aligned - base)
    }

    /// Moves the frontier over `pages` more pages, committing them and their headers.
    fn advance(&mut self, pages: usize) -> bool {
        let Some(end) = self.frontier.checked_add(pages).filter(|&end| end <= self.pages) else {
            return false;
        };
        let base = ROOT.base.load(Ordering::Relaxed);
        let table = end * size_of::<PageHeader>();
        if table > self.table_committed {
            let upto = table.next_multiple_of(PAGE_SIZE);
            // SAFETY: inside the part of the reservation that is set aside for the table.
            if !os::commit(unsafe { base.add(self.table_committed) }, upto - self.table_committed) {
                return false;
            }
            self.table_committed = upto;
        }
        if end > self.committed {
            let step = ((self.committed - self.table()) / 8).clamp(COMMIT_STEP, COMMIT_STEP_MAX);
            let generous = end.max(self.committed + step).min(self.pages);
            // SAFETY: inside the reservation, behind what is committed.
            let from = unsafe { base.add(self.committed << PAGE_SHIFT) };
            if os::commit(from, (generous - self.committed) << PAGE_SHIFT) {
                self.committed = generous;
            } else if os::commit(from, (end - self.committed) << PAGE_SHIFT) {
                self.committed = end;
            } else {
                return false;
            }
        }
        self.frontier = end;
        FRONTIER.store(end - self.table(), Ordering::Relaxed);
        true
    }

    /// Forgets that pages were dirty, because they are given out. Returns how many were.
    fn clean(&mut self, first: usize, pages: usize) -> usize {
        let dirty = self.dirty.clear(first..first + pages);
        self.dirty_low = self.dirty_low.min(self.dirty.count());
        dirty
    }
}

/// Resident set of the process in bytes as the OS counts it, or 0 where it is not known.
pub(crate) fn resident_bytes() -> usize {
    os::resident_bytes()
}
