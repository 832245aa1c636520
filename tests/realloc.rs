//! Reallocation in both directions between every kind of block: contents and alignment stay, a failure changes nothing,
//! and what is not of the current arena never moves into it.

use std::alloc::GlobalAlloc;
use std::hint::black_box;

use shockwave_alloc::{
    Mode, RequestArena, Shockwave, Stats, outside_arena, set_mode, stats, with_request_arena,
};

use common::{Block, Live, Rng, alone, churn};

mod common;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// One size or two of every kind: slab and arena, mid-size, runs of pages.
const SIZES: [usize; 11] =
    [1, 24, 200, 1_500, 9_000, 16_384, 16_385, 200_000, 1 << 20, (1 << 20) + 1, 3_300_000];

/// Where a block is allocated, or reallocated.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Outside,
    Arena,
    OtherArena,
    Backing,
}

const PLACES: [Place; 4] = [Place::Outside, Place::Arena, Place::OtherArena, Place::Backing];

/// Two arenas to be in.
#[derive(Default)]
struct Arenas {
    one: RequestArena,
    other: RequestArena,
}

impl Arenas {
    fn at<R>(&self, place: Place, f: impl FnOnce() -> R) -> R {
        match place {
            Place::Outside => f(),
            Place::Arena => self.one.run(f),
            Place::OtherArena => self.other.run(f),
            Place::Backing => {
                set_mode(Mode::Standard);
                let result = f();
                set_mode(Mode::Arena);
                result
            }
        }
    }
}

#[test]
fn contents_survive_from_every_size_to_every_other_in_every_place() {
    let _alone = alone();
    let before = stats();
    for align in [1, 16, 4096, 1 << 17] {
        for from in PLACES {
            let mut live = Live::new(&GLOBAL, 1000);
            let arenas = Arenas::default();
            for to in PLACES {
                for old in SIZES {
                    for new in SIZES {
                        let block = arenas.at(from, || live.alloc(old, align));
                        // A neighbour, so that not everything is on top.
                        let neighbour = (old ^ new) % 3 == 0;
                        let neighbour = neighbour.then(|| arenas.at(from, || live.alloc(old.min(2_000), 8)));
                        let block = arenas.at(to, || live.realloc(block, new));
                        let block = arenas.at(from, || live.realloc(block, old / 2 + 1));
                        neighbour.into_iter().for_each(|block| live.free(block));
                        live.free(block);
                    }
                }
            }
        }
    }
    let after = stats();
    assert_eq!(after.pinned_chunks, before.pinned_chunks);
    assert_eq!((after.mid.blocks, after.large), (before.mid.blocks, before.large));
}

#[test]
fn many_blocks_change_size_in_any_order() {
    let _alone = alone();
    for seed in 0..8 {
        let mut rng = Rng(seed);
        let arenas = Arenas::default();
        let mut live = Live::new(&GLOBAL, 200);
        for _ in 0..150 {
            let (size, align) = (rng.size(), rng.align());
            arenas.at(PLACES[rng.below(4)], || live.alloc(size, align));
        }
        for step in 0..1500 {
            let block = live.blocks()[rng.below(live.blocks().len())];
            let size = if rng.below(3) == 0 {
                rng.size()
            } else {
                1 + block.layout.size() * (50 + rng.below(120)) / 100
            };
            arenas.at(PLACES[rng.below(4)], || live.realloc(block, size.min(4 << 20)));
            if step % 100 == 0 {
                live.check();
            }
        }
        drop(arenas);
        live.check();
        live.free_all(seed % 2 == 0);
    }
}

#[test]
fn a_block_that_cannot_grow_stays_as_it_was() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, 100);
    let arenas = Arenas::default();
    let mut blocks = Vec::new();
    for place in PLACES {
        for size in SIZES {
            for align in [1, 64, 1 << 16] {
                blocks.push((place, arenas.at(place, || live.alloc(size, align))));
                if live.blocks().len() == 90 {
                    refuse(&arenas, &mut live, &mut blocks);
                }
            }
        }
    }
    refuse(&arenas, &mut live, &mut blocks);
}

