//! The pool of buffers.

use std::io::Write;

use shockwave_alloc::Shockwave;
use shockwave_alloc::pool::BufferPool;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

#[test]
fn classes_are_the_seeds() {
    let pool = BufferPool::new();
    let cases = [
        (0, 2048),
        (2048, 2048),
        (2049, 4096),
        (8000, 8192),
        (16 << 10, 16 << 10),
        (20_000, 32 << 10),
        (64 << 10, 64 << 10),
        ((64 << 10) + 1, 128 << 10),
        (3 << 20, 4 << 20),
        ((4 << 20) + 1, (4 << 20) + (64 << 10)),
    ];
    for (len, capacity) in cases {
        assert_eq!(pool.get(len).capacity(), capacity, "{len}");
    }
    let sizes = pool.class_stats().map(|class| class.size);
    assert_eq!(sizes, [Some(2048), Some(4096), Some(8192), Some(16_384), Some(32_768), Some(65_536), None]);
    let requests = pool.class_stats().map(|class| class.stats.total_requests);
    assert_eq!(requests, [2, 1, 1, 1, 1, 1, 3]);
    assert_eq!(pool.stats().hits, 1, "only the second of 2 KiB");
}

#[test]
fn a_buffer_is_like_a_vector() {
    let pool = BufferPool::new();
    let mut buffer = pool.get(10);
    let mut model = Vec::new();
    let mut state = 1u64;
    for step in 0..3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let len = (state >> 33) as usize % 3000;
        let bytes: Vec<u8> = (0..len % 500).map(|at| (at + step) as u8).collect();
        match (state >> 60) % 8 {
            0 => (buffer.resize(len, step as u8), model.resize(len, step as u8)).0,
            1 => (buffer.truncate(len), model.truncate(len)).0,
            2 => (buffer.extend(&bytes), model.extend(&bytes)).0,
            3 => (buffer.extend(bytes.iter().copied()), model.extend(bytes.iter().copied())).0,
            4 => {
                buffer.write_all(&bytes).expect("never fails");
                model.extend(&bytes);
            }
            5 if buffer.capacity() - buffer.len() >= bytes.len() => {
                buffer.spare_mut()[..bytes.len()].copy_from_slice(&bytes);
                buffer.advance(bytes.len());
                model.extend(&bytes);
            }
            6 if step % 50 == 0 => (buffer.clear(), model.clear()).0,
            _ => (buffer.put(&bytes), model.extend(&bytes)).0,
        }
        assert_eq!((&buffer[..], buffer.len()), (&model[..], model.len()), "step {step}");
        if let (Some(byte), Some(other)) = (buffer.first_mut(), model.first_mut()) {
            (*byte, *other) = (1, 1);
        }
    }
    assert!(buffer.capacity() > 2048, "it was exchanged");
    drop(buffer);
    assert!(pool.check_leaks(0).is_ok());
}

#[test]
#[should_panic(expected = "no room for 2049 B")]
fn advancing_beyond_the_room_panics() {
    BufferPool::new().get(1).advance(2049);
}

#[test]
fn an_exchanged_buffer_returns_to_its_class() {
    let pool = BufferPool::new();
    let mut buffer = pool.get(2048);
    (0..100).for_each(|_| buffer.put([3; 1000]));
    assert_eq!((buffer.len(), buffer.capacity()), (100_000, 128 << 10));
    assert!(buffer.iter().all(|byte| *byte == 3));
    let retained = pool.class_stats().map(|class| class.stats.retained);
    assert_eq!(retained, [1, 1, 1, 1, 1, 1, 0]);
    assert_eq!(pool.stats().in_use, 1);
    drop(buffer);
    assert_eq!(pool.class_stats()[6].stats.retained, 1);
    // All of them serve again.
    let created = pool.stats().created;
    let mut buffer = pool.get(2048);
    (0..100).for_each(|_| buffer.put([3; 1000]));
    assert_eq!(pool.stats().created, created);
    assert_eq!(pool.stats().bytes_allocated, (2 + 4 + 8 + 16 + 32 + 64 + 128) << 10);
}

#[test]
fn big_buffers_are_kept_up_to_a_bound() {
    static POOL: BufferPool = BufferPool::new().with_large_bytes(1 << 20);
    drop((0..20).map(|_| POOL.get(100_000)).collect::<Vec<_>>());
    let stats = POOL.stats();
    assert_eq!((stats.retained, stats.discards, stats.retained_bytes), (8, 12, 1 << 20));
    drop(POOL.get(128 << 10));
    assert_eq!(POOL.stats().hits, 1);

    // Those above 4 MiB are never kept.
    let roomy = BufferPool::new();
    drop((roomy.get(4 << 20), roomy.get((4 << 20) + 1)));
    assert_eq!((roomy.stats().discards, roomy.stats().retained_bytes), (1, 4 << 20));

    // And small ones too: 4 MiB of a class, and eight for the thread.
    drop((0..200).map(|_| POOL.get(64 << 10)).collect::<Vec<_>>());
    assert!(POOL.class_stats()[5].stats.retained <= 64 + 8);
    assert!(POOL.class_stats()[5].stats.discards >= 200 - 72);
    let retained = POOL.stats().retained_bytes;
    assert_eq!(POOL.purge() as u64, retained);
    assert_eq!((POOL.stats().retained, POOL.stats().retained_bytes), (0, 0));
}

