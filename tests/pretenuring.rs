//! Pretenuring: what escapes again and again is placed outside of arenas, and survivors keep little memory.

#![cfg(feature = "tower")]

mod common;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::Full;
use shockwave_alloc::tower::RequestArenaLayer;
use tower::{Layer, ServiceExt, service_fn};

use common::of_mapping;
use shockwave_alloc::{
    ArenaFutureExt, RequestArena, Shockwave, Stats, current_arena_stats, stats, with_request_arena,
};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Tests count over the whole process, so one runs at a time.
fn alone() -> (MutexGuard<'static, ()>, Stats) {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    (guard, stats())
}

/// A small sequence of numbers that looks random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

/// A block of `size` bytes that carries its number in every byte.
fn block(number: usize, size: usize) -> Box<[u8]> {
    vec![number as u8; size].into_boxed_slice()
}

fn verify(number: usize, block: &[u8]) {
    assert!(block.iter().all(|&byte| byte == number as u8), "block {number} has changed");
}

/// A request of some 4 KiB in 40 objects, of which one of `kept` bytes is returned.
fn request(number: usize, kept: usize) -> Box<[u8]> {
    with_request_arena(|| {
        let scratch: Vec<Box<[u8]>> = (0..39).map(|part| block(part, 40 + part % 5 * 32)).collect();
        let kept = block(number, kept);
        black_box(&scratch);
        kept
    })
}

/// Bytes of pages that hold live blocks: of the slab, and chunks that are pinned.
fn held(since: &Stats) -> u64 {
    let now = stats();
    (now.slab_pages - since.slab_pages) * (64 << 10) + now.pinned_bytes - since.pinned_bytes
}

#[test]
fn four_hundred_thousand_requests_that_keep_100_bytes_in_a_cache() {
    const CACHE: usize = 100_000;
    let requests = if cfg!(debug_assertions) { 200_000 } else { 400_000 };
    std::thread::spawn(move || {
        let (_alone, before) = alone();
        let mut cache: VecDeque<Box<[u8]>> = VecDeque::with_capacity(CACHE + 1);
        for number in 0..requests {
            cache.push_back(request(number, 100));
            if cache.len() > CACHE {
                verify(number - CACHE, &cache.pop_front().expect("full"));
            }
        }
        let kept = (CACHE * 100) as u64;
        assert!(held(&before) < kept * 3 / 2, "{} bytes for {kept}", held(&before));
        for (index, block) in cache.iter().enumerate() {
            verify(requests - CACHE + index, block);
        }
    })
    .join()
    .expect("the requests");
}

#[test]
fn threads_that_share_a_cache_of_what_their_requests_leave() {
    const SHARDS: usize = 16;
    const CACHE: usize = 100_000;
    let (_alone, before) = alone();
    // Entries of one thread are replaced, and so freed, by others, at random.
    type Entry = Option<(usize, Box<[u8]>)>;
    let cache: Vec<Mutex<Vec<Entry>>> =
        (0..SHARDS).map(|_| Mutex::new((0..CACHE / SHARDS).map(|_| None).collect())).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                let mut numbers = Numbers(thread as u64 + 1);
                for turn in 0..100_000 {
                    let number = turn * 4 + thread;
                    let entry = request(number, 60 + number % 3 * 40);
                    let shard = &cache[numbers.below(SHARDS)];
                    let place = numbers.below(CACHE / SHARDS);
                    let old = shard.lock().expect("not poisoned")[place].replace((number, entry));
                    if let Some((number, old)) = old {
                        verify(number, &old);
                    }
                }
            });
        }
    });
    let mut kept = 0;
    for shard in &cache {
        for (number, entry) in shard.lock().expect("not poisoned").iter().flatten() {
            verify(*number, entry);
            kept += entry.len() as u64;
        }
    }
    let held = held(&before);
    assert!(held < kept * 3 / 2 + (2 << 20), "{held} bytes for {kept}\n{}", stats());
}

