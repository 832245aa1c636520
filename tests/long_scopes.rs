//! Scopes that go on for long: what is freed in them is used again, so they do not grow.

use std::collections::HashMap;
use std::hint::black_box;

use shockwave_alloc::{ArenaStats, RequestArena, Shockwave, current_arena_stats};

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
            if turn % 100 == 0 { most.max(now().chunks) } else { most }
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