fn refuse(arenas: &Arenas, live: &mut Live<Shockwave>, blocks: &mut Vec<(Place, Block)>) {
    let before = stats();
    for &(place, block) in blocks.iter() {
        for size in [isize::MAX as usize & !0xFFFF, 1 << 50] {
            // SAFETY: the block is live, and the new size makes a valid layout.
            let grow = || unsafe { GLOBAL.realloc(block.ptr, block.layout, size) };
            assert!(arenas.at(place, grow).is_null());
            assert!(grow().is_null());
            block.check();
        }
    }
    let after = stats();
    let live_blocks = |stats: &Stats| [stats.arena.blocks, stats.mid.blocks, stats.large.blocks];
    assert_eq!(live_blocks(&after), live_blocks(&before), "nothing was allocated or freed");
    // Threads of the test harness have blocks there too.
    assert!(after.slab.blocks.abs_diff(before.slab.blocks) < blocks.len() as u64, "{before}\n{after}");
    assert!(after.backing.bytes.abs_diff(before.backing.bytes) < 1 << 20, "{before}\n{after}");
    // They are still to be had.
    for (_, block) in blocks.drain(..) {
        let block = live.realloc(block, block.layout.size() + 1);
        live.free(block);
    }
}

#[test]
fn what_was_outside_stays_outside_while_it_grows() {
    let _alone = alone();
    // Whether it begins in the slab, mid-size, large, or with the backing allocator.
    for (start, mode) in [(1, Mode::Arena), (5_000, Mode::Slab), (200_000, Mode::Arena), (1, Mode::Standard)]
    {
        set_mode(mode);
        let mut global: Vec<u32> = (0..start).collect();
        set_mode(Mode::Arena);
        let before = stats();
        let mut lengths = Vec::with_capacity(100);
        for round in 0..60 {
            let closed = RequestArena::new();
            closed.run(|| {
                let inside = vec![round; 10];
                global.extend((global.len() as u32..).take(1 + global.len() / 4));
                black_box(inside);
                lengths.push(global.len());
            });
            // Only what was meant for it is in the arena, and that is freed.
            assert_eq!(closed.stats().blocks, 0);
            if global.len() > 1 << 20 {
                break;
            }
        }
        assert!(lengths.len() > 5);
        churn();
        assert_eq!(stats().pinned_chunks, before.pinned_chunks);
        assert!(global.iter().enumerate().all(|(index, &value)| index == value as usize));
        // Shrinking is no way in either.
        with_request_arena(|| {
            for length in lengths.iter().rev() {
                global.truncate(*length);
                global.shrink_to_fit();
            }
        });
        churn();
        assert_eq!(stats().pinned_chunks, before.pinned_chunks);
        assert!(global.iter().enumerate().all(|(index, &value)| index == value as usize));
    }
}

#[test]
fn an_escaped_block_moves_out_when_it_grows() {
    let _alone = alone();
    for grow_in_other_arena in [false, true] {
        let before = stats().pinned_chunks;
        let mut escaped = with_request_arena(|| (0..100u16).collect::<Vec<_>>());
        assert_eq!(stats().pinned_chunks, before + 1);
        let grow = |escaped: &mut Vec<u16>| escaped.extend(100..300);
        let other = RequestArena::new();
        if grow_in_other_arena {
            other.run(|| grow(&mut escaped));
        } else {
            grow(&mut escaped);
        }
        assert_eq!(other.stats().blocks, 0);
        drop(other);
        assert_eq!(stats().pinned_chunks, before, "the old block was freed, the new one pins nothing");
        churn();
        assert_eq!(escaped, (0..300).collect::<Vec<_>>());
    }
}

