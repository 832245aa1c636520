//! No reservation at all: the OS refuses even 1 MiB of address space at the first allocation. Everything goes
//! to the backing allocator, and the program does not notice.

mod churn;

use std::ffi::{c_char, c_int};

use churn::{Block, Random, poison};
use shockwave_alloc::{Mode, RequestArena, Shockwave, mode, set_mode, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

#[repr(C)]
struct Limit {
    soft: u64,
    hard: u64,
}

const RLIMIT_AS: c_int = 9;

unsafe extern "C" {
    fn getrlimit(resource: c_int, limit: *mut Limit) -> c_int;
    fn setrlimit(resource: c_int, limit: *const Limit) -> c_int;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn read(file: c_int, buffer: *mut u8, count: usize) -> isize;
    fn close(file: c_int) -> c_int;
}

/// Bytes of address space in use, found out without an allocation.
fn address_space() -> u64 {
    let mut text = [0u8; 64];
    // SAFETY: the path is a C string, the buffer is as long as said, and the file is closed again.
    let length = unsafe {
        let file = open(c"/proc/self/statm".as_ptr(), 0);
        let length = read(file, text.as_mut_ptr(), text.len());
        close(file);
        length
    };
    assert!(length > 0);
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0')) * 4096
}

/// Makes the first allocation of the process under a limit that leaves room for a small one only.
extern "C" fn first_allocation() {
    let mut limit = Limit { soft: 0, hard: 0 };
    // SAFETY: both calls get a valid structure. The old limit is restored before anything else happens.
    unsafe {
        assert_eq!(getrlimit(RLIMIT_AS, &mut limit), 0);
        let tight = Limit { soft: address_space() + (700 << 10), hard: limit.hard };
        assert_eq!(setrlimit(RLIMIT_AS, &tight), 0);
        drop(std::hint::black_box(Box::new(1u64)));
        assert_eq!(setrlimit(RLIMIT_AS, &limit), 0);
    }
}

// Before `main`, and so before the harness allocates.
#[used]
#[unsafe(link_section = ".init_array")]
static FIRST_ALLOCATION: extern "C" fn() = first_allocation;

#[test]
fn everything_works_without_a_reservation() {
    let before = stats();
    assert_eq!((before.reserved_bytes, before.committed_bytes, before.heaps), (0, 0, 0), "{before}");
    for of in [Mode::Arena, Mode::Standard, Mode::Slab, Mode::Arena] {
        set_mode(of);
        assert_eq!(mode(), of);
        let before = stats();
        let threads: Vec<_> = (0..4)
            .map(|seed| {
                std::thread::spawn(move || {
                    let mut random = Random::new(seed);
                    let arena = RequestArena::new();
                    let mut blocks: Vec<Block> = (0..300).map(|_| Block::random(&mut random)).collect();
                    blocks.extend(arena.run(|| (0..300).map(|n| Block::new(100, 8, n)).collect::<Vec<_>>()));
                    with_request_arena(|| {
                        blocks.iter_mut().step_by(2).for_each(|block| block.resize(random.size()));
                    });
                    assert_eq!(arena.stats(), Default::default(), "there is no arena without memory");
                    blocks
                })
            })
            .collect();
        let blocks: Vec<Block> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        poison();
        blocks.iter().for_each(Block::check);
        let full = stats();
        assert!(full.backing.blocks >= before.backing.blocks + 2400, "{full}");
        assert_eq!(full.fallbacks > before.fallbacks + 2400, of != Mode::Standard, "{of}\n{full}");
        drop(blocks);
        let after = stats();
        assert!(after.backing.blocks <= before.backing.blocks + 20, "{before}\n{after}");
        assert_eq!((after.reserved_bytes, after.slabs, after.arenas_closed), (0, 0, 0));
    }
}
