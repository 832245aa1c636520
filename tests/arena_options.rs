//! What an arena can be built with, and what it tells of itself.

use std::hint::black_box;

use shockwave_alloc::{RequestArena, Shockwave, current_arena_stats, outside_arena};

#[global_allocator]
// Without pretenuring, so that what is allocated in a scope is in its arena.
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// What block `number` is filled with: an odd value, so that it is none of the secrets below.
fn fill(number: usize) -> u8 {
    number as u8 | 1
}

fn blocks(count: usize, size: usize) -> Vec<Vec<u8>> {
    let mut blocks = outside_arena(|| Vec::with_capacity(count));
    blocks.extend((0..count).map(|number| vec![fill(number); size]));
    blocks
}

fn verify(blocks: &[Vec<u8>]) {
    for (number, block) in blocks.iter().enumerate() {
        assert!(block.iter().all(|&byte| byte == fill(number)), "block {number}");
    }
}

#[test]
fn beyond_the_limit_allocations_go_to_the_slab() {
    for limit in [0, 1, 8, 1000, 4096, 65_528, 65_536, 100_000, 1 << 20] {
        let arena = RequestArena::builder().soft_limit(limit).build();
        let kept = arena.run(|| blocks(3_000, 400));
        let now = arena.stats();
        assert!(now.bytes <= limit as u64, "{limit}: {now:?}");
        assert!(now.bytes + 2048 + 400 >= limit as u64, "{limit}: {now:?}");
        assert!(now.over_limit && arena.over_limit(), "{limit}: {now:?}");
        assert_eq!(now.blocks, now.bytes / 400, "{limit}");
        verify(&kept);
        // Frees find both kinds, inside and outside.
        let (one, other) = kept.split_at(1_500);
        let (one, other) = (one.to_vec(), other.to_vec());
        arena.run(|| drop(one));
        drop(other);
    }
}

#[test]
fn below_the_limit_nothing_changes() {
    let arena = RequestArena::builder().soft_limit(1 << 20).build();
    let kept = arena.run(|| blocks(1_000, 400));
    assert_eq!(arena.stats().blocks, 1_000);
    assert!(!arena.over_limit(), "{arena:?}");
    verify(&kept);
}

#[test]
fn the_limit_holds_over_many_entries_and_after_a_reset() {
    let mut arena = RequestArena::builder().soft_limit(10_000).build();
    for _ in 0..3 {
        for round in 1..=25u64 {
            let block = arena.run(|| black_box(vec![1u8; 400]));
            assert_eq!(arena.stats().blocks, round);
            std::mem::forget(block);
        }
        assert!(!arena.over_limit() || arena.stats().bytes == 10_000, "{arena:?}");
        std::mem::forget(arena.run(|| black_box(vec![1u8; 400])));
        assert!(arena.over_limit());
        assert_eq!(arena.stats().blocks, 25);
        arena.reset();
        assert!(!arena.over_limit(), "{arena:?}");
    }
}

#[test]
fn big_objects_count_for_the_limit_while_they_live() {
    let arena = RequestArena::builder().soft_limit(1 << 20).build();
    arena.run(|| {
        let small = black_box(vec![1u8; 100]);
        let big = black_box(vec![2u8; 2 << 20]);
        assert!(current_arena_stats().expect("entered").over_limit);
        let outside = black_box(vec![3u8; 100]);
        assert_eq!(current_arena_stats().expect("entered").blocks, 1, "over its limit it takes no more");
        drop(big);
        for _ in 0..100 {
            // One after the other they never are 1 MiB at once.
            drop(black_box(vec![4u8; 100 << 10]));
        }
        assert_eq!((small[99], outside[99]), (1, 3));
    });
    let arena = RequestArena::builder().soft_limit(1 << 20).build();
    arena.run(|| (0..100).for_each(|_| drop(black_box(vec![4u8; 100 << 10]))));
    assert!(!arena.over_limit(), "{arena:?}");
    assert_eq!(arena.stats().bypassed_blocks, 100);
}

#[test]
fn statistics_count_allocations_peak_and_total() {
    let mut arena = RequestArena::new();
    drop(arena.run(|| blocks(100, 80)));
    let kept = arena.run(|| blocks(50, 80));
    let now = arena.stats();
    assert_eq!((now.allocations, now.blocks), (150, 50));
    assert_eq!((now.bytes, now.peak_bytes, now.total_bytes), (12_000, 12_000, 12_000));
    arena.reset();
    let other = arena.run(|| blocks(10, 80));
    let now = arena.stats();
    assert_eq!((now.allocations, now.blocks, now.escaped_blocks), (160, 10, 0));
    assert_eq!((now.bytes, now.peak_bytes, now.total_bytes), (800, 12_000, 12_800));
    assert_eq!(now.chunks, 1);
    let closed = arena.close();
    assert_eq!((closed.escaped_blocks, closed.allocations), (10, 160));
    verify(&kept);
    verify(&other);
    assert_eq!(RequestArena::new().close(), Default::default());
}

