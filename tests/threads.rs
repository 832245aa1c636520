//! Threads that come and go, and blocks that change hands between them: contents stay right and memory stays
//! flat.

mod bare_thread;
mod churn;

use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Barrier, Condvar, Mutex, MutexGuard};
use std::thread;

use churn::{Block, Random, poison};
use shockwave_alloc::{RequestArena, Shockwave, Stats, on_thread_park, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const MIB: u64 = 1 << 20;

/// Statistics are the process's, so tests run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Panics if there is notably more memory or there are more heaps than before. Memory is committed in steps
/// of up to 64 MiB.
fn assert_flat(before: &Stats, mib: u64, heaps: u64) {
    let now = stats();
    assert!(now.committed_bytes <= before.committed_bytes + 80 * MIB, "committed\n{before}\n{now}");
    assert!(now.resident_bytes <= before.resident_bytes + mib * MIB, "resident\n{before}\n{now}");
    assert!(now.heaps <= before.heaps + heaps, "heaps\n{before}\n{now}");
    // Up to the chains that travel with running threads.
    assert!(now.slab.blocks <= before.slab.blocks + 1500, "live blocks\n{before}\n{now}");
    assert!(
        now.mid.blocks <= before.mid.blocks && now.large.blocks <= before.large.blocks,
        "{before}\n{now}"
    );
    assert_eq!(now.fallbacks, before.fallbacks);
}

#[test]
fn ten_thousand_short_threads_leave_nothing() {
    let _alone = alone();
    let short = |seed: u64| {
        let mut random = Random::new(seed);
        let _small: Vec<Block> = (0..20).map(|_| Block::new(1 + random.below(2000), 8, seed)).collect();
        let escaped = with_request_arena(|| {
            let _blocks: Vec<Block> = (0..20).map(|_| Block::new(1 + random.below(500), 8, seed)).collect();
            Block::new(100, 8, seed)
        });
        let _mid = Block::new((20 << 10) + random.below(100 << 10), 8, seed);
        escaped
    };
    let mut warm = Stats::default();
    let mut escaped = VecDeque::new();
    for round in 0..2500 {
        let threads = [0, 1, 2, 3].map(|n| thread::spawn(move || short(round * 4 + n)));
        escaped.extend(threads.map(|thread| thread.join().unwrap()));
        // Kept for a while, so that blocks are freed long after their threads have ended.
        while escaped.len() > 100 {
            escaped.pop_front();
        }
        if round == 250 {
            warm = stats();
        }
    }
    // Four at a time, and this one.
    assert!(stats().heaps <= 16, "{}", stats());
    assert_flat(&warm, 16, 4);
    drop(escaped);
    assert_eq!(stats().pinned_chunks, 0);
}

/// Slots through which one thread hands blocks to another without an allocation on either side.
struct Slots {
    slots: [AtomicPtr<Block>; 256],
    closed: AtomicBool,
}

impl Slots {
    const fn new() -> Slots {
        Slots { slots: [const { AtomicPtr::new(ptr::null_mut()) }; 256], closed: AtomicBool::new(false) }
    }

    /// Puts a block into slot `turn` and gives back what was there.
    fn exchange(&self, turn: usize, block: Box<Block>) -> Option<Box<Block>> {
        owned(self.slots[turn % 256].swap(Box::into_raw(block), Ordering::AcqRel))
    }

    /// Puts a block into slot `turn` as soon as that is empty.
    fn put(&self, turn: usize, block: Box<Block>) {
        let (slot, block) = (&self.slots[turn % 256], Box::into_raw(block));
        while slot.compare_exchange(ptr::null_mut(), block, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            thread::yield_now();
        }
    }

    fn take(&self, turn: usize) -> Option<Box<Block>> {
        owned(self.slots[turn % 256].swap(ptr::null_mut(), Ordering::AcqRel))
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Frees what arrives until the slots are closed and empty. Returns the number of blocks.
    fn free_all(&self) -> usize {
        let mut freed = 0;
        loop {
            let closed = self.closed.load(Ordering::Acquire);
            let round = (0..256).filter_map(|turn| self.take(turn)).count();
            freed += round;
            if round == 0 {
                if closed {
                    return freed;
                }
                thread::yield_now();
            }
        }
    }
}

fn owned(block: *mut Block) -> Option<Box<Block>> {
    // SAFETY: the slots hold pointers made by `Box::into_raw`, and the swap has taken this one out.
    (!block.is_null()).then(|| unsafe { Box::from_raw(block) })
}

#[test]
fn a_consumer_that_only_frees_keeps_memory_flat() {
    static SLOTS: Slots = Slots::new();
    let _alone = alone();
    let consumer = thread::spawn(|| {
        let mut freed = 0;
        // The whole life of this thread is frees.
        bare_thread::run(&mut freed, |freed| *freed = SLOTS.free_all());
        freed
    });
    let mut random = Random::new(3);
    let mut warm = Stats::default();
    const BLOCKS: usize = 100_000;
    for turn in 0..BLOCKS {
        let (size, seed) = (1 + random.below(1500), random.next());
        // From the slab, from arenas, and at times from the mid-size heap.
        let block = match turn % 100 {
            0 => Box::new(Block::new(20 << 10, 8, seed)),
            1..50 => with_request_arena(|| Box::new(Block::new(size, 8, seed))),
            _ => Box::new(Block::new(size, 8, seed)),
        };
        SLOTS.put(turn, block);
        if turn == BLOCKS / 10 {
            warm = stats();
        }
    }
    SLOTS.close();
    assert_eq!(consumer.join().unwrap(), BLOCKS);
    // Some 75 MiB went through.
    assert_flat(&warm, 8, 0);
    assert_eq!(stats().pinned_chunks, 0);
}

#[test]
fn many_producers_feed_one_consumer() {
    let _alone = alone();
    let mut warm = Stats::default();
    for round in 0..8 {
        let (sender, receiver) = sync_channel::<Vec<Block>>(16);
        let consumer = thread::spawn(move || receiver.into_iter().map(|blocks| blocks.len()).sum::<usize>());
        let producers: Vec<_> = (0..6)
            .map(|seed| {
                let sender = sender.clone();
                thread::spawn(move || {
                    let mut random = Random::new(seed + round * 10);
                    for _ in 0..60 {
                        sender.send((0..50).map(|_| Block::random(&mut random)).collect()).unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert_eq!(consumer.join().unwrap(), 6 * 60 * 50);
        if round == 2 {
            warm = stats();
        }
    }
    // Some 500 MiB went through since; a burst of big blocks may leave free pages resident.
    assert_flat(&warm, 40, 4);
}

#[test]
fn blocks_are_freed_after_their_thread_and_its_heap_is_adopted() {
    let _alone = alone();
    let mut warm = Stats::default();
    for round in 0..150u64 {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                thread::spawn(move || {
                    let mut random = Random::new(round * 4 + n);
                    // What an earlier thread has left in the heap is not in the way of this.
                    let all: Vec<Block> = (0..1500).map(|_| Block::random_small(&mut random)).collect();
                    all.into_iter().enumerate().filter(|(n, _)| n % 3 == 0).map(|(_, block)| block).collect()
                })
            })
            .collect();
        let kept: Vec<Vec<Block>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        poison();
        kept.iter().flatten().for_each(Block::check);
        drop(kept);
        if round == 20 {
            warm = stats();
        }
    }
    assert_flat(&warm, 8, 2);
}

#[test]
fn several_threads_free_what_ended_threads_left_while_new_ones_adopt() {
    let _alone = alone();
    let mut warm = Stats::default();
    for round in 0..60u64 {
        let left: Vec<Vec<Block>> = (0..3)
            .map(|n| {
                let mut random = Random::new(round * 3 + n);
                thread::spawn(move || (0..1200).map(|_| Block::random_small(&mut random)).collect())
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        // Each of the three gets every third block of every heap.
        let mut shares: [Vec<Block>; 3] = [const { Vec::new() }; 3];
        for (n, block) in left.into_iter().flatten().enumerate() {
            shares[n % 3].push(block);
        }
        let start = Barrier::new(6);
        thread::scope(|scope| {
            for mut share in shares {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    // In an order that jumps between pages.
                    let mut random = Random::new(round);
                    while !share.is_empty() {
                        let place = random.below(share.len());
                        share.swap_remove(place);
                    }
                });
            }
            for n in 0..3 {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let mut random = Random::new(round * 3 + n);
                    let mut blocks = VecDeque::new();
                    for _ in 0..3000 {
                        blocks.push_back(Block::random_small(&mut random));
                        if blocks.len() > 300 {
                            blocks.pop_front();
                        }
                    }
                });
            }
        });
        if round == 10 {
            warm = stats();
        }
    }
    assert_flat(&warm, 16, 6);
}

#[test]
fn slots_are_exchanged_between_generations_of_threads() {
    static SLOTS: Slots = Slots::new();
    let _alone = alone();
    let work = |seed: u64| {
        let mut random = Random::new(seed);
        for _ in 0..6000 {
            let turn = random.below(256);
            let make = |random: &mut Random| Box::new(Block::random_small(random));
            let block = if turn.is_multiple_of(3) {
                with_request_arena(|| make(&mut random))
            } else if turn % 64 == 1 {
                Box::new(Block::random(&mut random))
            } else {
                make(&mut random)
            };
            // Checks what another thread has left there, and frees or reallocates it.
            if let Some(mut found) = SLOTS.exchange(turn, block)
                && turn.is_multiple_of(5)
            {
                found.resize(1 + random.below(3000));
            }
        }
    };
    let mut warm = Stats::default();
    for generation in 0..12 {
        let threads = [0, 1, 2, 3].map(|n| thread::spawn(move || work(generation * 4 + n)));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        if generation == 3 {
            warm = stats();
        }
    }
    (0..256).for_each(|turn| drop(SLOTS.take(turn)));
    assert_flat(&warm, 24, 2);
    assert_eq!(stats().pinned_chunks, 0);
}

#[test]
fn the_first_call_of_a_thread_is_a_free() {
    let _alone = alone();
    let mut warm = Stats::default();
    for round in 0..300 {
        if round == 30 {
            warm = stats();
        }
        let mut random = Random::new(round);
        let mut blocks: [Option<Block>; 40] = std::array::from_fn(|_| Some(Block::random(&mut random)));
        let mut escaped = with_request_arena(|| [1, 2, 3, 4].map(|seed| Some(Block::new(100, 8, seed))));
        let heaps = stats().heaps;
        bare_thread::run(&mut (&mut blocks, &mut escaped), |(blocks, escaped)| {
            blocks.iter_mut().chain(escaped.iter_mut()).for_each(|block| *block = None);
        });
        assert_eq!(stats().heaps, heaps, "a thread that only frees needs no heap");
        assert_eq!(stats().pinned_chunks, 0);
        let again: Vec<Block> = (0..40).map(|_| Block::random(&mut random)).collect();
        again.iter().for_each(Block::check);
    }
    // What a thread frees last is not lost when it ends.
    assert_flat(&warm, 40, 0);
}

#[test]
fn the_first_call_of_a_thread_is_a_reallocation() {
    let _alone = alone();
    for round in 0..300 {
        let mut random = Random::new(round);
        let size = random.size();
        let block = if round % 2 == 0 {
            Block::random(&mut random)
        } else {
            with_request_arena(|| Block::new(100, 8, round))
        };
        let mut handed = (Some(block), size);
        bare_thread::run(&mut handed, |(block, size)| {
            if let Some(block) = block {
                block.resize(*size);
            }
        });
        poison_a_little();
        // And the other way: the block of the ended thread is reallocated here.
        let block = handed.0.as_mut().expect("it comes back");
        block.resize(1 + random.below(5000));
    }
    assert_eq!(stats().pinned_chunks, 0);
}

fn poison_a_little() {
    let blocks: Vec<Vec<u8>> = (1..300).map(|n| vec![0xa5; n * 8]).collect();
    std::hint::black_box(&blocks);
}

#[test]
fn what_threads_need_for_arenas_is_used_again() {
    let _alone = alone();
    let mut warm = Stats::default();
    for round in 0..3000 {
        thread::spawn(|| {
            // Sixty at the same time, some of them with a chunk.
            let arenas: Vec<RequestArena> = (0..60).map(|_| RequestArena::new()).collect();
            let blocks = arenas.iter().enumerate().map(|(n, arena)| {
                let _scope = arena.enter();
                n.is_multiple_of(20).then(|| Block::new(100, 8, n as u64))
            });
            assert_eq!(blocks.flatten().count(), 3);
        })
        .join()
        .unwrap();
        if round == 300 {
            warm = stats();
        }
    }
    assert_flat(&warm, 4, 1);
    assert_eq!((stats().open_arenas, stats().pinned_chunks), (0, 0));
}

#[test]
fn memory_that_a_sleeping_thread_freed_is_used_again() {
    let _alone = alone();
    // The thread frees all it was given and then sleeps until the end of the test.
    static STATE: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let (sender, receiver) = sync_channel::<Vec<Block>>(0);
    let sleeper = thread::spawn(move || {
        for blocks in receiver {
            drop(blocks);
            TURN.fetch_add(1, Ordering::Release);
        }
        let ended = STATE.1.wait_while(STATE.0.lock().unwrap(), |state| *state == 0);
        drop(ended);
    });
    let mut warm = Stats::default();
    for round in 0..40 {
        sender.send((0..20_000).map(|n| Block::new(64, 8, n)).collect()).unwrap();
        while TURN.load(Ordering::Acquire) <= round {
            thread::yield_now();
        }
        if round == 3 {
            warm = stats();
        }
    }
    drop(sender);
    let now = stats();
    assert!(now.slab_pages <= warm.slab_pages + 8, "{warm}\n{now}");
    *STATE.0.lock().unwrap() = 1;
    STATE.1.notify_all();
    sleeper.join().unwrap();
    assert_flat(&warm, 4, 0);
}

/// A few blocks wait for more of their kind, until their thread says that it is about to wait itself.
#[test]
fn a_thread_that_parks_hands_over_what_it_has_freed() {
    let _alone = alone();
    let blocks: Vec<Box<[u8; 500]>> = (0..5).map(|number| Box::new([number; 500])).collect();
    let (steps, step) = sync_channel(0);
    let (answers, done) = sync_channel(0);
    let worker = thread::spawn(move || {
        answers.send(()).expect("the test waits");
        step.recv().expect("the first step");
        drop(blocks);
        answers.send(()).expect("the test waits");
        step.recv().expect("the second step");
        on_thread_park();
        answers.send(()).expect("the test waits");
        // It does not end, and hand things over because of that, before it was looked.
        let _ = step.recv();
    });
    done.recv().expect("it is there");
    let live = || stats().slab.blocks;
    let before = live();
    steps.send(()).expect("the worker waits");
    done.recv().expect("it has freed");
    let freed = live();
    steps.send(()).expect("the worker waits");
    done.recv().expect("it has handed over");
    let handed_over = live();
    drop(steps);
    worker.join().expect("it ends");
    assert!(handed_over + 5 <= freed, "{before} blocks, {freed} when freed, {handed_over} when handed over");
}
