//! Handles that are bound to an arena: values that the program places itself and that are freed with the arena.
//!
//! A [`RequestArena`] has a region for them beside the chunks of its scopes: a stack of blocks from the global allocator,
//! bumped through upwards.
//!
//! ```text
//!   head -> | block header | values            | free |   -> | block header | values | -> ...
//!           ^ start                             ^ used ^ size          older, or for one big value: not bumped again
//! ```
//!
//! The region belongs to the arena's handle and is only touched through it. Invariant: bytes below `used` of each block may
//! be borrowed for as long as the arena, or the checkpoint above which they were allocated, is; `used` goes back only through
//! `&mut`, which is why no such borrow exists then.

use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::num::NonZero;
use core::ptr::{self, NonNull};
use std::alloc::{alloc, dealloc, handle_alloc_error};

use crate::arena::RequestArena;
use crate::scope::ArenaGuard;
use crate::thread;

/// Bytes of the first block, header included. Each further one is twice as big as the one before.
const FIRST: usize = 1 << 10;
/// Bytes of the biggest block, unless one value needs more.
const LARGEST: usize = 16 << 10;
/// A value of more bytes gets a block of its own if there is a block already, so that the room in that is not lost.
const OWN_BLOCK: usize = LARGEST / 4;
/// Blocks are aligned to this.
const ALIGN: usize = align_of::<Block>();

/// First bytes of a block.
struct Block {
    /// The block before this one: an older one, or one that a big value has got while this was the newest.
    older: Cell<Option<NonNull<Block>>>,
    /// Bytes of the block, this header included.
    size: usize,
    /// Bytes in use from the start, this header included; at most `size`.
    used: Cell<usize>,
}

/// The stack of blocks of one arena. Belongs to the arena's handle.
pub(crate) struct Region {
    head: Cell<Option<NonNull<Block>>>,
    /// Whether what is freed is overwritten with zeros.
    wiping: bool,
}

/// Where a region stands. `None` before the first block.
type Position = Option<Place>;

/// The newest block, its bytes in use, and the block before it.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    head: NonNull<Block>,
    used: usize,
    older: Option<NonNull<Block>>,
}

impl Region {
    pub(crate) const fn new(wiping: bool) -> Region {
        Region { head: Cell::new(None), wiping }
    }

    /// Memory for `layout`, valid until the region is reset below it.
    fn alloc(&self, layout: Layout) -> NonNull<u8> {
        if layout.size() == 0 {
            return NonNull::without_provenance(
                NonZero::new(layout.align()).unwrap_or(NonZero::<usize>::MIN),
            );
        }
        if let Some(head) = self.head.get() {
            if let Some(memory) = bump(head, layout) {
                return memory;
            }
            if layout.size() > OWN_BLOCK {
                // SAFETY: blocks on the stack are initialised and live.
                let older = unsafe { &head.as_ref().older };
                let own = add_block(layout, older.get(), 0);
                older.set(Some(own));
                return first_in(own, layout);
            }
        }
        // SAFETY: blocks on the stack are initialised and live.
        let last = self.head.get().map_or(FIRST / 2, |head| unsafe { head.as_ref() }.size);
        let block = add_block(layout, self.head.get(), last.saturating_mul(2).min(LARGEST));
        self.head.set(Some(block));
        first_in(block, layout)
    }

    fn position(&self) -> Position {
        self.head.get().map(|head| {
            // SAFETY: blocks on the stack are initialised and live.
            let block = unsafe { head.as_ref() };
            Place { head, used: block.used.get(), older: block.older.get() }
        })
    }

    /// Goes back to a position at which the region was before.
    ///
    /// # Safety
    ///
    /// Nothing that was allocated since may be used any more, and the region must not have been below that position since.
    unsafe fn reset_to(&self, position: Position) {
        // SAFETY: passed on: nothing in these blocks is used any more, and the block of the position is on the stack still.
        unsafe {
            self.head.set(self.free_down_to(self.head.get(), position.map(|place| place.head)));
            if let Some(place) = position {
                let block = place.head.as_ref();
                block.older.set(self.free_down_to(block.older.get(), place.older));
                self.wipe(place.head, place.used);
                block.used.set(place.used);
            }
        }
    }

