//! Every size at every alignment in every mode: aligned, kept apart, keeping its contents, zeroed when asked for; what
//! cannot be served is refused, and wrong layouts are survived.

use std::alloc::{GlobalAlloc, Layout};
use std::process::{Command, Output};

use shockwave_alloc::{
    Mode, RequestArena, Shockwave, Stats, outside_arena, set_mode, stats, with_request_arena,
};

use common::{Block, Live, Rng, alone, layout};

mod common;

// Without pretenuring, so that what is allocated in a scope is in its arena.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// Where blocks are to come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Slab,
    Arena,
    Backing,
}

const PLACES: [Place; 3] = [Place::Slab, Place::Arena, Place::Backing];

/// Runs `allocate` in a place, makes sure that it was that place, and then runs `free` outside of it.
fn at(place: Place, live: &mut Live<Shockwave>, allocate: impl FnOnce(&mut Live<Shockwave>)) {
    let before = stats();
    match place {
        Place::Slab => {
            allocate(live);
            let after = stats();
            let served = |stats: &Stats| stats.slab.blocks + stats.mid.blocks + stats.large.blocks;
            assert!(served(&after) > served(&before), "nothing came from the reservation");
            assert_eq!(after.arena, before.arena);
        }
        Place::Arena => {
            let arena = RequestArena::new();
            arena.run(|| allocate(live));
            let stats = arena.stats();
            assert!(stats.bytes > 0 || stats.bypassed_blocks > 0, "nothing came to the arena");
        }
        Place::Backing => {
            set_mode(Mode::Standard);
            allocate(live);
            set_mode(Mode::Arena);
        }
    }
    let went_back = stats().backing.blocks > before.backing.blocks;
    assert_eq!(went_back, place == Place::Backing, "{place:?} is where the backing allocator should serve");
}

/// Frees all blocks in one of three orders.
fn free(live: &mut Live<Shockwave>, order: usize, rng: &mut Rng) {
    if order < 2 {
        return live.free_all(order == 1);
    }
    while !live.blocks().is_empty() {
        live.free(live.blocks()[rng.below(live.blocks().len())]);
    }
}

#[test]
fn every_size_up_to_20_000_at_the_usual_alignments() {
    const WINDOW: usize = 500;
    let _alone = alone();
    let mut rng = Rng(1);
    for place in PLACES {
        for align in [1, 2, 4, 8, 16] {
            for first in (1..=20_000).step_by(WINDOW) {
                let mut live = Live::new(&GLOBAL, WINDOW);
                at(place, &mut live, |live| {
                    for size in first..first + WINDOW {
                        let block = live.alloc(size, align);
                        // Some are freed at once and some later, so that sizes follow each other in the same memory.
                        if size % 5 == 0 {
                            live.free(block);
                        } else if size % 7 == 0 {
                            live.free(live.blocks()[rng.below(live.blocks().len())]);
                        }
                    }
                    live.check();
                });
                live.check();
                free(&mut live, first / WINDOW % 3, &mut rng);
            }
        }
    }
}

#[test]
fn every_alignment_up_to_2_mib() {
    let _alone = alone();
    let mut rng = Rng(2);
    let before = stats().pinned_chunks;
    for place in PLACES {
        for order in 0..3 {
            let mut live = Live::new(&GLOBAL, 400);
            at(place, &mut live, |live| {
                for align in (0..=21).map(|shift| 1usize << shift) {
                    for size in
                        [1, 7, 8, 100, align - 1, align, align + 1, 3 * align / 2, 2000, 16_385, 100_000]
                    {
                        live.alloc(size.max(1), align);
                    }
                }
                live.check();
            });
            live.check();
            free(&mut live, order, &mut rng);
        }
    }
    assert_eq!(stats().pinned_chunks, before, "everything was freed");
}

#[test]
fn zeroed_memory_is_zero_after_dirty_use() {
    let _alone = alone();
    // Sizes of the slab and arenas, of the mid-size heaps, and of runs of pages.
    for sizes in
        [1..200, 3_000..3_100, 16_300..16_384, 16_385..16_400, 300_000..300_008, 1_500_000..1_500_004]
    {
        let sizes = Vec::from_iter(sizes);
        let before = dirty(&sizes);
        zeroed_in(&sizes, &before);
        // A closed arena's chunks are as dirty.
        let before = with_request_arena(|| dirty(&sizes));
        with_request_arena(|| zeroed_in(&sizes, &before));
        with_request_arena(|| {
            // So is what the cursor has gone back over.
            let mut live = Live::new(&GLOBAL, 1);
            for &size in &sizes {
                let block = live.alloc(size, 8);
                live.free(block);
                let again = live.alloc_zeroed(size, 8);
                live.free(again);
                assert!(size > 2000 || block.addr() == again.addr(), "{block:?} then {again:?}");
            }
        });
    }
}

