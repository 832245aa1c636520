//! What holds over every backing allocator, for the binaries that have one each.

use shockwave_alloc::{Mode, RequestArena, Stats, mode, set_mode, stats, with_request_arena};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;

use crate::churn::{Block, Random, poison};

const MODES: [Mode; 3] = [Mode::Standard, Mode::Slab, Mode::Arena];

/// Calls to the backing allocator that `work` makes.
pub fn calls(work: impl FnOnce()) -> u64 {
    let before = stats().backing_calls;
    work();
    stats().backing_calls - before
}

/// A request of a server: small objects, a growing buffer, some maps. Ends with what it began with.
pub fn request(number: usize) -> usize {
    let fields: Vec<String> = (0..30).map(|field| format!("field {field} of {number}")).collect();
    let map: std::collections::BTreeMap<&str, usize> =
        fields.iter().map(|field| (field.as_str(), field.len())).collect();
    let mut body = Vec::new();
    while body.len() < 20_000 {
        body.extend_from_slice(fields[body.len() % 30].as_bytes());
    }
    let big = black_box(vec![1u8; 200_000]);
    map.values().sum::<usize>() + body.len() + big.len()
}

/// The same program in the mode the process was started in; `expected` names it.
pub fn works_in_the_mode_of_the_process(expected: &str) {
    assert_eq!(mode().name(), expected);
    let before = stats();
    let mut random = Random::new(1);
    let mut blocks: Vec<Block> = Vec::new();
    for round in 0..2000 {
        let mut step = || {
            blocks.push(Block::random(&mut random));
            if round % 3 == 0 {
                let place = random.below(blocks.len());
                blocks[place].resize(random.size());
            }
        };
        if round % 2 == 0 {
            with_request_arena(step)
        } else {
            step()
        }
        if blocks.len() > 200 {
            blocks.swap_remove(random.below(200));
        }
    }
    poison();
    blocks.iter().for_each(Block::check);
    std::thread::spawn(move || drop(blocks)).join().expect("blocks may be freed by another thread");
    let after = stats();
    assert_eq!(after.fallbacks, 0);
    assert_eq!(after.backing, before.backing, "all is freed where it was allocated");
    if mode() == Mode::Standard {
        every_call_is_counted(&after);
    } else {
        assert_eq!(after.backing_calls, 0, "nothing but the reservation is used");
        let steady = calls(|| {
            for number in 0..100 {
                black_box(with_request_arena(|| request(number)));
            }
        });
        assert_eq!(steady, 0);
    }
}

fn every_call_is_counted(before: &Stats) {
    let layout = Layout::from_size_align(100, 8).expect("a layout");
    // SAFETY: each block is freed once, with the layout it has.
    let counted = calls(|| unsafe {
        for _ in 0..10 {
            let block = realloc(alloc(layout), layout, 300);
            let zeroed = alloc_zeroed(layout);
            assert_eq!(*zeroed, 0);
            dealloc(black_box(zeroed), layout);
            dealloc(black_box(block), Layout::from_size_align(300, 8).expect("a layout"));
        }
    });
    assert_eq!(counted, 50);
    let kept = [(1000, 16), (50_000, 64), (2 << 20, 4096)].map(|(size, align)| Block::new(size, align, 1));
    let now = stats();
    assert_eq!(now.backing.blocks - before.backing.blocks, 3);
    assert_eq!(now.backing.bytes - before.backing.bytes, 1000 + 50_000 + (2 << 20));
    drop(kept);
    // Reallocations move bytes, not blocks.
    let mut block = Block::new(100, 8, 1);
    block.resize(5000);
    let now = stats();
    assert_eq!(
        (now.backing.blocks - before.backing.blocks, now.backing.bytes - before.backing.bytes),
        (1, 5000)
    );
    drop(block);
    assert_eq!(stats().backing, before.backing);
    assert!(calls(|| assert!(request(1) > 0)) > 60, "a request makes calls");
    assert_eq!(stats().slab_pages, 0, "the reservation is not used");
}

/// Blocks of the backing allocator live on in the other modes, and the other way round.
pub fn blocks_cross_modes() {
    let arena = RequestArena::new();
    for from in MODES {
        for to in MODES {
            set_mode(from);
            let before = stats();
            let mut random = Random::new(1);
            let mut blocks: Vec<Block> = (0..300).map(|_| Block::random(&mut random)).collect();
            set_mode(to);
            arena.run(|| blocks.iter_mut().step_by(2).for_each(|block| block.resize(random.size())));
            poison();
            blocks.iter().for_each(Block::check);
            drop(blocks);
            set_mode(Mode::Standard);
            let after = stats();
            assert_eq!(after.backing, before.backing, "from {from} to {to}");
            assert_eq!((after.mid, after.large), (before.mid, before.large), "from {from} to {to}");
        }
    }
    set_mode(Mode::Arena);
}

/// The tests that every binary has. The caller's `GLOBAL` is the allocator.
#[macro_export]
macro_rules! backing_tests {
    () => {
        #[test]
        fn works_in_each_mode() {
            if let Some(part) = child::part() {
                assert!(child::alone("works_in_each_mode"));
                return backing::works_in_the_mode_of_the_process(&part);
            }
            for mode in ["standard", "slab", "arena"] {
                let mut command = child::command("works_in_each_mode", mode);
                command.env("SHOCKWAVE_MODE", mode);
                assert_eq!(child::run(command).1, "");
            }
        }

        #[test]
        fn blocks_cross_modes() {
            if child::alone("blocks_cross_modes") {
                backing::blocks_cross_modes();
            }
        }
    };
}
