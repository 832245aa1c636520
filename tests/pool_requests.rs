//! Requests and responses: what the three pools have in common.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shockwave_alloc::Shockwave;
use shockwave_alloc::pool::{
    ArenaMemory, ArenaPool, Memory, MessagePool, PooledBuffer, PooledRequest, PooledResponse, Request,
    RequestPool, SlabMemory, SlabPool, StandardPool, SystemMemory,
};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

// A pool may be a static, and what is taken from it may be held across an await.
static_assertions::assert_impl_all!(MessagePool<ArenaMemory>: Send, Sync);
static_assertions::assert_impl_all!(PooledRequest<'static>: Send, Sync);
static_assertions::assert_impl_all!(PooledResponse<'static>: Send, Sync);
static_assertions::assert_impl_all!(PooledBuffer<'static>: Send, Sync);

/// Calls `test` with a new pool of each kind.
fn each(test: impl Fn(&str, &dyn RequestPool)) {
    test("standard", &StandardPool::new());
    test("slab", &SlabPool::new());
    test("arena", &ArenaPool::new());
}

/// Random numbers below `bound` that repeat.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = self.below(most + 1);
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// The seed's typical request: 4 headers and a body of 512 B.
fn fill_typical(request: &mut Request) {
    request.set_method("GET");
    request.set_path("/api/v1/users/12345?expand=profile");
    request.set_proto("HTTP/1.1");
    request.add_header("Host", "example.com");
    request.add_header("Content-Type", "application/json");
    request.add_header("User-Agent", "Go-http-client/1.1");
    request.add_header("Accept", "*/*");
    request.set_body([b'x'; 512]);
}

#[derive(Default)]
struct Model {
    fields: [Vec<u8>; 4],
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    close: bool,
}

impl Model {
    fn check(&self, request: &Request) {
        let fields = [request.method(), request.path(), request.proto(), request.body()];
        assert_eq!(fields, self.fields.each_ref().map(Vec::as_slice));
        assert!(
            request
                .headers()
                .eq(self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())))
        );
        assert_eq!(request.headers().len(), self.headers.len());
        assert_eq!((request.content_length(), request.close()), (self.fields[3].len(), self.close));
    }
}

#[test]
fn random_programs_agree_with_a_model() {
    each(|_, pool| {
        let mut rng = Rng(7);
        for round in 0..150 {
            let mut request = pool.get();
            let mut model = Model::default();
            let most = [8, 100, 5000, 40_000][round % 4];
            for _ in 0..rng.below(60) {
                match rng.below(12) {
                    0..=3 => {
                        let (name, value) = (rng.bytes(40.min(most)), rng.bytes(most));
                        request.add_header(&name, &value);
                        model.headers.push((name, value));
                    }
                    4..=10 => {
                        let (field, bytes) = (rng.below(4), rng.bytes(most));
                        match field {
                            0 => request.set_method(&bytes),
                            1 => request.set_path(&bytes),
                            2 => request.set_proto(&bytes),
                            _ => request.set_body(&bytes),
                        }
                        model.fields[field] = bytes;
                    }
                    _ => {
                        request.set_close(true);
                        model.close = true;
                        if rng.below(4) == 0 {
                            request.clear();
                            model = Model::default();
                        }
                    }
                }
                model.check(&request);
            }
        }
        assert_eq!((pool.stats().total_requests, pool.stats().created), (150, 1));
    });
}

#[test]
fn a_returned_object_comes_back_empty() {
    each(|name, pool| {
        let mut request = pool.get();
        fill_typical(&mut request);
        request.set_close(true);
        let address: *const Request = &*request;
        drop(request);
        let request = pool.get();
        assert!(std::ptr::eq(address, &*request), "{name}: the object used last is the hot one");
        Model::default().check(&request);

        let mut response = pool.get_response();
        response.set_status(404);
        response.set_reason("Not Found");
        response.set_proto("HTTP/1.1");
        response.add_header("a", "1");
        response.add_header("A", "2");
        response.set_body("none");
        assert_eq!((response.header("A"), response.headers().len()), (Some(&b"1"[..]), 2));
        assert_eq!(
            (response.status(), response.reason(), response.body()),
            (404, &b"Not Found"[..], &b"none"[..])
        );
        drop(response);
        let response = pool.get_response();
        assert_eq!((response.status(), response.headers().len(), response.content_length()), (200, 0, 0));
        assert!(
            response.reason().is_empty() && response.proto().is_empty() && response.header("a").is_none()
        );
    });
}

#[test]
fn the_numbers_are_real() {
    each(|name, pool| {
        assert_eq!(pool.stats().hit_rate(), 0.0);
        let held: Vec<_> = (0..3).map(|_| pool.get()).collect();
        assert_eq!((pool.stats().hits, pool.stats().misses, pool.stats().in_use), (0, 3, 3));
        drop(held);
        for _ in 0..97 {
            fill_typical(&mut pool.get());
        }
        let stats = pool.stats();
        assert_eq!((stats.total_requests, stats.total_frees, stats.in_use), (100, 100, 0), "{name}");
        assert_eq!((stats.hits, stats.misses, stats.created, stats.reused), (97, 3, 3, 97), "{name}");
        assert_eq!((stats.hit_rate(), stats.retained, stats.discards), (0.97, 3, 0), "{name}");
        // One object was filled: once if it keeps its block, for each use in an arena.
        let blocks = if name == "arena" { 97 } else { 1 };
        assert_eq!(stats.bytes_allocated, blocks * 2048, "{name}");
        let kept = if name == "arena" { 64 << 10 } else { 2048 };
        assert_eq!(stats.retained_bytes, kept, "{name}");
        assert_eq!(pool.response_stats().total_requests, 0);
        assert!(stats.to_string().contains("100 requests, 100 frees, 0 in use, hit rate 97.00 %"), "{stats}");

        pool.get_response().set_body("of as many bytes");
        assert_eq!(pool.purge() as u64, 2 * kept, "{name}");
        for stats in [pool.stats(), pool.response_stats()] {
            assert_eq!((stats.retained, stats.retained_bytes), (0, 0), "{name}");
        }
        drop(pool.get());
        assert_eq!(pool.stats().misses, 4);
    });
}

#[test]
fn a_forgotten_guard_is_found() {
    each(|_, pool| {
        let held: Vec<_> = (0..4).map(|_| pool.get()).collect();
        assert!(pool.check_leaks(4).is_ok());
        std::mem::forget(pool.get());
        let leak = pool.check_leaks(4).expect_err("one more than expected");
        assert_eq!((leak.in_use, leak.expected, leak.total_requests, leak.total_frees), (5, 4, 5, 0));
        let text = leak.to_string();
        assert!(text.contains("5 pooled objects are in use where at most 4 were expected"), "{text}");
        assert!(text.contains("1 guards too many"), "{text}");
        drop(held);
        assert!(pool.check_leaks(1).is_ok() && pool.check_leaks(0).is_err());
        std::mem::forget(pool.get_response());
        std::mem::forget(pool.get_response());
        assert_eq!(pool.check_leaks(1).expect_err("two responses").in_use, 2);
    });
}

#[test]
fn a_guard_returns_its_object_when_its_user_panics() {
    each(|_, pool| {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut request = pool.get();
            fill_typical(&mut request);
            panic!("as planned");
        }));
        assert!(result.is_err() && pool.check_leaks(0).is_ok());
        Model::default().check(&pool.get());
    });
}