    /// Frees the blocks of a stack above `last`, and returns that.
    ///
    /// # Safety
    ///
    /// `last` must be on the stack, unless it is `None`, and nothing in the blocks above may be used any more.
    unsafe fn free_down_to(
        &self,
        mut stack: Option<NonNull<Block>>,
        last: Option<NonNull<Block>>,
    ) -> Option<NonNull<Block>> {
        while let Some(block) = stack.filter(|_| stack != last) {
            // SAFETY: passed on.
            unsafe {
                self.wipe(block, size_of::<Block>());
                stack = free(block);
            }
        }
        stack
    }

    /// Overwrites a block from `from` to what is in use, if the region is to be wiped.
    ///
    /// # Safety
    ///
    /// Nothing in that range may be used any more.
    unsafe fn wipe(&self, block: NonNull<Block>, from: usize) {
        if !self.wiping {
            return;
        }
        // SAFETY: blocks on the stack are initialised and live.
        let used = unsafe { block.as_ref() }.used.get();
        for offset in from..used {
            // SAFETY: inside the block. Volatile, because the compiler may leave out writes to memory that is freed next.
            unsafe { block.cast::<u8>().add(offset).write_volatile(0) };
        }
    }

    /// Frees all blocks but the newest, and starts over in that.
    pub(crate) fn reset(&mut self) {
        let Some(head) = self.head.get() else { return };
        // SAFETY: `&mut` says that nothing in the region is borrowed. A first block may be as big as its first value was.
        unsafe {
            let kept = head.as_ref().size <= LARGEST;
            let place = Place { head, used: size_of::<Block>(), older: None };
            self.reset_to(kept.then_some(place));
        }
    }
}

/// Gives back the place of a slice when what should fill it panics. Values written so far are not dropped, like all values here.
struct Unfilled<'region> {
    region: &'region Region,
    before: Position,
    after: Position,
}

impl Drop for Unfilled<'_> {
    fn drop(&mut self) {
        // What was made meanwhile lies above the slice and may be in use: then its place stays until the region is reset.
        if self.region.position() == self.after {
            // SAFETY: nothing has been allocated since the slice was, which nobody has seen.
            unsafe { self.region.reset_to(self.before) }
        }
    }
}

/// A new block in front of `older` that has room for `layout`, and at least `size` bytes.
#[cold]
fn add_block(layout: Layout, older: Option<NonNull<Block>>, size: usize) -> NonNull<Block> {
    let needed =
        (layout.size().checked_add(layout.align())).and_then(|sum| sum.checked_add(size_of::<Block>()));
    let block = needed
        .and_then(|needed| Layout::from_size_align(needed.max(size), ALIGN).ok())
        .unwrap_or_else(|| panic!("a value of {} bytes is too big for any memory", layout.size()));
    // Outside of any scope: what is allocated here lives as long as the arena's handle. Unlike a scope of its own this works
    // below any number of scopes.
    let thread = thread::current();
    let suspended = thread.suspend();
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc(block) }.cast::<Block>();
    thread.leave(suspended);
    let Some(memory) = NonNull::new(memory) else { handle_alloc_error(block) };
    let header = Block { older: Cell::new(older), size: block.size(), used: Cell::new(size_of::<Block>()) };
    // SAFETY: the memory is new, big and aligned enough.
    unsafe { memory.write(header) };
    memory
}

/// The first value of a block that was made for it.
fn first_in(block: NonNull<Block>, layout: Layout) -> NonNull<u8> {
    bump(block, layout).unwrap_or_else(|| unreachable!("a new block has room for the value it was made for"))
}

impl Drop for Region {
    #[inline]
    fn drop(&mut self) {
        if self.head.get().is_some() {
            // SAFETY: the region ends, so nothing in it is borrowed.
            unsafe { self.reset_to(None) }
        }
    }
}

