//! Warming up pools: what was prepared is there when it is needed.

use shockwave_alloc::pool::{
    ArenaPool, BufferPool, PooledRequest, PooledResponse, RequestPool, SlabPool, StandardPool,
};
use shockwave_alloc::{Mode, Shockwave, Stats, set_mode, stats};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

const COUNT: usize = 1000;

/// Page faults of this thread that needed no disk, so far.
fn minor_faults() -> u64 {
    // SAFETY: the structure consists of numbers, for which zero is a value, and the call writes to nothing else.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
        usage
    };
    usage.ru_minflt as u64
}

/// What must not change: calls to the backing allocator, memory taken from the OS, slabs, pages, and live blocks outside
/// of arenas.
fn heaps(stats: &Stats) -> [u64; 8] {
    [
        stats.backing_calls,
        stats.committed_bytes,
        stats.slabs,
        stats.slab_pages,
        stats.slab.blocks,
        stats.mid.blocks,
        stats.large.blocks,
        stats.bypassed_blocks,
    ]
}

/// Runs `f` and returns the page faults in it, after a check that it took nothing from a heap.
fn without_heap(name: &str, f: impl FnOnce()) -> u64 {
    let before = stats();
    let faults = minor_faults();
    f();
    let faults = minor_faults() - faults;
    let after = stats();
    assert_eq!(heaps(&before), heaps(&after), "{name}:\n{before}\n\n{after}");
    faults
}

/// Takes `COUNT` requests and responses and fills each with almost 2 KiB.
fn use_many<'pool>(
    pool: &'pool dyn RequestPool,
    requests: &mut Vec<PooledRequest<'pool>>,
    responses: &mut Vec<PooledResponse<'pool>>,
) {
    let body = [7; 1800];
    for _ in 0..COUNT {
        let mut request = pool.get();
        request.set_method("GET");
        request.add_header("Host", "example.com");
        request.set_body(body);
        requests.push(request);
        let mut response = pool.get_response();
        response.add_header("Content-Type", "text/plain");
        response.set_body(body);
        responses.push(response);
    }
}

fn messages(name: &str, pool: &dyn RequestPool, cold: &dyn RequestPool) {
    let (mut requests, mut responses) = (Vec::with_capacity(COUNT), Vec::with_capacity(COUNT));
    // So that the vectors and the code are not what faults.
    use_many(cold, &mut requests, &mut responses);
    requests.clear();
    responses.clear();

    pool.warm_up(COUNT);
    assert_eq!((pool.stats().created, pool.stats().retained), (COUNT as u64, COUNT as u64), "{name}");
    for round in 0..2 {
        let faults = without_heap(name, || use_many(pool, &mut requests, &mut responses));
        assert_eq!(faults, 0, "{name}, round {round}: page faults");
        for stats in [pool.stats(), pool.response_stats()] {
            assert_eq!(
                (stats.misses, stats.created, stats.in_use),
                (0, COUNT as u64, COUNT as u64),
                "{name}"
            );
        }
        without_heap(name, || {
            requests.clear();
            responses.clear();
        });
        assert_eq!((pool.stats().discards, pool.stats().retained), (0, COUNT as u64), "{name}");
    }
    if name != "arena" {
        // No object needed more than what it was made with.
        assert_eq!(pool.stats().bytes_allocated, COUNT as u64 * 2048, "{name}");
    }
    // Again is not twice.
    pool.warm_up(COUNT);
    assert_eq!(pool.stats().created, COUNT as u64, "{name}");
}

fn buffers(pool: &'static BufferPool, cold: &'static BufferPool, standard: &'static BufferPool) {
    let mut held = Vec::with_capacity(6 * COUNT);
    let use_many = |pool: &'static BufferPool, held: &mut Vec<_>| {
        for len in [2048, 4096, 8192, 16_384, 32_768, 65_536] {
            for _ in 0..COUNT / 10 {
                let mut buffer = pool.get(len);
                buffer.resize(len, 9);
                held.push(buffer);
            }
        }
    };
    // So that the vector and the code are not what faults.
    use_many(cold, &mut held);
    held.clear();
    pool.warm_up(COUNT / 10);
    let faults = without_heap("buffers", || use_many(pool, &mut held));
    assert_eq!(faults, 0, "page faults");
    without_heap("buffers", || held.clear());
    let stats = pool.stats();
    assert_eq!((stats.misses, stats.created, stats.in_use), (0, 6 * COUNT as u64 / 10, 0));
    pool.warm_up_for(3000, COUNT);
    assert_eq!(pool.class_stats()[1].stats.created, COUNT as u64);

    // The system allocator knows that memory is zero without touching it.
    set_mode(Mode::Standard);
    standard.warm_up_for(64 << 10, 100);
    let faults = minor_faults();
    (0..100).for_each(|_| held.push(standard.get(64 << 10)));
    held.iter_mut().for_each(|buffer| buffer.resize(64 << 10, 1));
    let faults = minor_faults() - faults;
    assert_eq!(faults, 0, "page faults");
}

// One test: it is about the whole process.
#[test]
fn pools_that_were_warmed_up_need_nothing_new() {
    // What reading the counters needs.
    drop(stats().to_string());

    // The measure works: without warming up this takes a page fault for every other object.
    let pool = SlabPool::new();
    let (mut requests, mut responses) = (Vec::with_capacity(COUNT), Vec::with_capacity(COUNT));
    let before = (stats(), minor_faults());
    use_many(&pool, &mut requests, &mut responses);
    assert!(minor_faults() - before.1 >= COUNT as u64 / 2);
    assert_ne!(heaps(&before.0), heaps(&stats()));
    drop((requests, responses));

    messages("standard", &StandardPool::new(), &StandardPool::new());
    messages("slab", &SlabPool::new(), &SlabPool::new());
    messages("arena", &ArenaPool::new(), &ArenaPool::new());
    static BUFFERS: [BufferPool; 3] = [const { BufferPool::new() }; 3];
    buffers(&BUFFERS[0], &BUFFERS[1], &BUFFERS[2]);
}