#[test]
fn a_forgotten_buffer_is_found() {
    let pool = BufferPool::new();
    let held = pool.get(1);
    std::mem::forget(pool.get(1));
    std::mem::forget(pool.get(1 << 20));
    assert!(pool.check_leaks(3).is_ok());
    assert_eq!(pool.check_leaks(1).expect_err("three are in use").in_use, 3);
    drop(held);
    assert_eq!(pool.stats().in_use, 2);
}

/// Whether there is anything but zeros in the memory of the buffer that comes next.
fn next_is_dirty(pool: &BufferPool, len: usize) -> bool {
    pool.get(len).spare_mut().iter().any(|byte| *byte != 0)
}

#[test]
fn secrets_are_wiped_whatever_happened_to_them() {
    let secret = [0x5E; 2048];
    // The measure works: an ordinary pool hands on what was there.
    let ordinary = BufferPool::new();
    ordinary.get(2048).put(secret);
    assert!(next_is_dirty(&ordinary, 2048));

    let pool = BufferPool::secret();
    let uses: [fn(&mut shockwave_alloc::pool::PooledBuffer<'_>); 7] = [
        |buffer| buffer.put([0x5E; 2048]),
        |buffer| buffer.resize(2047, 0x5E),
        |buffer| {
            buffer.put([0x5E; 1999]);
            buffer.truncate(5);
            buffer.put([0x5E; 10]);
        },
        |buffer| {
            buffer.put([0x5E; 33]);
            buffer.clear();
        },
        |buffer| buffer.spare_mut().fill(0x5E),
        |buffer| {
            buffer.put([1; 1000]);
            buffer.spare_mut()[1047] = 0x5E;
            buffer.clear();
        },
        |buffer| {
            buffer.put([0x5E; 2]);
            buffer[1] = 3;
        },
    ];
    for (number, use_it) in uses.into_iter().enumerate() {
        use_it(&mut pool.get(2048));
        assert!(!next_is_dirty(&pool, 2048), "use {number}");
    }
    assert_eq!(pool.stats().created, 1, "it was the same buffer all the time");

    // Exchanged for a bigger one: both.
    let mut buffer = pool.get(2048);
    buffer.put(secret);
    buffer.put(secret);
    assert!(!next_is_dirty(&pool, 2048));
    drop(buffer);
    assert!(!next_is_dirty(&pool, 4096));
    assert_eq!(pool.stats().created, 2);

    // Above the classes too.
    pool.get(100_000).resize(100_000, 0x5E);
    assert!(!next_is_dirty(&pool, 100_000));
    assert_eq!(pool.stats().created, 3);
}

#[cfg(feature = "bytes")]
mod frozen {
    use super::*;

    #[test]
    fn a_frozen_buffer_returns_with_its_last_clone() {
        static POOL: BufferPool = BufferPool::new();
        let mut buffer = POOL.get(5000);
        buffer.put("head body");
        let address = buffer.as_ptr();
        let bytes = buffer.freeze();
        assert_eq!((&bytes[..], bytes.as_ptr()), (&b"head body"[..], address), "not copied");
        let body = bytes.slice(5..);
        let clone = body.clone();
        drop((bytes, body));
        assert_eq!(POOL.stats().in_use, 1);
        // In another thread: it returns to that thread's stack.
        std::thread::spawn(move || assert_eq!(&clone[..], b"body")).join().expect("no panic");
        assert_eq!((POOL.stats().in_use, POOL.stats().retained), (0, 1));
        assert!(POOL.get(0).freeze().is_empty());
    }

    #[test]
    fn a_frozen_secret_is_wiped_too() {
        static POOL: BufferPool = BufferPool::secret();
        let mut buffer = POOL.get(2048);
        buffer.put([0x5E; 100]);
        let bytes = buffer.freeze();
        drop(bytes.slice(50..));
        drop(bytes);
        assert!(!next_is_dirty(&POOL, 2048));
        assert_eq!(POOL.stats().created, 1);
    }

    #[test]
    fn freezing_in_a_request_does_not_pin_its_arena() {
        static POOL: BufferPool = BufferPool::new();
        let bytes = shockwave_alloc::with_request_arena(|| {
            let arena = shockwave_alloc::RequestArena::new();
            let bytes = arena.run(|| {
                let mut buffer = POOL.get(100);
                buffer.put("kept");
                buffer.freeze()
            });
            assert_eq!(arena.stats().blocks, 0, "nothing of it is in the arena");
            bytes
        });
        assert_eq!(&bytes[..], b"kept");
    }
}
