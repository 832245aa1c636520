//! Pools that many threads use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

use shockwave_alloc::Shockwave;
use shockwave_alloc::pool::{ArenaPool, BufferPool, PooledRequest, RequestPool, SlabPool, StandardPool};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

fn each(test: impl Fn(&str, &'static dyn RequestPool)) {
    test("standard", Box::leak(Box::new(StandardPool::new())));
    test("slab", Box::leak(Box::new(SlabPool::new())));
    test("arena", Box::leak(Box::new(ArenaPool::new())));
}

#[test]
fn threads_do_not_get_each_others_objects() {
    const THREADS: u8 = 8;
    const ROUNDS: usize = 400;
    each(|name, pool| {
        // Each thread fills requests with a mark of its own, passes every third one to its neighbour, which checks and
        // drops it, and checks its own.
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..THREADS).map(|_| mpsc::channel::<(u8, PooledRequest<'static>)>()).unzip();
        thread::scope(|scope| {
            for (mark, inbox) in (0..THREADS).zip(receivers) {
                let neighbour = senders[usize::from((mark + 1) % THREADS)].clone();
                scope.spawn(move || {
                    let check = |mark: u8, request: &PooledRequest<'_>| {
                        assert!(request.body().iter().all(|byte| *byte == mark), "{name}");
                        assert_eq!(request.headers().len(), 2);
                        assert!(request.headers().all(|(_, value)| value == [mark; 9]));
                    };
                    for round in 0..ROUNDS {
                        let mut held: Vec<_> = (0..1 + round % 40).map(|_| pool.get()).collect();
                        for request in &mut held {
                            request.add_header("one", [mark; 9]);
                            request.set_body(vec![mark; 10 + round]);
                            request.add_header("two", [mark; 9]);
                        }
                        held.iter().for_each(|request| check(mark, request));
                        if round % 3 == 0 {
                            let _ = neighbour.send((mark, held.remove(0)));
                        }
                        while let Ok((mark, request)) = inbox.try_recv() {
                            check(mark, &request);
                        }
                    }
                });
            }
            drop(senders);
        });
        let stats = pool.stats();
        let taken: usize = (0..ROUNDS).map(|round| 1 + round % 40).sum();
        assert_eq!(stats.total_requests, taken as u64 * u64::from(THREADS), "{name}");
        assert_eq!((stats.in_use, stats.total_frees), (0, stats.total_requests), "{name}");
        assert_eq!(stats.created - stats.discards, stats.retained, "{name}: nothing is lost");
        assert!(stats.hit_rate() > 0.9, "{name}: {stats}");
    });
}

#[test]
fn threads_that_come_and_go_leave_their_objects_to_others() {
    each(|name, pool| {
        for _ in 0..1000 {
            thread::spawn(move || {
                pool.get().set_method("GET");
                pool.get_response().set_status(404);
            })
            .join()
            .expect("no panic");
        }
        let stats = pool.stats();
        // Now and then another test's thread has the number that was used before.
        assert!(stats.created <= 64, "{name}: {stats}");
        assert_eq!((stats.total_requests, stats.in_use, stats.retained), (1000, 0, stats.created), "{name}");
    });
}

#[test]
fn a_thread_that_only_takes_is_supplied_by_one_that_only_gives() {
    each(|name, pool| {
        let (sender, receiver) = mpsc::sync_channel::<PooledRequest<'static>>(100);
        let giver = thread::spawn(move || receiver.into_iter().for_each(drop));
        for _ in 0..20_000 {
            let mut request = pool.get();
            request.set_path("/");
            sender.send(request).expect("a receiver");
        }
        drop(sender);
        giver.join().expect("no panic");
        let stats = pool.stats();
        // In flight: the channel, what each side holds, and the giver's stack.
        assert!(stats.created <= 100 + 2 + 3 * 32, "{name}: {stats}");
        assert_eq!((stats.in_use, stats.discards), (0, 0), "{name}");
    });
}

#[test]
fn a_guard_may_be_dropped_while_its_thread_ends() {
    thread_local! {
        static LAST: std::cell::RefCell<Vec<PooledRequest<'static>>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    each(|name, pool| {
        thread::spawn(move || {
            LAST.with(|last| (0..50).for_each(|_| last.borrow_mut().push(pool.get())));
        })
        .join()
        .expect("no panic");
        assert_eq!((pool.stats().in_use, pool.stats().retained), (0, 50), "{name}");
        // They are there for this thread too, once it shares the number or they have overflowed; none is lost in any case.
        assert_eq!(pool.stats().created, 50, "{name}");
    });
}

#[test]
fn a_leak_check_beside_running_threads_raises_no_false_alarm() {
    // One the taker holds, one waits, one the giver holds.
    const IN_USE: u64 = 3;
    each(|name, pool| {
        let (sender, receiver) = mpsc::sync_channel::<PooledRequest<'static>>(1);
        let (ready, is_ready) = mpsc::channel();
        let giver = thread::spawn(move || {
            // First, so that the counters of the one that returns are read before those of the one that takes.
            drop(pool.get());
            ready.send(()).expect("a receiver");
            receiver.into_iter().for_each(drop);
        });
        is_ready.recv().expect("a sender");
        let stop = AtomicBool::new(false);
        let between = Barrier::new(51);
        let checked = thread::scope(|scope| {
            // And long before: there are the counters of other threads in between.
            for _ in 0..50 {
                scope.spawn(|| {
                    drop(pool.get());
                    between.wait();
                    between.wait();
                });
            }
            between.wait();
            scope.spawn(|| {
                let sender = sender;
                while !stop.load(Ordering::Relaxed) {
                    sender.send(pool.get()).expect("a receiver");
                }
            });
            let checked = (0..10_000).try_for_each(|_| pool.check_leaks(IN_USE));
            stop.store(true, Ordering::Relaxed);
            between.wait();
            checked
        });
        giver.join().expect("no panic");
        assert!(checked.is_ok(), "{name}: {checked:?}");
        assert!(pool.check_leaks(0).is_ok());
    });
}

#[test]
fn buffers_are_passed_between_threads() {
    static POOL: BufferPool = BufferPool::new();
    let (sender, receiver) = mpsc::sync_channel::<(u8, shockwave_alloc::pool::PooledBuffer<'static>)>(50);
    let consumer = thread::spawn(move || {
        for (mark, buffer) in receiver {
            assert!(buffer.iter().all(|byte| *byte == mark));
        }
    });
    thread::scope(|scope| {
        for mark in 0..4u8 {
            let sender = sender.clone();
            scope.spawn(move || {
                for round in 0..4000 {
                    let mut buffer = POOL.get(1 + round * 20);
                    buffer.resize(1 + round * 20, mark);
                    sender.send((mark, buffer)).expect("a receiver");
                }
            });
        }
    });
    drop(sender);
    consumer.join().expect("no panic");
    let stats = POOL.stats();
    // Some grow beyond the pool's classes at the end; none is counted twice or lost.
    assert_eq!((stats.total_requests, stats.total_frees, stats.in_use), (16_000, 16_000, 0));
    assert_eq!(stats.created - stats.discards, stats.retained);
    assert!(stats.hit_rate() > 0.9, "{stats}");
}