/// Allocates the sizes, overwrites and frees them.
fn dirty(sizes: &[usize]) -> Vec<Block> {
    let mut live = Live::new(&GLOBAL, sizes.len());
    for &size in sizes {
        live.alloc(size, 8);
    }
    let blocks = outside_arena(|| live.blocks().to_vec());
    live.free_all(true);
    blocks
}

/// Allocates the sizes zeroed. Some of the memory must be dirty from `before`, else this shows nothing.
fn zeroed_in(sizes: &[usize], before: &[Block]) {
    let mut live = Live::new(&GLOBAL, sizes.len());
    for &size in sizes {
        live.alloc_zeroed(size, 8);
    }
    let reused = |new: &Block| before.iter().any(|old| old.overlaps(new));
    assert!(live.blocks().iter().any(reused), "no memory of {} B came a second time", sizes[0]);
    live.free_all(false);
}

#[test]
fn zeroed_runs_are_zero_whatever_happened_to_their_pages() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, 64);
    for round in 0..20 {
        let size = (2 << 20) + round * 70_000;
        // Fresh, dirty and freed.
        let block = live.alloc_zeroed(size, 8);
        live.free(block);
        // Cut off while it is in use.
        let block = live.alloc_zeroed(3 * size, 8);
        let behind = live.alloc(size, 8);
        let block = live.realloc(block, size);
        let tail = live.alloc_zeroed(size, 8);
        // Grown with another block behind it, which moves its pages elsewhere.
        let block = live.realloc(block, 4 * size);
        let old_place = live.alloc_zeroed(size, 8);
        for block in [block, tail, old_place, behind] {
            live.free(block);
        }
        let block = live.alloc_zeroed(8 * size, 1 << 17);
        live.free(block);
    }
    // Moved to the end of all that is in use, with a live block before it, and freed there.
    let blocks = [2 << 20, 1 << 20, 40 << 20].map(|size| live.alloc(size + 1, 8));
    let moved = live.realloc(blocks[0], 41 << 20);
    live.free(moved);
    live.alloc_zeroed(41 << 20, 8);
    live.free_all(true);
}

/// Layouts that no machine can serve.
fn impossible() -> impl Iterator<Item = Layout> {
    let aligns = (0..usize::BITS - 1).map(|shift| 1usize << shift);
    aligns.flat_map(|align| {
        let most = isize::MAX as usize - (align - 1);
        [most, most - 1, most - 4095, most / 2]
            .into_iter()
            .filter(|&size| size > 1 << 50)
            .map(move |size| layout(size, align))
    })
}

/// Asks for what is impossible, in all ways.
fn ask_for_the_impossible() {
    let mut live = Live::new(&GLOBAL, 8);
    let aligned = (50..usize::BITS - 1).map(|shift| layout(1, 1 << shift));
    for layout in impossible().chain(aligned) {
        // SAFETY: the size is not zero.
        let blocks = unsafe { [GLOBAL.alloc(layout), GLOBAL.alloc_zeroed(layout)] };
        assert_eq!(blocks, [std::ptr::null_mut(); 2], "{layout:?}");
        for size in [40, 20_000] {
            let block = live.alloc(size, 8);
            live.free(block);
        }
    }
    let mut bytes = vec![1u8; 10];
    assert!(bytes.try_reserve_exact(isize::MAX as usize - 100).is_err());
    assert_eq!(bytes, [1; 10]);
}

#[test]
fn impossible_layouts_are_refused_and_nothing_else_suffers() {
    let _alone = alone();
    let before = stats();
    ask_for_the_impossible();
    with_request_arena(ask_for_the_impossible);
    set_mode(Mode::Standard);
    ask_for_the_impossible();
    set_mode(Mode::Arena);
    let after = stats();
    assert_eq!(after.large, before.large);
    assert_eq!(after.mid, before.mid);
    // What other threads of the test harness allocated meanwhile is small.
    assert!(after.backing.bytes.abs_diff(before.backing.bytes) < 1 << 20, "{before}\n{after}");
}

/// Runs one test of this binary in a process of its own, with `SIZES_CHILD` set.
fn in_child(test: &str) -> Output {
    let binary = std::env::current_exe().expect("a path");
    let mut child = Command::new(binary);
    child.args(["--exact", test, "--nocapture"]).env("SIZES_CHILD", "1").env_remove("SHOCKWAVE_MODE");
    child.output().expect("the child starts")
}