/// Takes memory from a block, if it has room.
#[inline]
fn bump(block: NonNull<Block>, layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: blocks on the stack are initialised and live.
    let header = unsafe { block.as_ref() };
    let base = block.addr().get();
    let start = base.checked_add(header.used.get())?.checked_next_multiple_of(layout.align())? - base;
    let end = start.checked_add(layout.size()).filter(|&end| end <= header.size)?;
    header.used.set(end);
    // SAFETY: `start` is inside the block.
    Some(unsafe { block.cast::<u8>().add(start) })
}

/// Frees a block and returns the one before it.
///
/// # Safety
///
/// The block must be one of [`Region::add_block`]'s, and nothing in it may be used any more.
unsafe fn free(block: NonNull<Block>) -> Option<NonNull<Block>> {
    // SAFETY: by contract the block is initialised and this is the layout it was allocated with.
    unsafe {
        let Block { older, size, .. } = block.read();
        let older = older.get();
        dealloc(block.as_ptr().cast(), Layout::from_size_align_unchecked(size, ALIGN));
        older
    }
}

/// What [`RequestArena`] and [`ArenaScope`] offer alike. The lifetime is the caller's to choose, so these are not public.
impl Region {
    /// # Safety
    ///
    /// `'a` must end before the region is reset below this value.
    unsafe fn place<'a, T>(&self, make: impl FnOnce() -> T) -> &'a mut T {
        // The value first: it may allocate here, too.
        let value = make();
        let place = self.alloc(Layout::new::<T>()).cast::<T>();
        // SAFETY: the memory is new and has the value's layout; the lifetime is passed on.
        unsafe {
            place.write(value);
            &mut *place.as_ptr()
        }
    }

    /// # Safety
    ///
    /// As [`place`](Self::place).
    unsafe fn place_copy<'a, T: Copy>(&self, values: &[T]) -> &'a mut [T] {
        let place = self.alloc(Layout::for_value(values)).cast::<T>();
        // SAFETY: the memory is new, has room for all values, and overlaps none of them.
        unsafe {
            ptr::copy_nonoverlapping(values.as_ptr(), place.as_ptr(), values.len());
            &mut *ptr::slice_from_raw_parts_mut(place.as_ptr(), values.len())
        }
    }

    /// # Safety
    ///
    /// As [`place`](Self::place).
    unsafe fn place_filled<'a, T>(&self, len: usize, mut fill: impl FnMut(usize) -> T) -> &'a mut [T] {
        let Ok(layout) = Layout::array::<T>(len) else {
            panic!("a slice of {len} values is too big for any memory")
        };
        let before = self.position();
        let place = self.alloc(layout).cast::<T>();
        let unfilled = Unfilled { region: self, before, after: self.position() };
        for index in 0..len {
            // SAFETY: the memory is new and has room for `len` values.
            unsafe { place.add(index).write(fill(index)) };
        }
        core::mem::forget(unfilled);
        // SAFETY: all `len` values are written.
        unsafe { &mut *ptr::slice_from_raw_parts_mut(place.as_ptr(), len) }
    }

    /// # Safety
    ///
    /// As [`place`](Self::place).
    unsafe fn place_str<'a>(&self, text: &str) -> &'a mut str {
        // SAFETY: passed on; the bytes are those of a `str`.
        unsafe { core::str::from_utf8_unchecked_mut(self.place_copy(text.as_bytes())) }
    }
}

