//! Scopes that go on for long: what is freed in them is used again, so they do not grow.

use std::collections::HashMap;
use std::hint::black_box;
use std::thread;

use shockwave_alloc::{ArenaStats, RequestArena, Shockwave, current_arena_stats, outside_arena};

#[global_allocator]
// Without pretenuring, so that nothing but the scope's own length sends allocations elsewhere.
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

const CHUNK: u64 = 64 << 10;

fn now() -> ArenaStats {
    current_arena_stats().expect("a scope is entered")
}

/// Runs `step` 100,000 times in one scope and returns the most chunks that the arena had on the way.
fn chunks_of(mut step: impl FnMut(usize)) -> u64 {
    let arena = RequestArena::new();
    arena.run(|| {
        (0..100_000).fold(0, |most, turn| {
            step(turn);
            if turn % 100 != 0 {
                return most;
            }
            let now = now();
            assert!(now.bytes <= now.chunks * CHUNK, "{now:?}");
            most.max(now.chunks)
        })
    })
}

#[test]
fn a_loop_that_frees_what_it_allocates_stays_in_one_chunk() {
    // In the order of allocation, so that no free is of the top block.
    let chunks = chunks_of(|turn| {
        let first = black_box(vec![turn; 20]);
        let second = black_box(vec![turn; 30]);
        drop(first);
        drop(second);
    });
    assert!(chunks <= 2, "{chunks}");
}

#[test]
fn a_chunk_whose_blocks_are_all_free_when_it_is_full_is_bumped_through_again() {
    // The first block is the one that does not fit, so that no block is alive then and no later free tells of the chunk.
    let chunks = chunks_of(|turn| {
        let first = black_box(vec![turn as u8; 1000]);
        let second = black_box(vec![turn as u8; 16]);
        drop(first);
        drop(second);
    });
    assert_eq!(chunks, 1);
}

#[test]
fn a_chunk_that_other_threads_have_emptied_is_used_again_and_its_count_starts_over() {
    let arena = RequestArena::new();
    arena.run(|| {
        let fill = |number: u8| -> Vec<Vec<u8>> {
            let mut blocks = outside_arena(|| Vec::with_capacity(63));
            blocks.extend((0..63).map(|_| vec![number; 1024]));
            blocks
        };
        let elsewhere = fill(1);
        outside_arena(|| thread::spawn(move || drop(elsewhere)).join().expect("frees"));
        let second = fill(2);
        assert_eq!(now().chunks, 1, "the chunk was free");
        let third = fill(3);
        assert_eq!((now().chunks, now().blocks), (2, 126));
        for (number, blocks) in [(2, second), (3, third)] {
            assert!(blocks.iter().flatten().all(|&byte| byte == number));
        }
    });
}

#[test]
fn an_empty_chunk_that_is_bumped_through_is_not_given_away() {
    // In an arena that is wiped each free is counted in the chunk's header, in the newest one, too.
    let arena = RequestArena::builder().zero_freed(true).build();
    arena.run(|| {
        for round in 0..5u8 {
            drop(black_box(vec![0u8; 100]));
            assert_eq!((now().chunks, now().blocks), (1, 0));
            let blocks: Vec<Vec<u8>> = (0..200u8).map(|number| vec![number ^ round; 1000]).collect();
            for (number, block) in blocks.iter().enumerate() {
                assert!(block.iter().all(|&byte| byte == number as u8 ^ round), "{number}");
            }
        }
    });
}

#[test]
fn an_arena_that_holds_mostly_garbage_stops_growing() {
    let arena = RequestArena::new();
    arena.run(|| {
        let mut kept = Vec::new();
        for turn in 0..50_000 {
            // Out of order, so that the first one's place is lost.
            let first = black_box(vec![1u8; 400]);
            let second = black_box(vec![2u8; 400]);
            drop(first);
            if turn % 100 == 0 {
                kept.push(second);
            }
        }
        assert!(now().chunks <= 32, "{:?}", now());
        assert!(kept.iter().flatten().all(|&byte| byte == 2));
    });
}

#[test]
fn chunks_that_empty_one_after_the_other_are_used_again() {
    // A queue of 2,000 blocks of some 200 B: the oldest goes when a new one comes.
    let mut queue = std::collections::VecDeque::with_capacity(2048);
    let chunks = chunks_of(|turn| {
        queue.push_back(black_box(vec![turn as u8; 100 + turn % 200]));
        if queue.len() > 2_000 {
            let first = queue.pop_front().expect("not empty");
            assert!(first.iter().all(|&byte| byte == (turn - 2_000) as u8));
        }
    });
    assert!(chunks * CHUNK < 3 * 2_000 * 208, "{chunks} chunks");
}

#[test]
fn small_big_small() {
    let arena = RequestArena::new();
    arena.run(|| {
        let small = black_box(vec![1u8; 10]);
        let big = black_box(vec![2u8; 1 << 20]);
        let other = black_box(vec![3u8; 10]);
        let now = now();
        assert_eq!((now.chunks, now.blocks), (1, 2));
        assert_eq!((now.bypassed_blocks, now.bypassed_bytes), (1, 1 << 20));
        assert_eq!((small[9], big[1 << 19], other[9]), (1, 2, 3));
    });
}

#[test]
fn two_vecs_that_grow_in_turn_leave_no_trail() {
    let arena = RequestArena::new();
    arena.run(|| {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for number in 0..200_000u64 {
            one.push(number);
            other.push(!number);
        }
        assert!(one.iter().zip(&other).all(|(one, other)| *one == !other));
        let now = now();
        assert!(now.chunks * CHUNK <= 2 * CHUNK, "{now:?}");
    });
}

#[test]
fn a_vec_that_grows_below_the_top_leaves_no_trail() {
    let arena = RequestArena::new();
    arena.run(|| {
        let mut grows: Vec<u64> = Vec::with_capacity(4);
        let top = black_box(vec![7u8; 100]);
        for number in 0..100_000 {
            grows.push(number);
        }
        assert!(grows.iter().copied().eq(0..100_000));
        assert!(top.iter().all(|&byte| byte == 7));
        assert!(now().bytes < 8 << 10, "{:?}", now());
    });
}

#[test]
fn a_map_whose_entries_come_and_go_at_random_is_bounded() {
    let arena = RequestArena::new();
    arena.run(|| {
        let mut map: HashMap<u64, String> = HashMap::new();
        let mut random = 1u64;
        for turn in 0..1_000_000u64 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let key = (random >> 40) % 1_000;
            map.insert(key, format!("the value that turn {turn} gave to key {key}"));
            if turn % 1_000 == 0 {
                let chunks = now().chunks;
                // Some 100 KiB are alive. From 1 MiB on an arena is asked what it holds.
                assert!(chunks <= 32, "{chunks} chunks in turn {turn}");
            }
        }
        assert!(map.iter().all(|(key, value)| value.ends_with(&format!("key {key}"))));
    });
}

#[test]
fn an_arena_full_of_live_blocks_is_not_taken_for_garbage() {
    let arena = RequestArena::new();
    let blocks: Vec<Vec<u8>> = arena.run(|| (0..20_000).map(|turn| vec![turn as u8; 200]).collect());
    assert!(arena.stats().chunks > 60, "{arena:?}");
    assert!(arena.stats().bytes >= 4_000_000, "{arena:?}");
    assert!(blocks.iter().enumerate().all(|(turn, block)| block.iter().all(|&byte| byte == turn as u8)));
}