/// Whether the byte pattern occurs anywhere in the 64 KiB around `address`, which must belong to a chunk that is still there.
fn occurs_around(address: usize, pattern: u8) -> bool {
    let start = address & !0xFFFF;
    // Looks at memory as an attacker with a bug to exploit would: as bytes of a page, not as an object.
    let memory = std::fs::File::open("/proc/self/mem").expect("Linux");
    let mut page = outside_arena(|| vec![0u8; 64 << 10]);
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut page, start as u64)
        .expect("a page of the reservation");
    page.windows(32).any(|window| window.iter().all(|&byte| byte == pattern))
}

#[test]
fn freed_blocks_of_a_wiping_arena_are_zeroed_at_once() {
    // The third uses the chunk of the second again.
    for wiping in [true, false, true] {
        let arena = RequestArena::builder().zero_freed(wiping).build();
        arena.run(|| {
            let kept = black_box(vec![0x11u8; 64]);
            let secret = black_box(vec![0x5Cu8; 4000]);
            let address = kept.as_ptr().addr();
            assert!(occurs_around(address, 0x5C));
            drop(secret);
            assert_eq!(occurs_around(address, 0x5C), !wiping, "freed inside");
            assert!(occurs_around(address, 0x11));
        });
        // Freed outside of the scope, by another thread, and after the end.
        let secrets: Vec<Vec<u8>> = arena.run(|| (0..3).map(|_| vec![0x6Cu8; 500]).collect());
        let kept = arena.run(|| black_box(vec![0x11u8; 64]));
        let address = kept.as_ptr().addr();
        let mut secrets = secrets.into_iter();
        drop(secrets.next());
        let next = secrets.next();
        std::thread::spawn(move || drop(next)).join().expect("a drop");
        drop(arena);
        secrets.for_each(drop);
        assert_eq!(occurs_around(address, 0x6C), !wiping, "freed elsewhere");
        assert!(kept.iter().all(|&byte| byte == 0x11));
    }
}

#[test]
fn what_grows_and_shrinks_in_a_wiping_arena_stays_intact_and_leaves_nothing() {
    let arena = RequestArena::builder().zero_freed(true).build();
    arena.run(|| {
        let anchor = black_box(vec![0x22u8; 64]);
        let mut text: Vec<u8> = Vec::new();
        for length in 1..=900 {
            text.resize(length, 0x7E);
        }
        text.truncate(100);
        text.shrink_to_fit();
        assert!(text.iter().all(|&byte| byte == 0x7E));
        let address = anchor.as_ptr().addr();
        drop(text);
        assert!(!occurs_around(address, 0x7E));
    });
}

#[test]
fn a_wiping_arena_over_its_limit_wipes_what_it_holds() {
    let arena = RequestArena::builder().zero_freed(true).soft_limit(4_000).build();
    arena.run(|| {
        let kept = black_box(vec![0x11u8; 64]);
        let secret = black_box(vec![0x4Cu8; 1_000]);
        let rest = blocks(100, 100);
        assert!(current_arena_stats().expect("entered").over_limit);
        let address = kept.as_ptr().addr();
        assert!(occurs_around(address, 0x4C));
        drop(secret);
        assert!(!occurs_around(address, 0x4C));
        verify(&rest);
    });
}

#[test]
fn a_limit_counts_nothing_of_the_arena_before() {
    for _ in 0..10 {
        shockwave_alloc::with_request_arena(|| drop(black_box((blocks(2, 900), vec![1u8; 900]))));
        shockwave_alloc::with_request_arena(|| drop((black_box(vec![1u8; 900]), black_box(vec![1u8; 900]))));
        let arena = RequestArena::builder().soft_limit(1_600).build();
        let kept = arena.run(|| blocks(16, 100));
        assert_eq!(arena.stats().blocks, 15, "{arena:?}");
        verify(&kept);
    }
}

