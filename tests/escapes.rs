//! Objects that outlive the scope they were allocated in: they stay valid, keep their chunk and nothing else,
//! and the chunk comes back with the last of them.

mod churn;

use std::collections::HashMap;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;

use churn::{Block, Random, poison};
use shockwave_alloc::{RequestArena, Shockwave, Stats, outside_arena, stats, with_request_arena};

// What is tested here is what becomes of escaped blocks in arenas; pretenuring would place them outside.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// Statistics are the process's, so tests run one at a time.
fn alone() -> (MutexGuard<'static, ()>, Stats) {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    (guard, stats())
}

fn pinned_since(before: &Stats) -> u64 {
    stats().pinned_chunks - before.pinned_chunks
}

fn escaped_since(before: &Stats) -> u64 {
    stats().escaped_blocks - before.escaped_blocks
}

/// The work of a request that leaves nothing: some 4 KiB of small objects.
fn request(number: usize) -> usize {
    let fields: Vec<String> = (0..20).map(|field| format!("field {field} of request {number}")).collect();
    let bodies: Vec<Vec<u8>> = (0..5).map(|body| vec![body as u8; 300]).collect();
    black_box(&bodies);
    fields.iter().map(String::len).sum()
}

/// The 100 bytes that a request leaves behind.
fn left_behind(number: usize) -> String {
    format!("{number:-^100}")
}

#[test]
fn a_global_that_is_built_in_a_scope_stays_valid() {
    static TABLE: OnceLock<HashMap<String, Vec<usize>>> = OnceLock::new();
    static GROWING: Mutex<Option<HashMap<usize, String>>> = Mutex::new(None);
    let (_alone, before) = alone();
    let build = || (0..100).map(|n| (format!("key {n}"), vec![n; 5])).collect();
    with_request_arena(|| {
        assert_eq!(TABLE.get_or_init(build).len(), 100);
        request(0);
    });
    assert!(escaped_since(&before) >= 200, "the table was not built in the arena");
    // The second one is built in one scope and grows in many.
    for round in 0..1000 {
        with_request_arena(|| {
            request(round);
            let mut growing = GROWING.lock().unwrap();
            growing.get_or_insert_with(HashMap::new).insert(round, left_behind(round));
        });
        if round % 100 == 0 {
            poison();
        }
    }
    poison();
    let table = TABLE.get().unwrap();
    assert!((0..100).all(|n| table[&format!("key {n}")] == [n; 5]));
    let growing = GROWING.lock().unwrap().take().unwrap();
    assert!((0..1000).all(|round| growing[&round] == left_behind(round)));
}

#[test]
fn a_value_returned_from_the_scope_stays_valid() {
    let (_alone, before) = alone();
    let values: Vec<String> = with_request_arena(|| (0..50).map(left_behind).collect());
    poison();
    assert!(values.iter().enumerate().all(|(n, value)| *value == left_behind(n)));
    assert!(pinned_since(&before) >= 1);
    drop(values);
    assert_eq!(pinned_since(&before), 0);
}

#[test]
fn a_value_sent_to_another_thread_stays_valid() {
    let (_alone, before) = alone();
    let (sender, receiver) = sync_channel::<(usize, Vec<String>)>(8);
    let other = thread::spawn(move || {
        let mut kept = Vec::new();
        for (number, values) in receiver {
            request(number);
            assert!(values.iter().all(|value| *value == left_behind(number)));
            kept.push((number, values));
        }
        poison();
        assert_eq!(kept.len(), 500);
        assert!(
            kept.iter().all(|(number, values)| values.iter().all(|value| *value == left_behind(*number)))
        );
    });
    for number in 0..500 {
        with_request_arena(|| {
            let values = (0..10).map(|_| left_behind(number)).collect();
            outside_arena(|| sender.send((number, values)).unwrap());
            request(number);
        });
    }
    drop(sender);
    poison();
    other.join().unwrap();
    assert_eq!(pinned_since(&before), 0);
}

#[test]
fn values_outlive_the_thread_that_made_them() {
    let (_alone, before) = alone();
    let mut random = Random::new(1);
    let mut kept: Vec<Vec<Block>> = Vec::new();
    for round in 0..200 {
        let made = thread::spawn(move || {
            let mut random = Random::new(round);
            with_request_arena(|| (0..30).map(|_| Block::random(&mut random)).collect())
        });
        kept.push(made.join().unwrap());
        if kept.len() > 20 {
            kept.swap_remove(random.below(20));
        }
    }
    poison();
    kept.iter().flatten().for_each(Block::check);
    assert!(pinned_since(&before) > 0);
    drop(kept);
    assert_eq!(pinned_since(&before), 0);
}

