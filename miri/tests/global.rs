//! A program with Shockwave as its global allocator.
//!
//! It has no test harness: under Miri a `Box` that is passed by value counts as borrowed until the function returns, so
//! memory that is freed in there must not be used again before, and whether it is, is for the program to see to.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::{OnceLock, mpsc};
use std::thread;

use shockwave_alloc::pool::{ArenaPool, BufferPool, RequestPool, SlabPool, StandardPool};
use shockwave_alloc::{
    Mode, RequestArena, Shockwave, outside_arena, purge, set_mode, stats, with_request_arena,
};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Interpreted, a run is some thousand times slower.
const ROUNDS: usize = if cfg!(miri) { 3 } else { 1000 };

fn main() {
    small_objects();
    scopes();
    growth();
    big_objects();
    other_threads();
    teardown();
    modes();
    pools();
    println!("{}", stats());
    purge();
}

/// What a small request does.
fn request(number: usize) -> String {
    let mut headers = HashMap::new();
    for n in 0..10 {
        headers.insert(format!("header-{n}"), vec![n as u8; 10 * n + 1]);
    }
    let sorted: BTreeMap<&str, usize> = headers.iter().map(|(name, value)| (&**name, value.len())).collect();
    let boxed: Vec<Box<u64>> = (0..20).map(Box::new).collect();
    let sum = sorted.values().sum::<usize>() as u64 + boxed.iter().map(|number| **number).sum::<u64>();
    format!("{number}: {sum}")
}

fn small_objects() {
    let mut kept = Vec::new();
    for round in 0..ROUNDS {
        kept.push(request(round));
        if round % 2 == 1 {
            kept.swap_remove(0);
        }
    }
    assert!(kept.iter().all(|answer| answer.ends_with(": 650")), "{kept:?}");
}

fn scopes() {
    static CACHE: OnceLock<Vec<String>> = OnceLock::new();
    let mut escaped = Vec::new();
    for round in 0..ROUNDS {
        let answer = with_request_arena(|| {
            let outer = request(round);
            let inner = with_request_arena(|| request(round));
            let cached = CACHE.get_or_init(|| outside_arena(|| vec!["built during a request".to_owned()]));
            assert_eq!(cached.len(), 1);
            assert_eq!(outer, inner);
            (outer, Box::new(inner))
        });
        escaped.push(answer);
    }
    for (round, (outer, inner)) in escaped.into_iter().enumerate() {
        assert_eq!(outer, *inner);
        assert_eq!(outer, format!("{round}: 650"));
    }

    let mut arena = RequestArena::new();
    for round in 0..ROUNDS {
        let answer = arena.run(|| request(round));
        arena.reset();
        assert!(answer.ends_with(": 650"));
    }
}

fn growth() {
    for _ in 0..ROUNDS {
        let mut outside: Vec<usize> = Vec::new();
        let escaped = with_request_arena(|| {
            let mut inside = Vec::new();
            let mut text = String::new();
            for n in 0..300 {
                outside.push(n);
                inside.push(n);
                if n % 10 == 0 {
                    text.push_str("0123456789");
                }
            }
            inside.shrink_to_fit();
            assert_eq!(text.len(), 300);
            inside
        });
        let mut escaped = escaped;
        escaped.extend(300..400);
        assert_eq!(outside[..], escaped[..300]);
        assert_eq!(escaped.iter().sum::<usize>(), 399 * 200);
    }
}

fn big_objects() {
    for round in 0..ROUNDS {
        let mut mid = vec![1u8; 20_000];
        let beside = vec![2u8; 50_000 + round];
        mid.resize(120_000, 3);
        let zeroed = vec![0u64; 10_000];
        let mut large = vec![4u8; 1_200_000];
        let scoped = with_request_arena(|| vec![5u8; 30_000]);
        large.extend_from_slice(&beside);
        assert_eq!((mid[19_999], mid[20_000], zeroed[9_999], scoped[0]), (1, 3, 0, 5));
        assert_eq!((large[0], large[1_200_000]), (4, 2));
        large.truncate(100);
        large.shrink_to_fit();
        assert_eq!(large.len(), 100);
    }
}