#[test]
fn a_record_that_served_a_wiping_arena_serves_others() {
    for turn in 0..20 {
        let arena = RequestArena::builder().zero_freed(turn % 2 == 0).soft_limit(1 << (10 + turn)).build();
        let kept = arena.run(|| blocks(20, 100));
        verify(&kept);
        drop(arena);
        verify(&kept);
        let plain = RequestArena::new();
        let other = plain.run(|| blocks(200, 100));
        assert_eq!(plain.stats().blocks, 200);
        assert!(!plain.over_limit());
        verify(&other);
    }
}

#[test]
fn room_that_a_big_object_took_comes_back_with_it() {
    let arena = RequestArena::builder().soft_limit(100_000).build();
    arena.run(|| {
        let small = black_box(vec![1u8; 400]);
        let big = black_box(vec![2u8; 60_000]);
        let other = black_box(vec![3u8; 400]);
        let mut kept = Vec::with_capacity(150);
        drop(big);
        // 64,400 of 100,000 B.
        kept.extend((0..150).map(|number| vec![fill(number); 400]));
        let now = current_arena_stats().expect("entered");
        assert_eq!((now.blocks, now.chunks, now.over_limit), (153, 1, false), "{now:?}");
        assert_eq!((small[399], other[399]), (1, 3));
        verify(&kept);
    });
}

#[test]
fn room_that_a_big_object_takes_is_none_for_small_ones() {
    let arena = RequestArena::builder().soft_limit(100_000).build();
    arena.run(|| {
        let small = black_box(vec![1u8; 400]);
        let mut kept = Vec::with_capacity(150);
        let big = black_box(vec![2u8; 60_000]);
        kept.extend((0..150).map(|number| vec![fill(number); 400]));
        let now = current_arena_stats().expect("entered");
        assert_eq!((now.bytes, now.over_limit), (40_000, true), "{now:?}");
        assert_eq!((small[399], big[59_999]), (1, 2));
        verify(&kept);
    });
}

#[test]
fn big_objects_count_for_the_limit_by_the_size_they_have_grown_to() {
    let over = || current_arena_stats().expect("entered").over_limit;
    // Mid-size ones and runs of pages; what can grow in place does.
    for unit in [20 << 10, 2 << 20] {
        let arena = RequestArena::builder().soft_limit(10 * unit).build();
        arena.run(|| {
            let mut grows: Vec<u8> = Vec::with_capacity(unit);
            for units in 2..10 {
                grows.reserve_exact(units * unit);
                assert!(!over(), "{units} of 10 units of {unit} B");
            }
            grows.reserve_exact(10 * unit);
            assert!(over(), "10 of 10 units of {unit} B");
        });
        let arena = RequestArena::builder().soft_limit(10 * unit).build();
        arena.run(|| {
            let stays = black_box(vec![1u8; 5 * unit]);
            let mut grows: Vec<u8> = Vec::with_capacity(2 * unit);
            grows.reserve_exact(4 * unit);
            drop(grows);
            assert!(!over());
            // What is freed has the size it had, not more.
            let other = black_box(vec![2u8; 5 * unit]);
            assert!(over(), "units of {unit} B");
            assert_eq!((stays[0], other[0]), (1, 2));
        });
    }
}

#[test]
fn nothing_is_left_of_what_grows_out_of_small_sizes_in_a_wiping_arena() {
    let arena = RequestArena::builder().zero_freed(true).build();
    arena.run(|| {
        for length in [1_000, 1_500, 5_000, 16_000] {
            let mut text: Vec<u8> = black_box(Vec::with_capacity(8));
            (0..length).for_each(|_| text.push(0x7C));
            let below = black_box(vec![0u8; 8]);
            text.push(0x7C);
            let address = text.as_ptr().addr();
            assert!(occurs_around(address, 0x7C), "{length}");
            drop(text);
            assert!(!occurs_around(address, 0x7C), "{length}");
            drop(below);
        }
    });
}

#[test]
fn a_wiping_arena_full_of_garbage_goes_on_wiping() {
    let arena = RequestArena::builder().zero_freed(true).build();
    arena.run(|| {
        // One block in 100 stays, so that each chunk has some.
        let kept: Vec<Vec<u8>> = blocks(20_000, 400).into_iter().step_by(100).collect();
        let more: Vec<Vec<u8>> = blocks(20_000, 400).into_iter().step_by(100).collect();
        let secret = black_box(vec![0x4Cu8; 500]);
        let address = secret.as_ptr().addr();
        assert!(occurs_around(address, 0x4C));
        drop(secret);
        assert!(!occurs_around(address, 0x4C), "{:?}", current_arena_stats());
        assert!(kept.iter().chain(&more).all(|block| block.len() == 400));
    });
}
