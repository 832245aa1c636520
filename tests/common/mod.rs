//! What the tests share: random numbers, contents that give a block away, and a shadow of the live blocks.
//!
//! Nothing here allocates while it is used, so that a test decides alone what the allocator sees.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shockwave_alloc::{Mode, set_mode, with_request_arena};

/// Runs one test of the binary at a time, in [`Mode::Arena`]: the mode and the statistics are the process's.
pub fn alone() -> Alone {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    set_mode(Mode::Arena);
    Alone { _guard: guard }
}

/// Made by [`alone`].
pub struct Alone {
    _guard: MutexGuard<'static, ()>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        set_mode(Mode::Arena);
    }
}

/// Opens and closes arenas, which writes over what closed ones held.
pub fn churn() {
    for _ in 0..20 {
        with_request_arena(|| {
            let blocks: Vec<Vec<u8>> = (1..400).map(|size| vec![0xEE; size]).collect();
            black_box((&blocks, vec![0xEEu8; 10_000]));
        });
    }
}

/// What the kernel says in `field` of the mapping around `address`; `None` if it says nothing.
pub fn of_mapping(address: usize, field: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux");
    let hex = |digits: &str| usize::from_str_radix(digits, 16).ok();
    let mut inside = false;
    for line in maps.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        if let Some((start, end)) = range.and_then(|(start, end)| Some((hex(start)?, hex(end)?))) {
            inside = (start..end).contains(&address);
        } else if inside && let Some(value) = line.strip_prefix(field) {
            return Some(value.trim_start_matches(':').trim().to_owned());
        }
    }
    None
}

/// The layout of `size` bytes aligned to `align`.
pub fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

/// Random numbers that a seed repeats (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A size from all ranges: mostly slab and arena, some mid-size, a few large.
    pub fn size(&mut self) -> usize {
        let most = match self.below(40) {
            0 => 3 << 20,
            1..=3 => 1 << 20,
            4..=7 => 40 << 10,
            8..=15 => 5 << 10,
            _ => 256,
        };
        1 + self.below(most)
    }

    /// An alignment, mostly a small one.
    pub fn align(&mut self) -> usize {
        if self.below(16) == 0 { 1 << self.below(18) } else { 1 << self.below(5) }
    }
}

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Prime, so that contents shifted by any power of two differ.
const PERIOD: usize = 65_521;

/// Contents are a window of this, repeated.
static TABLE: [u8; PERIOD] = {
    let mut table = [0; PERIOD];
    let mut index = 0;
    while index < PERIOD {
        table[index] = (mix(index as u64) | 1) as u8;
        index += 1;
    }
    table
};

/// What the `len` bytes from byte `at` of contents `seed` are, as slices.
fn pieces(seed: u64, len: usize) -> impl Iterator<Item = (usize, &'static [u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let from = ((seed % PERIOD as u64) as usize + at) % PERIOD;
        let piece = &TABLE[from..PERIOD.min(from + len - at)];
        let start = at;
        at += piece.len();
        (!piece.is_empty()).then_some((start, piece))
    })
}

/// Writes the contents that belong to `seed`; none of the bytes is zero.
///
/// # Safety
///
/// `len` bytes from `ptr` on must be writable.
pub unsafe fn fill(ptr: *mut u8, len: usize, seed: u64) {
    for (at, piece) in pieces(seed, len) {
        // SAFETY: `at + piece.len()` is at most `len`.
        unsafe { ptr.add(at).copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
    }
}

/// Whether the contents are those of `seed`.
///
/// # Safety
///
/// `len` bytes from `ptr` on must be readable.
pub unsafe fn holds(ptr: *const u8, len: usize, seed: u64) -> bool {
    // SAFETY: `at + piece.len()` is at most `len`.
    pieces(seed, len)
        .all(|(at, piece)| unsafe { std::slice::from_raw_parts(ptr.add(at), piece.len()) } == piece)
}

/// Whether all bytes are zero.
///
/// # Safety
///
/// `len` bytes from `ptr` on must be readable.
pub unsafe fn is_zero(ptr: *const u8, len: usize) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    (0..len).step_by(ZEROS.len()).all(|at| {
        let piece = ZEROS.len().min(len - at);
        // SAFETY: `at + piece` is at most `len`.
        unsafe { std::slice::from_raw_parts(ptr.add(at), piece) == &ZEROS[..piece] }
    })
}

/// A live block and what it contains.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub ptr: *mut u8,
    pub layout: Layout,
    seed: u64,
}

// SAFETY: a block is memory that belongs to whoever has the record of it.
unsafe impl Send for Block {}

impl Block {
    /// The address.
    pub fn addr(&self) -> usize {
        self.ptr.addr()
    }

    fn end(&self) -> usize {
        self.addr() + self.layout.size()
    }

    /// The 64 KiB page it begins in.
    pub fn page(&self) -> usize {
        self.addr() >> 16
    }

    /// Whether the two have bytes in common.
    pub fn overlaps(&self, other: &Block) -> bool {
        self.addr() < other.end() && other.addr() < self.end()
    }