#[test]
fn statistics_explain_what_is_held() {
    std::thread::spawn(|| {
        let (_alone, _) = alone();
        // Without room that is never touched.
        let mut kept: Vec<Box<[u8]>> = Vec::with_capacity(200_000);
        kept.extend((0..200_000).map(|number| request(number, 100)));
        let now = stats();
        // Resident memory of the reservation is: pages of the slab but for what was purged inside them, pinned and open chunks, what is
        // kept for later, and the tables. Parts of slab pages that are not carved yet may have been touched in an earlier use.
        let beside = now.pinned_bytes + now.spare_bytes + now.dirty_bytes + now.mid.bytes + now.large.bytes;
        let least = now.slab_active_bytes + beside;
        let most = now.slab_pages * (64 << 10) - now.hole_bytes + beside;
        let resident = resident_in_reservation(kept[0].as_ptr().addr());
        assert!(most as f64 >= resident as f64 * 0.95, "{least} to {most} of {resident}\n{now}");
        assert!(least as f64 <= resident as f64 * 1.05, "{least} to {most} of {resident}\n{now}");
    })
    .join()
    .expect("the requests");
}

/// Bytes that the OS holds for the mapping around `address`, from the kernel's own account.
fn resident_in_reservation(address: usize) -> u64 {
    let kib = of_mapping(address, "Rss").expect("the kernel tells");
    kib.trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn survivors_of_random_sizes_and_lifetimes_stay_within_bounds() {
    std::thread::spawn(|| {
        let (_alone, before) = alone();
        let mut numbers = Numbers(7);
        let mut cache: Vec<(usize, Box<[u8]>)> = Vec::with_capacity(20_000);
        let mut kept = 0;
        for number in 0..200_000 {
            if numbers.below(10) < 3 {
                let size = 16 + numbers.below(1000);
                let entry = (number, request(number, size));
                kept += size;
                if cache.len() < 20_000 {
                    cache.push(entry);
                } else {
                    let place = numbers.below(cache.len());
                    let (number, old) = std::mem::replace(&mut cache[place], entry);
                    verify(number, &old);
                    kept -= old.len();
                }
            } else {
                verify(number, &request(number, 100));
            }
        }
        let held = held(&before);
        // The slab alone needs 1.5 times as much as it keeps here.
        assert!(held < kept as u64 * 7 / 4, "{held} bytes for {kept}\n{}", stats());
        cache.iter().for_each(|(number, block)| verify(*number, block));
    })
    .join()
    .expect("the requests");
}

#[test]
fn a_size_that_no_longer_escapes_comes_back_into_the_arena() {
    std::thread::spawn(|| {
        let (_alone, _) = alone();
        let mut kept = Vec::new();
        let mut request = |keeps: bool| {
            with_request_arena(|| {
                let block = black_box(block(1, 104));
                let stats = current_arena_stats().expect("entered");
                if keeps {
                    kept.push(block);
                }
                stats.pretenured_blocks == 0
            })
        };
        (0..1000).for_each(|_| _ = request(true));
        let mut in_arena = || request(false);
        assert!(!in_arena(), "a size that always escapes stays outside");
        let back = (0..100_000).position(|_| in_arena());
        assert!(back.is_some_and(|rounds| rounds > 0), "{back:?}");
        let share = (0..1000).filter(|_| in_arena()).count();
        assert!(share > 900, "{share} of 1000");
    })
    .join()
    .expect("the requests");
}

#[test]
fn shrunk_and_grown_survivors_are_recognised() {
    std::thread::spawn(|| {
        let (_alone, _) = alone();
        let mut kept = Vec::with_capacity(4000);
        let request = |grow: bool| {
            with_request_arena(|| {
                let mut text = String::with_capacity(if grow { 24 } else { 600 });
                text.push_str("survives");
                if grow {
                    text.reserve_exact(700);
                } else {
                    text.shrink_to(500);
                }
                (text, current_arena_stats().expect("entered").pretenured_blocks)
            })
        };
        let mut outside = 0;
        for number in 0..4000 {
            let (text, pretenured) = request(number % 2 == 0);
            assert_eq!(text, "survives");
            outside += u64::from(number >= 2000 && pretenured > 0);
            kept.push(text);
        }
        // What shrinks in place was allocated with 600 bytes, and that is the size to go by; what has grown moves out.
        assert!(outside > 900, "{outside}");
        let pinned = stats().pinned_bytes;
        assert!(pinned < 4 << 20, "{pinned}");
    })
    .join()
    .expect("the requests");
}

#[test]
fn an_arena_that_allocates_without_end_is_not_tracked_for_ever() {
    std::thread::spawn(|| {
        let (_alone, _) = alone();
        let kept: Vec<Box<[u8]>> = (0..3).map(|number| request(number, 200)).collect();
        let arena = RequestArena::new();
        arena.run(|| {
            for number in 0..50_000 {
                verify(number, &black_box(block(number, 56)));
            }
        });
        // Untracked, a block that is freed at once gives its place back.
        assert!(arena.stats().bytes < 1 << 20, "{arena:?}");
        kept.iter().enumerate().for_each(|(number, block)| verify(number, block));
    })
    .join()
    .expect("the requests");
}

#[test]
fn what_one_kind_of_request_leaves_says_nothing_about_another() {
    let (_alone, _) = alone();
    /// Two blocks of one size, of which the kind 0 keeps one, and how many of them were placed in the slab.
    fn two_blocks(kind: u64) -> (Option<Box<[u8]>>, u64) {
        let (scratch, kept) = (block(1, 104), block(2, 104));
        drop(black_box(scratch));
        ((kind == 0).then_some(kept), current_arena_stats().unwrap().pretenured_blocks)
    }
    fn poll<T>(future: impl Future<Output = T>) -> T {
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(context) {
            std::task::Poll::Ready(result) => result,
            std::task::Poll::Pending => panic!("nothing is waited for"),
        }
    }
    /// A request through the layer, to a path without digits.
    fn by_layer<const KIND: u64>() -> (Option<Box<[u8]>>, u64) {
        let answer = Arc::new(Mutex::new(None));
        let its = answer.clone();
        let service = RequestArenaLayer::new().layer(service_fn(move |_: http::Request<()>| {
            *its.lock().unwrap() = Some(two_blocks(KIND));
            std::future::ready(Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::default())))
        }));
        let path = ["/keep", "/list", "/find", "/login", "/health"][KIND as usize];
        let request = http::Request::get(path).body(()).unwrap();
        poll(service.oneshot(request)).unwrap();
        answer.lock().unwrap().take().unwrap()
    }
    /// A request of a kind of its own for each `KIND`: by key, by closure, by future, by path.
    fn request<const KIND: u64>(way: usize) -> (Option<Box<[u8]>>, u64) {
        match way {
            0 => RequestArena::builder().kind(KIND).build().run(|| two_blocks(KIND)),
            1 => with_request_arena(|| two_blocks(KIND)),
            2 => poll(async { two_blocks(KIND) }.in_request_arena()),
            _ => by_layer::<KIND>(),
        }
    }
    for way in 0..4 {
        let (mut kept, mut outside, mut others) = (Vec::new(), 0, [0; 4]);
        for _ in 0..2000 {
            let (block, placed) = request::<0>(way);
            kept.extend(block);
            outside += placed;
            let placed = [request::<1>(way), request::<2>(way), request::<3>(way), request::<4>(way)];
            others.iter_mut().zip(placed).for_each(|(sum, (_, placed))| *sum += placed);
        }
        kept.iter().for_each(|block| verify(2, block));
        assert!(outside > 2000, "{outside} of 4000 blocks were placed in the slab ({way})");
        // There are 16 numbers for kinds, so one of these may have the same.
        assert_eq!(others.into_iter().min(), Some(0), "{way}: {others:?}");
    }
}