#[test]
fn one_big_body_is_not_kept_and_usual_ones_are() {
    let big = vec![7u8; 10 << 20];
    each(|name, pool| {
        // As the first use of all, and after a thousand others.
        for before in [0, 1000] {
            (0..before).for_each(|_| fill_typical(&mut pool.get()));
            let mut request = pool.get();
            request.set_body(&big);
            assert_eq!(request.body(), big);
            drop(request);
            let kept = pool.stats().retained_bytes;
            assert!(kept <= 64 << 10, "{name} keeps {kept} B after one big body");
        }
        if name == "arena" {
            // Blocks are as big as the last uses needed, but a small request is not made to take 100 KB.
            (0..100).for_each(|_| pool.get().set_body(&big[..100_000]));
            let before = pool.stats().bytes_allocated;
            pool.get().set_body("small");
            assert_eq!(pool.stats().bytes_allocated - before, 8 << 10);
            return;
        }
        // A hundred bodies of 100 KB make that the usual size: the last fifty need no new memory.
        let use_once = |len: usize| pool.get().set_body(&big[..len]);
        (0..50).for_each(|_| use_once(100_000));
        let before = pool.stats().bytes_allocated;
        (0..50).for_each(|_| use_once(100_000));
        assert_eq!(pool.stats().bytes_allocated, before, "{name}");
        assert!((100_000..300_000).contains(&pool.stats().retained_bytes), "{name}");
        // And a thousand small ones make it unusual.
        (0..1000).for_each(|_| use_once(100));
        assert!(pool.stats().retained_bytes <= 8 << 10, "{name}: {}", pool.stats());
    });
}

#[test]
fn what_a_pool_keeps_is_bounded() {
    let body = vec![1u8; 1 << 20];
    each(|name, pool| {
        // Make 1 MiB the usual size, then use 200 such requests at once.
        (0..100).for_each(|_| pool.get().set_body(&body));
        let mut held: Vec<_> = (0..200).map(|_| pool.get()).collect();
        held.iter_mut().for_each(|request| request.set_body(&body));
        drop(held);
        let stats = pool.stats();
        assert!(stats.retained_bytes <= (4 << 20) + 256 * (64 << 10), "{name}: {stats}");

        let held: Vec<_> = (0..2000).map(|_| pool.get()).collect();
        drop(held);
        let stats = pool.stats();
        assert!(stats.retained >= 256 && stats.retained <= 256 + 32, "{name}: {stats}");
        assert!(stats.discards >= 2000 - 288, "{name}: {stats}");
    });
}

#[test]
fn capacity_and_retained_are_configurable() {
    fn test<M: Memory>() {
        let new = MessagePool::<M>::new;
        for pool in
            [new().with_capacity(12 << 10).with_retained(5), new().with_retained(5).with_capacity(12 << 10)]
        {
            let mut held: Vec<_> = (0..100).map(|_| (pool.get(), pool.get_response())).collect();
            for (request, response) in &mut held {
                request.set_method("GET");
                response.set_reason("OK");
            }
            drop(held);
            for stats in [pool.stats(), pool.response_stats()] {
                assert_eq!(stats.bytes_allocated, 100 * (12 << 10));
                assert!(stats.retained <= 32 + 5, "{stats}");
            }
        }
    }
    test::<SystemMemory>();
    test::<SlabMemory>();
    test::<ArenaMemory>();
}

#[test]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[should_panic(expected = "the most is 4 GiB")]
fn more_than_four_gibibytes_are_refused() {
    let len = 4 << 30;
    // SAFETY: a new mapping of address space that costs no memory while it is not read.
    let body = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mapping = libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, -1, 0);
        assert_ne!(mapping, libc::MAP_FAILED);
        std::slice::from_raw_parts(mapping.cast::<u8>(), len)
    };
    StandardPool::new().get().set_body(body);
}