/// Values that are bound to the arena: freed when it is reset or dropped, all at once and without a call of their
/// `Drop`. They can be made while this arena is entered, another one, or none, in every mode.
impl RequestArena {
    /// Places a value in the arena.
    ///
    /// Its `Drop` is never called: what it owns outside of the arena leaks.
    ///
    /// ```
    /// use shockwave_alloc::RequestArena;
    ///
    /// let mut arena = RequestArena::new();
    /// let point = arena.alloc((1, 2));
    /// point.0 = 3;
    /// assert_eq!(*point, (3, 2));
    /// arena.reset();
    /// ```
    ///
    /// A handle cannot outlive a reset:
    ///
    /// ```compile_fail,E0502
    /// let mut arena = shockwave_alloc::RequestArena::new();
    /// let number = arena.alloc(1);
    /// arena.reset();
    /// *number = 2;
    /// ```
    ///
    /// # Panics
    ///
    /// Aborts, as any allocation, if there is no memory.
    // Each call hands out memory that no other handle has.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc<T>(&self, value: T) -> &mut T {
        self.alloc_with(|| value)
    }

    /// Places what `make` returns in the arena.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_with<T>(&self, make: impl FnOnce() -> T) -> &mut T {
        // SAFETY: the region is reset through `&mut self` or a checkpoint that borrows it, so not while the handle lives.
        unsafe { self.region().place(make) }
    }

    /// Copies a string into the arena.
    ///
    /// ```
    /// let arena = shockwave_alloc::RequestArena::new();
    /// let name = arena.alloc_str("shockwave");
    /// name.make_ascii_uppercase();
    /// assert_eq!(name, "SHOCKWAVE");
    /// ```
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_str(&self, text: &str) -> &mut str {
        // SAFETY: as in `alloc_with`.
        unsafe { self.region().place_str(text) }
    }

    /// Copies a slice into the arena.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_slice_copy<T: Copy>(&self, values: &[T]) -> &mut [T] {
        // SAFETY: as in `alloc_with`.
        unsafe { self.region().place_copy(values) }
    }

    /// Makes a slice of `len` values, each what `fill` returns for its index.
    ///
    /// ```
    /// let arena = shockwave_alloc::RequestArena::new();
    /// assert_eq!(arena.alloc_slice_fill_with(4, |index| index * index), [0, 1, 4, 9]);
    /// ```
    ///
    /// # Panics
    ///
    /// If the slice would have more than `isize::MAX` bytes, and when `fill` does; values made so far are then not dropped.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_slice_fill_with<T>(&self, len: usize, fill: impl FnMut(usize) -> T) -> &mut [T] {
        // SAFETY: as in `alloc_with`.
        unsafe { self.region().place_filled(len, fill) }
    }

    /// A scope for handles in which [checkpoints](ArenaScope::checkpoint) can be set.
    pub fn scope(&mut self) -> ArenaScope<'_> {
        ArenaScope { arena: self }
    }

    /// Notes how far the arena is filled with handles; short for [`scope`](Self::scope) and [`ArenaScope::checkpoint`].
    pub fn checkpoint(&mut self) -> Checkpoint<'_> {
        Checkpoint::new(self)
    }
}

/// A part of an arena's life in which handles are made, between which checkpoints can be set. Made by
/// [`RequestArena::scope`] and [`Checkpoint::scope`].
///
/// Handles live for `'a`: those made before a checkpoint are usable while it is set and after it was gone back to.
///
/// ```
/// use shockwave_alloc::RequestArena;
///
/// let mut arena = RequestArena::new();
/// let mut scope = arena.scope();
/// let total = scope.alloc(0);
/// let mut checkpoint = scope.checkpoint();
/// for line in ["one", "two", "three"] {
///     {
///         let scratch = checkpoint.scope();
///         *total += scratch.alloc_str(line).len();
///     }
///     checkpoint.reset_to();                  // the scratch memory is used again for the next line
/// }
/// drop(checkpoint);
/// assert_eq!(*total, 11);
/// ```
pub struct ArenaScope<'a> {
    arena: &'a RequestArena,
}

