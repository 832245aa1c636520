//! Limits to the address space (`ulimit -v`): the reservation shrinks until the OS agrees, and what does not
//! fit it goes to the backing allocator.

mod child;
mod churn;

use churn::{Block, Random, poison};
use shockwave_alloc::{Mode, Shockwave, mode, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const MIB: u64 = 1 << 20;

/// Allocates until the reservation is used up and `beyond` more bytes have come from the backing allocator,
/// then frees.
fn use_up(name: &str, part: &str, limit: u64, beyond: u64, make: fn(&mut Random) -> Option<Block>) {
    if child::part().is_none() {
        let setup = format!("ulimit -v {}", limit >> 10);
        child::run(child::command_after(&setup, name, part));
        return;
    }
    assert_eq!(mode(), Mode::Arena);
    let before = stats();
    assert!(before.reserved_bytes >= MIB, "{before}");
    assert!(before.reserved_bytes <= limit / 2, "the program needs address space of its own\n{before}");
    assert_eq!((before.fallbacks, before.backing_calls), (0, 0));

    let mut random = Random::new(limit);
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = 0;
    loop {
        let now = stats();
        if now.fallbacks == 0 {
            inside = blocks.iter().map(|block| block.size() as u64).sum::<u64>();
        }
        if now.backing.bytes >= beyond {
            break;
        }
        assert!(inside < limit, "no fallback is counted\n{now}");
        for _ in 0..200 {
            // Never a failure while the backing allocator has memory.
            blocks.push(make(&mut random).expect("there is memory"));
        }
    }
    let full = stats();
    assert!(
        inside > before.reserved_bytes / 3,
        "{inside} B were allocated before the first fallback\n{full}"
    );
    assert!(full.fallbacks > 0 && full.backing.blocks > 0);
    assert!(full.committed_bytes <= full.reserved_bytes);

    // Frees and reallocations find out where each block lives.
    blocks.iter().for_each(Block::check);
    let count = blocks.len();
    for block in blocks.iter_mut().step_by(7).take(500) {
        let size = block.size();
        block.resize(size + 1 + size / 2);
        block.resize(size);
    }
    let mut n = 0;
    blocks.retain(|_| {
        n += 1;
        n % 3 == 0
    });
    poison();
    blocks.iter().for_each(Block::check);
    assert!(blocks.len() >= count / 3);
    drop(blocks);
    let empty = stats();
    assert!(empty.backing.blocks <= 2, "blocks of the backing allocator are left\n{full}\n{empty}");
    assert_eq!((empty.mid.blocks, empty.large.blocks, empty.pinned_chunks), (0, 0, 0), "{empty}");

    // There is room again, so nothing more falls back.
    let mut again: Vec<Block> = Vec::new();
    let mut bytes = 0;
    while bytes < before.reserved_bytes / 4 {
        let block = make(&mut random).expect("there is memory");
        bytes += block.size() as u64;
        again.push(block);
    }
    assert_eq!(stats().fallbacks, empty.fallbacks, "{}", stats());
}

fn mixed(random: &mut Random) -> Option<Block> {
    let (size, align, seed) = (random.size(), random.align().min(4096), random.next());
    Block::try_new(size, align, seed)
}

fn small(random: &mut Random) -> Option<Block> {
    Block::try_new(1 + random.below(8000), 8, random.next())
}

fn escaped(random: &mut Random) -> Option<Block> {
    with_request_arena(|| Block::try_new(4000 + random.below(8000), 8, random.next()))
}

#[test]
fn mixed_blocks_under_400_mib() {
    use_up("mixed_blocks_under_400_mib", "mixed", 400 * MIB, 20 * MIB, mixed);
}

#[test]
fn small_blocks_under_200_mib() {
    use_up("small_blocks_under_200_mib", "small", 200 * MIB, 10 * MIB, small);
}

#[test]
fn mixed_blocks_under_1_gib() {
    use_up("mixed_blocks_under_1_gib", "mixed", 1024 * MIB, 10 * MIB, mixed);
}

/// A chunk for each request: the reservation is used up by few bytes, and further scopes allocate outside.
#[test]
fn requests_under_100_mib() {
    const NAME: &str = "requests_under_100_mib";
    if child::part().is_none() {
        child::run(child::command_after("ulimit -v 102400", NAME, "requests"));
        return;
    }
    let mut random = Random::new(1);
    let mut kept = Vec::new();
    while stats().fallbacks < 1000 {
        kept.extend((0..50).map(|_| escaped(&mut random).expect("there is memory")));
        assert!(kept.len() < 20_000, "no fallback is counted");
    }
    let full = stats();
    assert!(full.pinned_chunks > 0 && full.pinned_bytes < full.reserved_bytes, "{full}");
    poison();
    kept.iter().for_each(Block::check);
    drop(kept);
    let empty = stats();
    assert_eq!((empty.pinned_chunks, empty.backing.blocks), (0, 0), "{full}\n{empty}");
    // Scopes have chunks again.
    let arena = shockwave_alloc::RequestArena::new();
    let blocks: Vec<Block> = arena.run(|| (0..100).map(|n| Block::new(100, 8, n)).collect());
    assert!(arena.stats().blocks >= 100);
    drop(blocks);
    assert_eq!(stats().fallbacks, empty.fallbacks);
}
