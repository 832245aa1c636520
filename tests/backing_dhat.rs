//! Over dhat's profiler, which counts what reaches it and allocates for itself while it does so.

mod backing;
mod child;
mod churn;

use churn::{Block, Random, poison};
use dhat::{HeapStats, Profiler};
use shockwave_alloc::{Mode, RequestArena, Shockwave, set_mode, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave<dhat::Alloc> = Shockwave::with_backing(dhat::Alloc);

backing_tests!();

#[test]
fn dhat_sees_the_blocks_of_a_program_in_standard_mode() {
    if !child::alone("dhat_sees_the_blocks_of_a_program_in_standard_mode") {
        return;
    }
    set_mode(Mode::Standard);
    let _profiler = Profiler::builder().testing().build();
    let before = HeapStats::get();
    let blocks = [10, 100, 1000, 30_000, 2_000_000].map(|size| Block::new(size, 8, 1));
    let full = HeapStats::get();
    assert_eq!(full.total_blocks - before.total_blocks, 5);
    assert_eq!(full.curr_bytes - before.curr_bytes, 2_031_110);
    drop(blocks);
    let empty = HeapStats::get();
    assert_eq!((empty.curr_blocks, empty.curr_bytes), (before.curr_blocks, before.curr_bytes));
    with_request_arena(|| backing::request(1));
    assert!(HeapStats::get().total_blocks > empty.total_blocks + 33);
}

#[test]
fn dhat_sees_no_request_in_the_other_modes() {
    if !child::alone("dhat_sees_no_request_in_the_other_modes") {
        return;
    }
    let _profiler = Profiler::builder().testing().build();
    let before = HeapStats::get();
    for mode in [Mode::Slab, Mode::Arena] {
        set_mode(mode);
        for number in 0..200 {
            with_request_arena(|| backing::request(number));
        }
        assert_eq!(HeapStats::get(), before, "{mode}");
    }
    assert_eq!(stats().backing_calls, 0);
}

#[test]
fn what_dhat_allocates_for_itself_stays_out_of_the_arena() {
    if !child::alone("what_dhat_allocates_for_itself_stays_out_of_the_arena") {
        return;
    }
    let mut random = Random::new(1);
    set_mode(Mode::Standard);
    // dhat does not know these, so it takes a backtrace of each reallocation and begins a new record.
    let mut blocks: Vec<Block> = (0..3000).map(|_| Block::new(1 + random.below(500), 8, 7)).collect();
    let profiler = Profiler::builder().testing().build();
    set_mode(Mode::Arena);
    let before = stats();
    let arena = RequestArena::new();
    let slab = stats().slab;
    arena.run(|| {
        let witness = std::hint::black_box(Box::new(7u64));
        let entered = arena.stats();
        assert!(entered.blocks >= 1);
        for (n, block) in blocks.iter_mut().enumerate() {
            block.resize(1 + n % 700);
        }
        let now = arena.stats();
        assert_eq!(
            (now.blocks, now.bytes),
            (entered.blocks, entered.bytes),
            "dhat's records are in the arena"
        );
        // Frees have dhat look its records up.
        blocks.truncate(2000);
        assert_eq!(arena.stats().blocks, entered.blocks);
        drop(witness);
    });
    assert!(stats().slab.blocks > slab.blocks, "dhat has allocated nothing for itself");
    assert_eq!(stats().backing_calls - before.backing_calls, 4000);
    drop(arena);
    assert_eq!(stats().escaped_blocks, before.escaped_blocks);
    assert_eq!(stats().pinned_chunks, 0);
    poison();
    // Its records are intact after the arena's end.
    let seen = HeapStats::get();
    assert_eq!(seen.curr_blocks, 2000);
    assert_eq!(seen.curr_bytes, blocks.iter().map(Block::size).sum::<usize>());
    blocks.iter().for_each(Block::check);
    drop(blocks);
    let seen = HeapStats::get();
    assert_eq!((seen.curr_blocks, seen.curr_bytes, seen.total_blocks), (0, 0, 3000));
    drop(profiler);
}
