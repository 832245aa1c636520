//! Where pooled memory comes from, and that scopes and pools leave each other alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use shockwave_alloc::pool::{ArenaPool, BufferPool, Request, RequestPool, SlabPool, StandardPool};
use shockwave_alloc::{Mode, RequestArena, Shockwave, set_mode, stats};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// One test at a time: the numbers are the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fill(request: &mut Request) {
    request.set_method("POST");
    request.add_header("Host", "example.com");
    request.set_body([5; 1000]);
}

/// Bytes in slab pages and in bigger blocks.
fn heap_bytes() -> u64 {
    let stats = stats();
    stats.slab.bytes + stats.mid.bytes + stats.large.bytes
}

#[test]
fn each_pool_has_its_memory_from_where_it_says() {
    let _alone = alone();
    const COUNT: usize = 100;
    // Objects themselves are of the global heap in every pool; their storage is 4 KiB each.
    let measure = |pool: &dyn RequestPool| {
        let mut held = Vec::with_capacity(COUNT);
        let before = (stats(), heap_bytes());
        held.extend((0..COUNT).map(|_| pool.get()));
        held.iter_mut().for_each(|request| fill(request));
        let (now, heap) = (stats(), heap_bytes());
        let closed = now.arenas_closed;
        drop(held);
        let arenas = now.open_arenas - before.0.open_arenas;
        (now.backing_calls - before.0.backing_calls, heap - before.1, arenas, stats().arenas_closed - closed)
    };
    let objects = 300 * COUNT as u64;
    let storage = 4096 * COUNT as u64;
    let (calls, heap, arenas, closed) = measure(&StandardPool::new().with_capacity(4096));
    assert_eq!((calls, arenas, closed), (0, 0, 0));
    assert!(heap < objects, "the system's memory is not of ours: {heap}");
    let (calls, heap, arenas, closed) = measure(&SlabPool::new().with_capacity(4096));
    assert_eq!((calls, arenas, closed), (0, 0, 0));
    assert!((storage..storage + objects).contains(&heap), "{heap}");
    let (calls, heap, arenas, closed) = measure(&ArenaPool::new().with_capacity(4096));
    assert_eq!(
        (calls, arenas, closed),
        (0, COUNT as u64, COUNT as u64),
        "an arena each, reset when returned"
    );
    assert!(heap < objects, "{heap}");
}

#[test]
fn a_returned_arena_keeps_nothing_alive() {
    let _alone = alone();
    let pool = ArenaPool::new();
    let before = stats();
    for len in [10, 1000, 5000, 15_000, 100_000, 3 << 20, 1000] {
        for _ in 0..20 {
            let mut request = pool.get();
            fill(&mut request);
            request.set_body(vec![1; len]);
        }
    }
    let after = stats();
    assert_eq!(after.escaped_blocks, before.escaped_blocks, "everything was freed before its arena");
    assert_eq!(after.pinned_chunks, before.pinned_chunks);
    assert_eq!(after.open_arenas - before.open_arenas, 1);
    drop(pool);
    assert_eq!(stats().open_arenas, before.open_arenas);
}

#[test]
fn what_a_request_puts_into_a_pool_does_not_pin_its_arena() {
    let _alone = alone();
    let buffers = BufferPool::new();
    let (standard, slab, arena) = (StandardPool::new(), SlabPool::new(), ArenaPool::new());
    for _ in 0..3 {
        let scope = RequestArena::new();
        let mark = scope.run(|| {
            for pool in [&standard as &dyn RequestPool, &slab, &arena] {
                // More objects than the thread's stack holds, so that the shared list grows in here too.
                let mut held = std::array::from_fn::<_, 100, _>(|_| pool.get());
                held.iter_mut().for_each(|request| fill(request));
                drop(held);
                pool.warm_up(50);
                pool.stats();
            }
            let mut held = std::array::from_fn::<_, 100, _>(|_| buffers.get(2048));
            held.iter_mut().for_each(|buffer| buffer.put([1; 5000]));
            drop(held);
            drop(buffers.get(100_000));
            buffers.warm_up(10);
            Box::new(1)
        });
        assert_eq!(scope.stats().blocks, 1, "the mark, and nothing of the pools");
        drop(mark);
    }
}

#[test]
fn setting_fields_again_and_again_does_not_pile_up() {
    let _alone = alone();
    let pool = SlabPool::new();
    let before = heap_bytes();
    let mut request = pool.get();
    request.add_header("Host", "example.com");
    for round in 0..20_000 {
        // Neither is at the end when it is set, and each time it is a little longer.
        request.set_path(vec![b'p'; 300 + round % 200]);
        request.set_body(vec![b'b'; 300 + round % 200]);
    }
    let grown = heap_bytes().saturating_sub(before);
    assert!(grown < 100 << 10, "{grown} B for a request of 1 KB");
    assert_eq!(
        (request.header("host"), request.path().len()),
        (Some(&b"example.com"[..]), 300 + 19_999 % 200)
    );

    // The field that was set last makes way for its own new value.
    let pool = StandardPool::new();
    let mut request = pool.get();
    request.set_method("POST");
    (0..2000).for_each(|len| request.set_body(vec![b'b'; len]));
    drop(request);
    assert_eq!(pool.stats().bytes_allocated, 2048);
}

#[test]
fn the_mode_may_change_while_objects_are_in_use() {
    let _alone = alone();
    for pool in [&StandardPool::new() as &dyn RequestPool, &SlabPool::new(), &ArenaPool::new()] {
        let mut held = Vec::new();
        for mode in [Mode::Arena, Mode::Standard, Mode::Slab, Mode::Arena, Mode::Slab, Mode::Standard] {
            set_mode(mode);
            let mut request = pool.get();
            fill(&mut request);
            held.push(request);
            // Grow an older one under the new mode.
            held[0].add_header("mode", vec![b'm'; 3000]);
            if held.len() > 3 {
                drop(held.remove(1));
            }
            assert!(held.iter().all(|request| request.body() == [5; 1000]));
        }
        held.clear();
        assert!(pool.check_leaks(0).is_ok());
        set_mode(Mode::Arena);
    }
}

#[test]
fn a_dropped_pool_gives_everything_back() {
    let _alone = alone();
    let run = || {
        let buffers = BufferPool::new();
        let (slab, arena) = (SlabPool::new(), ArenaPool::new());
        slab.warm_up(500);
        arena.warm_up(100);
        buffers.warm_up(5);
        drop((buffers.get(100_000), slab.get_response(), arena.get()));
    };
    run();
    let before = (heap_bytes(), stats().open_arenas);
    (0..5).for_each(|_| run());
    assert_eq!((heap_bytes(), stats().open_arenas), before);
}