#[test]
fn a_thread_that_only_frees_gives_the_chunks_back() {
    let (_alone, before) = alone();
    for round in 0..50 {
        let blocks: Vec<Block> =
            with_request_arena(|| (0..2000).map(|n| Block::new(100, 8, n + round)).collect());
        assert!(pinned_since(&before) >= 3);
        thread::spawn(move || drop(blocks)).join().unwrap();
        assert_eq!(pinned_since(&before), 0);
    }
}

#[test]
fn a_panic_payload_leaves_the_scope() {
    struct Payload(Vec<String>);
    let (_alone, before) = alone();
    let arena = RequestArena::new();
    let caught = catch_unwind(AssertUnwindSafe(|| {
        with_request_arena(|| {
            let _lost = request(1);
            arena.run(|| resume_unwind(Box::new(Payload((0..10).map(left_behind).collect()))))
        })
    }));
    let payload = caught.unwrap_err();
    poison();
    // Both scopes are left: what is allocated now is in neither.
    let blocks = arena.stats().blocks;
    let outside = black_box(Box::new(1u64));
    assert_eq!(arena.stats().blocks, blocks);
    assert!(blocks >= 12);
    let payload = payload.downcast::<Payload>().ok().unwrap();
    assert!(payload.0.iter().enumerate().all(|(n, value)| *value == left_behind(n)));
    drop((payload, outside, arena));
    assert_eq!(pinned_since(&before), 0);
}

/// A cache that keeps what requests leave behind and evicts at random.
struct Cache {
    entries: Vec<(usize, String)>,
    limit: usize,
}

impl Cache {
    fn new(limit: usize) -> Cache {
        Cache { entries: Vec::with_capacity(limit), limit }
    }

    fn insert(&mut self, random: &mut Random, number: usize, value: String) -> Option<(usize, String)> {
        if self.entries.len() < self.limit {
            self.entries.push((number, value));
            return None;
        }
        let place = random.below(self.limit);
        let evicted = std::mem::replace(&mut self.entries[place], (number, value));
        assert_eq!(evicted.1, left_behind(evicted.0));
        Some(evicted)
    }

    fn check(&self) {
        assert!(self.entries.iter().all(|(number, value)| *value == left_behind(*number)));
    }
}

#[test]
fn twenty_thousand_requests_leave_entries_in_a_cache() {
    let (_alone, before) = alone();
    let mut random = Random::new(2);
    let mut cache = Cache::new(500);
    for number in 0..20_000 {
        let evicted = with_request_arena(|| {
            request(number);
            // Freed within a later scope, or after it.
            let evicted = cache.insert(&mut random, number, left_behind(number));
            if number % 2 == 0 { evicted } else { None }
        });
        drop(evicted);
        if number % 1000 == 999 {
            cache.check();
            let pinned = pinned_since(&before);
            assert!(pinned <= 500 + 8, "{pinned} chunks are pinned by 500 entries");
        }
        if number % 5000 == 0 {
            poison();
        }
    }
    cache.check();
    assert!(pinned_since(&before) > 0);
    drop(cache);
    assert_eq!(pinned_since(&before), 0);
}