fn other_threads() {
    let (send, receive) = mpsc::channel::<Vec<String>>();
    let (back, returned) = mpsc::channel();
    let producer = thread::spawn(move || {
        for round in 0..ROUNDS {
            let answers = with_request_arena(|| (0..5).map(|n| request(round * 5 + n)).collect());
            send.send(answers).unwrap();
            send.send(vec!["x".repeat(600); 10]).unwrap();
        }
        drop(send);
        let returned: Vec<String> = returned.iter().collect();
        returned.len()
    });
    let consumer = thread::spawn(move || {
        let mut count = 0;
        for answers in receive {
            count += answers.len();
            let answer = with_request_arena(|| answers.concat());
            back.send(answer).unwrap();
        }
        count
    });
    assert_eq!(consumer.join().unwrap(), 15 * ROUNDS);
    assert_eq!(producer.join().unwrap(), 2 * ROUNDS);

    // An arena that is filled in one thread and closed in another.
    let arena = RequestArena::new();
    let kept = arena.run(|| vec![String::from("kept")]);
    let kept = thread::spawn(move || {
        let more = arena.run(|| kept.iter().map(|text| text.repeat(3)).collect::<Vec<_>>());
        drop(arena);
        more
    })
    .join()
    .unwrap();
    assert_eq!(kept, ["keptkeptkept"]);
}

/// Allocates and frees in a destructor that may run after the allocator's own.
struct Late(Vec<String>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.push("late".repeat(10));
        let answer = with_request_arena(|| request(self.0.len()));
        assert!(answer.ends_with(": 650"));
    }
}

fn teardown() {
    thread_local! {
        static BEFORE: RefCell<Option<Late>> = const { RefCell::new(None) };
        static AFTER: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    for round in 0..ROUNDS {
        thread::spawn(move || {
            BEFORE.with(|late| *late.borrow_mut() = Some(Late(Vec::new())));
            let escaped = with_request_arena(|| vec![request(round)]);
            AFTER.with(|late| *late.borrow_mut() = Some(Late(escaped)));
        })
        .join()
        .unwrap();
    }
}

fn modes() {
    let mut kept = Vec::new();
    for mode in [Mode::Standard, Mode::Arena, Mode::Slab, Mode::Standard, Mode::Arena] {
        set_mode(mode);
        let scoped = with_request_arena(|| request(1));
        kept.iter_mut().for_each(|text: &mut String| text.push_str(&scoped));
        kept.push(scoped);
        black_box(&kept);
    }
    assert_eq!(kept[0].len(), 5 * kept[4].len());
}

fn pools() {
    let (standard, slab, arena) = (StandardPool::new(), SlabPool::new(), ArenaPool::new());
    let pools: [&(dyn RequestPool + Sync); 3] = [&standard, &slab, &arena];
    let buffers = BufferPool::new();
    let work = |thread: usize| {
        for round in 0..ROUNDS {
            for pool in pools {
                let mut request = pool.get();
                request.set_method("POST");
                request.set_path(format!("/{thread}/{round}"));
                for n in 0..8 {
                    request.add_header(format!("header-{n}"), [n; 40]);
                }
                request.set_body([7; 3000]);
                let mut response = with_request_arena(|| pool.get_response());
                response.set_status(200);
                response.set_body(request.body());
                assert_eq!(request.path(), format!("/{thread}/{round}").as_bytes());
                assert_eq!(request.header("header-5"), Some(&[5u8; 40][..]));
                assert_eq!(response.body(), [7; 3000]);
            }
            let mut buffer = buffers.get(100);
            (0..200).for_each(|_| buffer.put(b"0123456789"));
            assert!(buffer.ends_with(b"789"));
        }
    };
    thread::scope(|scope| {
        // One request is dropped by another thread than the one that took it.
        let mut request = standard.get();
        request.set_path("/elsewhere");
        scope.spawn(move || drop(request));
        scope.spawn(|| work(1));
        work(2);
    });
    pools.iter().for_each(|pool| assert!(pool.stats().check_leaks(0).is_ok()));
    for pool in pools {
        pool.purge();
    }
    buffers.purge();
}
