//! Many arenas at once: the first have chunks, those opened later leave everything to the slab, until there is room again.

use std::hint::black_box;

use common::alone;
use shockwave_alloc::{RequestArena, Shockwave, stats, with_request_arena};

mod common;

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

#[test]
fn only_so_many_arenas_have_chunks_at_once() {
    let _alone = alone();
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

#[cfg(feature = "tower")]
#[test]
fn requests_without_a_chunk_do_not_count_as_small() {
    use http::{Request, Response};
    use http_body_util::BodyExt;
    use shockwave_alloc::ArenaHandle;
    use shockwave_alloc::tower::RequestArenaLayer;
    use tower::{Layer, Service, service_fn};

    let _alone = alone();
    let mut service =
        RequestArenaLayer::new().skip_small(true).layer(service_fn(async |request: Request<()>| {
            drop((0..200).map(|number| format!("{number}")).collect::<Vec<_>>());
            let arena = request.extensions().get::<ArenaHandle>().expect("the layer adds it");
            let (has_one, served) = (arena.is_some(), arena.stats().map_or(0, |stats| stats.allocations));
            Ok::<_, std::convert::Infallible>(Response::new(format!("{has_one} {}", served > 0)))
        }));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut answers = |answer: &str| {
        let mut is_answer = async || {
            let response = service.call(Request::new(())).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes() == answer
        };
        (0..1_000).filter(|_| runtime.block_on(is_answer())).count()
    };
    let crowd: Vec<_> = (0..2_000).map(|_| open()).collect();
    assert_eq!(answers("true false"), 1_000);
    let (arenas, blocks): (Vec<_>, Vec<_>) = crowd.into_iter().unzip();
    drop(blocks);
    drop(arenas);
    assert_eq!(answers("true true"), 1_000);
}
