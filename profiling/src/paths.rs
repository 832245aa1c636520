//! The shortest ways through an allocator, one at a time, for a program that counts instructions.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::hint::black_box;

use crate::Scope;
use crate::bench::Scope as _;

/// Blocks that are made and freed beforehand, so that no way leads to a system call.
const WARM_UP: usize = 2 * MOST;

/// The most operations a run may have: their blocks, the longer ones too, fit into one chunk or page of 64 KiB.
pub const MOST: usize = 200;

/// Bytes of a block.
const BYTES: usize = 64;

/// Sizes of the blocks of a cycle, as requests have them.
const CYCLE: [usize; 20] =
    [24, 40, 96, 16, 256, 64, 8, 120, 512, 32, 48, 72, 16, 200, 80, 24, 320, 56, 104, 400];

/// The symbol within which instructions are counted.
pub const COUNTED_SYMBOL: &str = "shockwave_profiling_counted";

/// One way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// A block of 64 B is allocated.
    Alloc,
    /// A block of 64 B is freed, in the order of allocation.
    Dealloc,
    /// A block of 64 B is freed, against the order of allocation.
    DeallocLast,
    /// A block changes between 900 B and 920 B, which it can where it is.
    ReallocInPlace,
    /// A block of 64 B grows to 128 B and has to move.
    ReallocMove,
    /// A request that does nothing.
    Scope,
    /// A request that allocates and frees 20 blocks of 8 to 512 B.
    Cycle,
}

impl Path {
    /// Every way.
    pub const ALL: [Path; 7] = [
        Path::Alloc,
        Path::Dealloc,
        Path::DeallocLast,
        Path::ReallocInPlace,
        Path::ReallocMove,
        Path::Scope,
        Path::Cycle,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Path::Alloc => "alloc",
            Path::Dealloc => "dealloc",
            Path::DeallocLast => "dealloc-last",
            Path::ReallocInPlace => "realloc-in-place",
            Path::ReallocMove => "realloc-move",
            Path::Scope => "scope",
            Path::Cycle => "cycle",
        }
    }

    /// Goes this way `times` times, at most [`MOST`]. Only that is within [`COUNTED_SYMBOL`].
    pub fn run<S: Scope>(self, times: usize) {
        let times = times.min(MOST);
        let mut blocks: Vec<*mut u8> = Vec::with_capacity(WARM_UP);
        for layout in [layout(BYTES), layout(2 * BYTES), layout(BYTES)] {
            S::Requests::run(|| {
                make(&mut blocks, WARM_UP, layout);
                free(&mut blocks, layout);
            });
        }
        // What is done at the end of a period of time, the first one too, is not a part of a scope.
        (0..WARM_UP).for_each(|_| S::Requests::run(|| _ = black_box(0)));
        match self {
            Path::Scope => counted(&mut || (0..times).for_each(|_| S::Requests::run(|| _ = black_box(0)))),
            Path::Cycle => {
                cycle::<S>();
                counted(&mut || (0..times).for_each(|_| cycle::<S>()));
            }
            _ => S::Requests::run(|| self.run_inside(times, &mut blocks)),
        }
    }

    /// The ways within a request.
    fn run_inside(self, times: usize, blocks: &mut Vec<*mut u8>) {
        let small = layout(BYTES);
        match self {
            Path::Alloc => {
                counted(&mut || make(blocks, times, small));
                free(blocks, small);
            }
            Path::Dealloc => {
                make(blocks, times, small);
                counted(&mut || free(blocks, small));
            }
            Path::DeallocLast => {
                make(blocks, times, small);
                blocks.reverse();
                counted(&mut || free(blocks, small));
            }
            Path::ReallocInPlace => {
                let (short, long) = (layout(900), layout(920));
                make(blocks, 1, short);
                counted(&mut || {
                    for _ in 0..times / 2 {
                        grow(&mut blocks[0], short, long);
                        grow(&mut blocks[0], long, short);
                    }
                });
                free(blocks, short);
            }
            Path::ReallocMove => {
                make(blocks, times, small);
                let long = layout(2 * BYTES);
                counted(&mut || blocks.iter_mut().for_each(|block| grow(block, small, long)));
                free(blocks, long);
            }
            Path::Scope | Path::Cycle => {}
        }
    }
}

/// Everything within is counted. Not mangled, so that a profiler finds it.
#[inline(never)]
// SAFETY: no other symbol of the program has this name.
#[unsafe(no_mangle)]
extern "Rust" fn shockwave_profiling_counted(work: &mut dyn FnMut()) {
    work();
    // So that the call is not the last thing, which a compiler turns into a jump out of the symbol.
    black_box(());
}

fn counted(work: &mut dyn FnMut()) {
    shockwave_profiling_counted(work);
}

/// One request.
#[inline(never)]
fn cycle<S: Scope>() {
    S::Requests::run(|| {
        let blocks = CYCLE.map(|size| new(layout(size)));
        for (block, size) in black_box(blocks).into_iter().zip(CYCLE) {
            // SAFETY: `new` made it with this layout.
            unsafe { dealloc(block, layout(size)) };
        }
    });
}

#[inline]
fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("sizes are far below `isize::MAX`")
}

#[inline]
fn new(layout: Layout) -> *mut u8 {
    // SAFETY: no layout here has a size of zero.
    let block = unsafe { alloc(layout) };
    if block.is_null() {
        handle_alloc_error(layout);
    }
    black_box(block)
}

/// Makes `count` blocks; the list has room for them.
#[inline]
fn make(blocks: &mut Vec<*mut u8>, count: usize, layout: Layout) {
    for _ in 0..count {
        blocks.push(new(layout));
    }
}

/// Frees all blocks, which were made with `layout`.
#[inline]
fn free(blocks: &mut Vec<*mut u8>, layout: Layout) {
    for block in blocks.drain(..) {
        // SAFETY: `new` or `grow` made it with this layout, and it is in the list once.
        unsafe { dealloc(block, layout) };
    }
}

#[inline]
fn grow(block: &mut *mut u8, from: Layout, to: Layout) {
    // SAFETY: the block was made with `from`, which has the alignment of `to`; no size is zero.
    *block = unsafe { realloc(*block, from, to.size()) };
    if block.is_null() {
        handle_alloc_error(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoScope;

    #[test]
    fn every_way_can_be_gone() {
        for path in Path::ALL {
            path.run::<NoScope>(MOST + 1);
        }
    }

    #[test]
    fn the_symbol_has_its_name() {
        let mut calls = 0;
        counted(&mut || calls += 1);
        assert_eq!(calls, 1);
        assert!(std::any::type_name_of_val(&shockwave_profiling_counted).ends_with(COUNTED_SYMBOL));
    }
}