fn is_child() -> bool {
    std::env::var_os("SIZES_CHILD").is_some()
}

/// Lines of the child's standard error that name a wrong layout.
fn complaints(child: &Output) -> Vec<String> {
    assert!(child.status.success(), "{child:?}");
    let said = String::from_utf8_lossy(&child.stderr);
    said.lines().filter(|line| line.contains("wrong layout")).map(String::from).collect()
}

/// Fills memory of the sizes that wrong layouts could be mistaken for and sees that nothing overlaps.
fn churn(live: &mut Live<Shockwave>, rng: &mut Rng) {
    let kept = live.blocks().len();
    for _ in 0..20 {
        let mut more = Vec::new();
        for size in [1, 8, 24, 40, 64, 96, 100, 104, 500, 20_000, 1_200_000] {
            more.push(live.alloc(size, 8));
        }
        while !more.is_empty() {
            live.free(more.swap_remove(rng.below(more.len())));
        }
    }
    live.check();
    assert_eq!(live.blocks().len(), kept);
}

#[test]
fn wrong_layouts_are_survived_and_named() {
    let wrong = [layout(1, 1), layout(40, 8), layout(100, 1024)];
    if !is_child() {
        let lines = complaints(&in_child("wrong_layouts_are_survived_and_named"));
        if cfg!(debug_assertions) {
            assert_eq!(lines.len(), 2 * wrong.len(), "{lines:#?}");
            for claimed in wrong {
                let named = |line: &&String| {
                    line.contains("104 B was freed")
                        && line.contains(&format!(
                            "a layout of {} B aligned to {} B",
                            claimed.size(),
                            claimed.align()
                        ))
                };
                assert_eq!(lines.iter().filter(named).count(), 2, "{claimed:?} in {lines:#?}");
            }
        } else {
            assert!(lines.is_empty(), "release builds do not look: {lines:#?}");
        }
        return;
    }
    let mut rng = Rng(3);
    let mut live = Live::new(&GLOBAL, 200);
    let mut blocks: Vec<Block> = (0..60).map(|_| live.alloc(100, 8)).collect();
    for claimed in wrong {
        live.free_as(blocks.swap_remove(rng.below(blocks.len())), claimed);
        churn(&mut live, &mut rng);
        // By another thread, the remote way.
        let block = live.take(blocks.swap_remove(rng.below(blocks.len())));
        let free = move || {
            let mut live = Live::new(&GLOBAL, 1);
            live.adopt(block);
            live.free_as(block, claimed);
        };
        std::thread::spawn(free).join().expect("no panic");
        churn(&mut live, &mut rng);
    }
    let before = stats();
    for (size, claimed) in [(20_000, layout(1, 1)), (300_000, layout(200_000, 8)), (2 << 20, layout(1, 64))] {
        let block = live.alloc(size, 8);
        live.free_as(block, claimed);
        churn(&mut live, &mut rng);
    }
    let after = stats();
    assert_eq!(
        (after.mid, after.large),
        (before.mid, before.large),
        "the size does not come from the caller"
    );
    assert_eq!(after.layout_mismatches, if cfg!(debug_assertions) { 2 * wrong.len() as u64 } else { 0 });
    live.free_all(true);
}

// Sizes that are too big are not survived in every case: ARCHITECTURE.md, "A free", names the one.
#[test]
fn arena_blocks_freed_with_smaller_sizes_harm_no_other_and_pin_nothing() {
    let _alone = alone();
    let before = stats().pinned_chunks;
    let mut rng = Rng(4);
    for round in 0..50 {
        let mut live = Live::new(&GLOBAL, 600);
        let arena = RequestArena::new();
        arena.run(|| {
            for _ in 0..200 {
                let block = live.alloc(8 + rng.below(300), 8);
                if rng.below(3) == 0 {
                    // Often the top one of the chunk.
                    live.free_as(block, layout(1 + rng.below(block.layout.size()), 1));
                }
                if rng.below(4) == 0 && !live.blocks().is_empty() {
                    let block = live.blocks()[rng.below(live.blocks().len())];
                    live.free_as(block, layout(1, 16));
                }
            }
            live.check();
        });
        assert_eq!(arena.stats().blocks, live.blocks().len() as u64, "blocks are counted, not bytes");
        if round % 2 == 0 {
            drop(arena);
        }
        for block in live.blocks().to_vec() {
            live.free_as(block, layout(1, 1));
        }
    }
    assert_eq!(stats().pinned_chunks, before);
}
