//! A reservation of 6 MiB: most of the program lives with the backing allocator. Each size class takes a page
//! of 64 KiB per thread, so with much less even the harness does not fit.

mod churn;

use churn::{Block, Random, poison};
use shockwave_alloc::{RequestArena, Shockwave, purge, stats, warm_up, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_reservation(6 << 20);

/// Blocks until `fallbacks` more of them have come from the backing allocator.
fn fill(random: &mut Random, fallbacks: u64, make: impl Fn(&mut Random) -> Block) -> Vec<Block> {
    let before = stats().fallbacks;
    let mut blocks = Vec::new();
    while stats().fallbacks < before + fallbacks {
        blocks.push(make(random));
        assert!(blocks.len() < 100_000, "no fallback is counted");
    }
    blocks
}

/// Allocates, reallocates and frees inside the reservation and outside.
fn beyond_the_border(round: usize) {
    let makers: [fn(&mut Random) -> Block; 4] = [
        Block::random_small,
        Block::random,
        |random| with_request_arena(|| Block::random_small(random)),
        |random| Block::new(20 << 10, 64, random.next()),
    ];
    let mut random = Random::new(round as u64);
    let before = stats();
    let mut blocks = fill(&mut random, 300, makers[round % 4]);
    let full = stats();
    assert_eq!(full.fallbacks, before.fallbacks + 300);
    assert!(full.backing.blocks >= before.backing.blocks + 200, "{before}\n{full}");
    assert!(full.committed_bytes <= full.reserved_bytes);
    // Growing and shrinking across the border, from within a scope as well.
    with_request_arena(|| blocks.iter_mut().step_by(3).for_each(|block| block.resize(random.size())));
    blocks.iter_mut().step_by(5).for_each(|block| block.resize(random.size()));
    poison();
    blocks.iter().for_each(Block::check);
    drop(blocks);
    let empty = stats();
    assert!(empty.backing.blocks <= before.backing.blocks + 5, "{before}\n{empty}");
    assert_eq!(empty.pinned_chunks, before.pinned_chunks);
}

// One test, because there is little room and all of it shares the statistics.
#[test]
fn what_does_not_fit_goes_to_the_backing_allocator() {
    let reserved = stats().reserved_bytes;
    assert!((5 << 20..=6 << 20).contains(&reserved), "{reserved}");
    // What fits in a new thread; it takes its memory from the pages that are free, and returns it when it
    // ends.
    let fits = || {
        let thread = std::thread::spawn(|| fill(&mut Random::new(2), 1, |_| Block::new(1000, 8, 3)).len());
        thread.join().unwrap()
    };
    let first = fits();
    assert!(first > 2000, "{first} blocks of 1000 B fit 6 MiB\n{}", stats());
    for round in 0..12 {
        std::thread::spawn(move || beyond_the_border(round)).join().unwrap();
        let now = fits();
        assert!(now >= first - 200, "{first} blocks fitted at first, {now} after round {round}\n{}", stats());
    }

    // A wish that cannot be fulfilled keeps nothing.
    assert_eq!(warm_up(1, 1 << 30), 0);
    purge();
    let now = fits();
    assert!(now >= first - 200, "{first} blocks fitted at first, {now} after a failed warm-up\n{}", stats());
    with_request_arena(|| Block::new(100, 8, 1).check());

    let mut random = Random::new(1);
    // A scope without room for a chunk has no effect on the program, and one with room has a chunk.
    let all = fill(&mut random, 200, |random| Block::new(4000, 8, random.next()));
    let arena = RequestArena::new();
    let outside: Vec<Block> = arena.run(|| (0..500).map(|n| Block::new(3000, 8, n)).collect());
    assert!(stats().backing.blocks > 500);
    poison();
    drop(all);
    let inside: Vec<Block> = arena.run(|| (0..5).map(|n| Block::new(100, 8, n)).collect());
    assert!(arena.stats().blocks >= 5, "{:?}", arena.stats());
    outside.iter().chain(&inside).for_each(Block::check);
    drop((outside, inside, arena));

    // Several threads at the border, with heaps of their own or without.
    let threads: Vec<_> = (0..6)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut random = Random::new(seed);
                let mut blocks = Vec::new();
                for round in 0..3000 {
                    let block = with_request_arena(|| Block::random_small(&mut random));
                    blocks.push(if round % 2 == 0 { block } else { Block::random_small(&mut random) });
                    if blocks.len() > 400 {
                        blocks.swap_remove(random.below(400));
                    }
                }
                blocks
            })
        })
        .collect();
    let kept: Vec<Vec<Block>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    kept.iter().flatten().for_each(Block::check);
    drop(kept);
    assert_eq!(stats().pinned_chunks, 0);
}
