//! Many arenas at once: the first have chunks, those opened later leave everything to the slab, until there is room again.

use std::hint::black_box;

use shockwave_alloc::{RequestArena, Shockwave, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// An arena that is open, and a block made in it.
fn open() -> (RequestArena, Box<[u8; 1000]>) {
    let arena = RequestArena::new();
    let block = arena.run(|| black_box(Box::new([7; 1000])));
    (arena, block)
}

fn chunks(open: &[(RequestArena, Box<[u8; 1000]>)]) -> u64 {
    open.iter().map(|(arena, _)| arena.stats().chunks).sum()
}

// One test: it is about the whole process.
#[test]
fn only_so_many_arenas_have_chunks_at_once() {
    for round in 0..3 {
        let before = stats();
        let first: Vec<_> = (0..100).map(|_| open()).collect();
        assert_eq!(chunks(&first), 100, "round {round}");
        let more: Vec<_> = (0..2000).map(|_| open()).collect();
        // 128 of all, some that have not been counted yet, and a 64th of the pages.
        assert!(chunks(&more) < 128, "round {round}: {} chunks", chunks(&more));
        assert!(more.iter().all(|(_, block)| block.iter().all(|byte| *byte == 7)));
        let during = stats();
        assert!(during.slab.bytes >= before.slab.bytes + 1800 * 1000, "{during}");

        // One that has a chunk goes on in it.
        let (arena, block) = &first[0];
        let another = arena.run(|| Box::new(1u64));
        assert_eq!(arena.stats().blocks, 2);
        drop((first.len(), another, block));

        // Blocks first, outside of their arenas, as unmodified code may do.
        for open in [more, first] {
            let (arenas, blocks): (Vec<_>, Vec<_>) = open.into_iter().unzip();
            drop(blocks);
            drop(arenas);
        }
        // There is room again.
        let again = open();
        assert_eq!(again.0.stats().chunks, 1, "round {round}");
        with_request_arena(|| {
            let block = black_box(Box::new(1u64));
            assert_eq!(shockwave_alloc::current_arena_stats().expect("entered").blocks, 1);
            drop(block);
        });
        drop((again.1, again.0));
    }
}