#[test]
fn the_top_block_of_a_chunk_changes_size_in_place() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, 20);
    // Of a kind that leaves no size to the slab, as escapes in other tests may have taught some.
    let arena = (0..100)
        .map(|key| RequestArena::builder().kind(key).build())
        .find(|arena| {
            // And that begins where there is room: it may go on in a chunk that another one has used a part of.
            [8, 16, 48, 64, 100, 104, 496, 3_000, 4_000, 8_000, 16_000].into_iter().all(|size| {
                arena.run(|| {
                    let block = live.alloc(size, 8);
                    let inside = arena.stats().blocks == 1 && block.addr() % 65_536 < 32_000;
                    live.free(block);
                    inside
                })
            })
        })
        .expect("a kind that nobody uses, and room");
    arena.run(|| {
        let below = live.alloc(48, 8);
        let blocks = arena.stats().blocks;
        let mut top = live.alloc(100, 8);
        let place = top.addr();
        for size in [104, 496, 16_000, 8, 16, 4_000] {
            top = live.realloc(top, size);
            assert_eq!(top.addr(), place, "to {size} B");
            // The cursor has moved along: the next block lies right behind.
            let next = live.alloc(8, 1);
            assert_eq!(next.addr(), place + size);
            live.free(next);
        }
        assert_eq!(arena.stats().blocks, blocks + 1);
        let chunks = arena.stats().chunks;
        // Not the top one: moves to grow, stays to shrink.
        let moved = live.realloc(below, 64);
        assert_ne!(moved.addr(), below.addr());
        assert_eq!(live.realloc(top, 3_000).addr(), place);
        // At the end of the chunk there is no room: it moves, and does not reach into the next page.
        let last =
            (0..).map(|_| live.alloc(8_000, 8)).find(|block| block.addr() % 65_536 > 50_000).expect("an end");
        let next = live.realloc(last, 16_000);
        assert_ne!(next.addr(), last.addr());
        assert_eq!(arena.stats().chunks, chunks);
        live.check();
        live.free_all(true);
    });
    assert_eq!(arena.stats().blocks, 0);
}

#[test]
fn vectors_that_are_in_each_others_way_grow_to_many_megabytes() {
    let _alone = alone();
    const LEN: usize = 3_000_000;
    let mut vectors = [const { Vec::<u64>::new() }; 3];
    let mut moves = 0;
    for value in 0..LEN {
        for vector in &mut vectors {
            let place = vector.as_ptr();
            vector.push(value as u64);
            moves += usize::from(place != vector.as_ptr() && vector.len() * 8 > 1 << 20);
        }
    }
    assert!(moves > 3, "large blocks had to move");
    for vector in &mut vectors {
        assert!(vector.iter().enumerate().all(|(index, &value)| index as u64 == value));
        for len in [2_000_000, 150_000, 100_000, 3_000, 100, 3] {
            vector.truncate(len);
            vector.shrink_to_fit();
            assert!(vector.iter().enumerate().all(|(index, &value)| index as u64 == value));
        }
    }
}

#[test]
fn a_shrinking_block_goes_from_heap_to_heap() {
    let _alone = alone();
    let mut live = Live::new(&GLOBAL, 4);
    let before = stats();
    let gauges = || {
        let now = stats();
        (now.large.blocks - before.large.blocks, now.mid.blocks - before.mid.blocks)
    };
    let mut block = live.alloc(30 << 20, 8);
    for (size, expected) in [
        (20 << 20, (1, 0)),
        ((1 << 20) + 1, (1, 0)),
        (1 << 20, (0, 1)),
        (16_385, (0, 1)),
        (16_384, (0, 0)),
        (3, (0, 0)),
        (500_000, (0, 1)),
        (9 << 20, (1, 0)),
        (1, (0, 0)),
    ] {
        block = live.realloc(block, size);
        assert_eq!(gauges(), expected, "at {size} B");
    }
    live.free(block);
    let after = stats();
    assert_eq!((after.large, after.mid), (before.large, before.mid));
}

#[test]
fn growth_outside_arena_within_an_arena_stays_outside() {
    let _alone = alone();
    let arena = RequestArena::new();
    let mut kept = Vec::new();
    arena.run(|| {
        for value in 0..3_000u32 {
            outside_arena(|| kept.push(value));
            kept.push(value);
        }
        assert_eq!(arena.stats().blocks, 0);
    });
    drop(arena);
    churn();
    assert!(kept.iter().enumerate().all(|(index, &value)| index / 2 == value as usize));
}