#[test]
fn two_threads_exchange_what_their_requests_leave_behind() {
    let (_alone, before) = alone();
    let shared = Arc::new([const { Mutex::new(None::<(usize, String)>) }; 64]);
    let work = |seed: u64| {
        let shared = shared.clone();
        move || {
            let mut random = Random::new(seed);
            let mut cache = Cache::new(200);
            for round in 0..10_000 {
                let number = round * 2 + seed as usize;
                with_request_arena(|| {
                    request(number);
                    let Some(evicted) = cache.insert(&mut random, number, left_behind(number)) else {
                        return;
                    };
                    // The other thread finds it there, keeps it for some time and frees it.
                    let found = shared[random.below(64)].lock().unwrap().replace(evicted);
                    if let Some((number, value)) = found {
                        cache.insert(&mut random, number, value);
                    }
                });
            }
            cache.check();
        }
    };
    let threads = [0, 1].map(|seed| thread::spawn(work(seed)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for slot in shared.iter() {
        let left = slot.lock().unwrap().take();
        assert!(left.is_none_or(|(number, value)| value == left_behind(number)));
    }
    assert_eq!(pinned_since(&before), 0);
}

#[test]
fn escaped_blocks_are_counted_exactly() {
    let (_alone, before) = alone();
    let mut kept: Vec<Box<[u64; 4]>> = Vec::with_capacity(10);
    with_request_arena(|| {
        for n in 0..10 {
            let block = black_box(Box::new([n; 4]));
            if n < 7 {
                kept.push(block);
            }
        }
    });
    assert_eq!((escaped_since(&before), pinned_since(&before)), (7, 1));
    while kept.len() > 1 {
        kept.pop();
        assert_eq!(pinned_since(&before), 1);
    }
    assert_eq!(*kept[0], [0; 4]);
    kept.pop();
    assert_eq!((escaped_since(&before), pinned_since(&before)), (7, 0));
}

#[test]
fn an_escaped_vector_that_grows_leaves_its_chunk() {
    let (_alone, before) = alone();
    let mut vector = with_request_arena(|| vec![7u8; 100]);
    assert_eq!(pinned_since(&before), 1);
    vector.resize(200, 7);
    assert_eq!(pinned_since(&before), 0);
    // The other way round: what is outside does not come in.
    with_request_arena(|| vector.resize(900, 7));
    assert_eq!((escaped_since(&before), pinned_since(&before)), (1, 0));
    assert_eq!(vector, [7; 900]);
}

#[test]
fn a_block_is_freed_in_a_later_scope_of_the_same_record() {
    let (_alone, before) = alone();
    // Arena records are used again, so the later arena may well be at the address of the earlier one.
    let mut old: Vec<Block> = with_request_arena(|| (0..20).map(|n| Block::new(64, 8, n)).collect());
    for _ in 0..100 {
        old = with_request_arena(|| {
            let new: Vec<Block> = (0..20).map(|n| Block::new(64, 8, n * 3)).collect();
            drop(old);
            new.iter().for_each(Block::check);
            request(0);
            new
        });
    }
    drop(old);
    assert_eq!(pinned_since(&before), 0);
}

#[test]
fn another_thread_frees_while_the_scope_is_open() {
    let (_alone, before) = alone();
    let (to_other, receiver) = sync_channel::<Vec<Block>>(1);
    let (sender, freed) = channel();
    let other = thread::spawn(move || {
        for mut blocks in receiver {
            // The newest block, on top of the chunk, is the first to go.
            while blocks.pop().is_some() {}
            drop(blocks);
            sender.send(()).unwrap();
        }
    });
    for round in 0..300 {
        with_request_arena(|| {
            let mut random = Random::new(round);
            let kept: Vec<Block> = (0..20).map(|n| Block::new(1 + random.below(300), 8, n)).collect();
            let sent: Vec<Block> = (0..100).map(|n| Block::new(1 + random.below(300), 8, n)).collect();
            outside_arena(|| {
                to_other.send(sent).unwrap();
                freed.recv().unwrap();
            });
            let later: Vec<Block> = (0..20).map(|n| Block::new(1 + random.below(300), 8, n)).collect();
            kept.iter().chain(&later).for_each(Block::check);
        });
        assert_eq!((escaped_since(&before), pinned_since(&before)), (0, 0));
    }
    drop(to_other);
    other.join().unwrap();
}

#[test]
fn another_thread_frees_while_the_scope_ends() {
    let (_alone, before) = alone();
    let (to_other, receiver) = sync_channel::<Vec<Block>>(4);
    let other = thread::spawn(move || receiver.into_iter().for_each(drop));
    let mut committed = 0;
    for round in 0..5000u64 {
        with_request_arena(|| {
            let mut random = Random::new(round);
            let sent = (0..1 + random.below(40)).map(|n| Block::new(16 << (n % 5), 8, round)).collect();
            outside_arena(|| to_other.send(sent).unwrap());
        });
        if round == 1000 {
            committed = stats().committed_bytes;
        }
    }
    drop(to_other);
    other.join().unwrap();
    let now = stats();
    assert_eq!(now.pinned_chunks, before.pinned_chunks);
    assert!(now.committed_bytes <= committed + (8 << 20), "{now}");
}

#[test]
fn values_of_nested_scopes_cross_them_in_all_directions() {
    let (_alone, before) = alone();
    for round in 0..200u64 {
        let kept = with_request_arena(|| {
            let early: Vec<Block> = (0..10).map(|n| Block::new(50, 8, n)).collect();
            let mut on_top = vec![round as u8; 64];
            let (inner, innermost) = with_request_arena(|| {
                // Freed and grown in a scope that is not theirs, while on top of the outer arena's chunk.
                on_top.resize(128, round as u8);
                drop(early);
                let inner: Vec<Block> = (0..10).map(|n| Block::new(70, 16, n)).collect();
                let innermost = with_request_arena(|| Block::new(90, 8, round));
                request(0);
                (inner, innermost)
            });
            let late: Vec<Block> = (0..10).map(|n| Block::new(50, 8, n)).collect();
            request(1);
            assert_eq!(on_top, [round as u8; 128]);
            (on_top, inner, innermost, late)
        });
        if round % 50 == 0 {
            poison();
        }
        kept.1.iter().chain(&kept.3).for_each(Block::check);
        assert_eq!(kept.0, [round as u8; 128]);
        // One chunk for each of the three arenas; the vector has moved out of its own.
        assert_eq!(pinned_since(&before), 3);
        drop(kept);
        assert_eq!(pinned_since(&before), 0);
    }
}