impl<'a> ArenaScope<'a> {
    /// [`RequestArena::alloc`] with the lifetime of the scope.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc<T>(&self, value: T) -> &'a mut T {
        self.alloc_with(|| value)
    }

    /// [`RequestArena::alloc_with`] with the lifetime of the scope.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_with<T>(&self, make: impl FnOnce() -> T) -> &'a mut T {
        // SAFETY: for `'a` the arena, or the checkpoint that this scope is of, is borrowed mutably by this scope alone, so it is
        // not reset. A checkpoint of this scope goes back no further than what was there when it was set.
        unsafe { self.arena.region().place(make) }
    }

    /// [`RequestArena::alloc_str`] with the lifetime of the scope.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_str(&self, text: &str) -> &'a mut str {
        // SAFETY: as in `alloc_with`.
        unsafe { self.arena.region().place_str(text) }
    }

    /// [`RequestArena::alloc_slice_copy`] with the lifetime of the scope.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_slice_copy<T: Copy>(&self, values: &[T]) -> &'a mut [T] {
        // SAFETY: as in `alloc_with`.
        unsafe { self.arena.region().place_copy(values) }
    }

    /// [`RequestArena::alloc_slice_fill_with`] with the lifetime of the scope.
    ///
    /// # Panics
    ///
    /// As there.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_slice_fill_with<T>(&self, len: usize, fill: impl FnMut(usize) -> T) -> &'a mut [T] {
        // SAFETY: as in `alloc_with`.
        unsafe { self.arena.region().place_filled(len, fill) }
    }

    /// [`RequestArena::enter`]: directs this thread's allocations into the arena.
    pub fn enter(&self) -> ArenaGuard<'a> {
        self.arena.enter()
    }

    /// [`RequestArena::run`]: runs `f` with the arena entered.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        self.arena.run(f)
    }

    /// Notes how far the arena is filled with handles. While the checkpoint is set, handles are made in
    /// [its own scope](Checkpoint::scope).
    pub fn checkpoint(&mut self) -> Checkpoint<'_> {
        Checkpoint::new(self.arena)
    }
}

/// A position in an arena's memory for handles, to which [`reset_to`](Self::reset_to) and dropping go back. Made by
/// [`ArenaScope::checkpoint`] and [`RequestArena::checkpoint`].
///
/// It concerns handles alone: what code allocates while the arena is entered is freed as usual.
///
/// A handle that was made above a checkpoint cannot outlive going back to it:
///
/// ```compile_fail,E0499
/// let mut arena = shockwave_alloc::RequestArena::new();
/// let mut checkpoint = arena.checkpoint();
/// let number = checkpoint.scope().alloc(1);
/// checkpoint.reset_to();
/// *number = 2;
/// ```
#[must_use = "the memory above the checkpoint is freed when it is dropped"]
pub struct Checkpoint<'a> {
    arena: &'a RequestArena,
    position: Position,
    /// What is borrowed is borrowed mutably: nobody else makes handles in the arena meanwhile.
    unique: PhantomData<&'a mut RequestArena>,
}

static_assertions::assert_not_impl_any!(Checkpoint<'static>: Send, Sync);
static_assertions::assert_not_impl_any!(ArenaScope<'static>: Send, Sync);

impl<'a> Checkpoint<'a> {
    /// The caller has the arena borrowed mutably, itself or through a scope, for `'a`.
    fn new(arena: &'a RequestArena) -> Checkpoint<'a> {
        Checkpoint { arena, position: arena.region().position(), unique: PhantomData }
    }

    /// A scope for handles above the checkpoint.
    pub fn scope(&mut self) -> ArenaScope<'_> {
        ArenaScope { arena: self.arena }
    }

    /// Frees what was allocated above the checkpoint: blocks that were added since go back to the allocator.
    pub fn reset_to(&mut self) {
        // SAFETY: handles above the checkpoint borrow it, so none is left. Checkpoints below are borrowed by this one, so
        // nothing has gone back further.
        unsafe { self.arena.region().reset_to(self.position) }
    }
}

impl Drop for Checkpoint<'_> {
    fn drop(&mut self) {
        self.reset_to();
    }
}

impl fmt::Debug for ArenaScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArenaScope").field("arena", self.arena).finish()
    }
}

impl fmt::Debug for Checkpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("arena", self.arena).finish()
    }
}