    /// Panics if the contents are not what was written last.
    pub fn check(&self) {
        // SAFETY: the block is live.
        let intact = unsafe { holds(self.ptr, self.layout.size(), self.seed) };
        assert!(intact, "the contents of {self:?} have changed");
    }
}

/// The live blocks of an allocator, by address: nothing may overlap, contents must stay.
pub struct Live<A: 'static> {
    allocator: &'static A,
    /// Sorted by address; never grows.
    blocks: Vec<Block>,
    count: u64,
}

impl<A: GlobalAlloc> Live<A> {
    /// Room for `capacity` blocks, allocated where the caller stands.
    pub fn new(allocator: &'static A, capacity: usize) -> Live<A> {
        Live { allocator, blocks: Vec::with_capacity(capacity), count: 0 }
    }

    /// The live blocks.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Whether `more` blocks fit.
    pub fn has_room(&self, more: usize) -> bool {
        self.blocks.len() + more <= self.blocks.capacity()
    }

    /// Allocates, checks and fills a block.
    pub fn alloc(&mut self, size: usize, align: usize) -> Block {
        let layout = layout(size, align);
        // SAFETY: the size is not zero: of no bytes there is no block to ask for.
        let ptr = unsafe { self.allocator.alloc(layout) };
        self.insert(ptr, layout)
    }

    /// The same with zeroed memory.
    pub fn alloc_zeroed(&mut self, size: usize, align: usize) -> Block {
        let layout = layout(size, align);
        // SAFETY: as in `alloc`.
        let ptr = unsafe { self.allocator.alloc_zeroed(layout) };
        assert!(!ptr.is_null(), "no memory for {layout:?}");
        // SAFETY: the block was allocated with this layout.
        assert!(unsafe { is_zero(ptr, size) }, "{layout:?} at {ptr:?} is not zeroed");
        self.insert(ptr, layout)
    }

    /// Checks a block, changes its size, checks what was kept of it, fills it anew.
    pub fn realloc(&mut self, block: Block, new_size: usize) -> Block {
        let block = self.take(block);
        // SAFETY: the block is live and has this layout.
        let ptr = unsafe { self.allocator.realloc(block.ptr, block.layout, new_size) };
        assert!(!ptr.is_null(), "no memory for {block:?} to get {new_size} B");
        let kept = block.layout.size().min(new_size);
        // SAFETY: the block has `new_size` bytes.
        let intact = unsafe { holds(ptr, kept, block.seed) };
        assert!(intact, "{block:?} lost contents on its way to {new_size} B at {ptr:?}");
        self.insert(ptr, layout(new_size, block.layout.align()))
    }

    /// Checks, overwrites and frees a block.
    pub fn free(&mut self, block: Block) {
        let layout = block.layout;
        self.free_as(block, layout);
    }

    /// The same with a layout that may be wrong.
    pub fn free_as(&mut self, block: Block, claimed: Layout) {
        let block = self.take(block);
        // SAFETY: the block is live; nobody uses it after this. What wrong layouts do is for tests to see.
        unsafe {
            block.ptr.write_bytes(0xDD, block.layout.size());
            self.allocator.dealloc(block.ptr, claimed);
        }
    }

    /// Checks a block and takes it out, alive.
    pub fn take(&mut self, block: Block) -> Block {
        let index = self.blocks.binary_search_by_key(&block.addr(), Block::addr).expect("a live block");
        let block = self.blocks.remove(index);
        block.check();
        block
    }

    /// Takes a block over that another set, perhaps of another thread, has given up.
    pub fn adopt(&mut self, block: Block) {
        block.check();
        self.place(block);
    }

    /// Checks all blocks.
    pub fn check(&self) {
        self.blocks.iter().for_each(Block::check);
    }

    /// Checks and frees all blocks, those at high addresses first if `backwards`.
    pub fn free_all(&mut self, backwards: bool) {
        while let Some(&block) = if backwards { self.blocks.last() } else { self.blocks.first() } {
            self.free(block);
        }
    }

    fn insert(&mut self, ptr: *mut u8, layout: Layout) -> Block {
        assert!(!ptr.is_null(), "no memory for {layout:?}");
        assert_eq!(ptr.addr() % layout.align(), 0, "{ptr:?} is not aligned for {layout:?}");
        self.count += 1;
        let seed = mix(ptr.addr() as u64) ^ mix(layout.size() as u64) ^ mix(self.count);
        let block = Block { ptr, layout, seed };
        self.place(block);
        // SAFETY: the block was allocated with this layout.
        unsafe { fill(ptr, layout.size(), seed) };
        block
    }

    fn place(&mut self, block: Block) {
        assert!(self.has_room(1), "the shadow is too small");
        let index = self.blocks.partition_point(|other| other.addr() < block.addr());
        if let Some(next) = self.blocks.get(index) {
            assert!(block.end() <= next.addr(), "{block:?} overlaps {next:?}");
        }
        if let Some(previous) = index.checked_sub(1).map(|index| self.blocks[index]) {
            assert!(previous.end() <= block.addr(), "{block:?} overlaps {previous:?}");
        }
        self.blocks.insert(index, block);
    }
}
