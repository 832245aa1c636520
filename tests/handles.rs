//! Values bound to an arena: contents, alignment, nesting with scopes, checkpoints, memory.

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard};

use proptest::prelude::*;
use shockwave_alloc::{ArenaScope, Mode, RequestArena, Shockwave, set_mode, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

mod child;

/// The mode is the process's, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `test` in each mode.
fn in_each_mode(test: impl Fn()) {
    let _alone = alone();
    for mode in [Mode::Standard, Mode::Slab, Mode::Arena] {
        set_mode(mode);
        test();
    }
}

#[repr(align(256))]
#[derive(Clone, Copy, PartialEq, Debug)]
struct Aligned(u8);

fn assert_aligned<T>(value: &T) {
    assert_eq!(std::ptr::from_ref(value).addr() % align_of::<T>(), 0);
}

#[test]
fn values_of_all_kinds_keep_their_contents() {
    in_each_mode(|| {
        let arena = RequestArena::new();
        let number = arena.alloc(7u64);
        let text = arena.alloc_str("text");
        let bytes = arena.alloc_slice_copy(&[1u8, 2, 3]);
        let aligned = arena.alloc(Aligned(9));
        let squares = arena.alloc_slice_fill_with(1000, |index| index * index);
        let big = arena.alloc_slice_fill_with(100_000, |index| index as u8);
        let aligned_slice = arena.alloc_slice_fill_with(3, |index| Aligned(index as u8));
        let nothing = arena.alloc(());
        let empty = arena.alloc_slice_copy::<u64>(&[]);
        let after = arena.alloc_with(|| (1u8, 2u32));
        assert_aligned(number);
        assert_aligned(aligned);
        assert_aligned(&aligned_slice[2]);
        assert_aligned(after);
        *number += 1;
        text.make_ascii_uppercase();
        bytes[0] = 10;
        assert_eq!((*number, &*text, &*bytes), (8, "TEXT", &[10u8, 2, 3][..]));
        assert_eq!((*aligned, *nothing, empty.len(), *after), (Aligned(9), (), 0, (1, 2)));
        assert_eq!(aligned_slice, [Aligned(0), Aligned(1), Aligned(2)]);
        assert!(squares.iter().enumerate().all(|(index, square)| *square == index * index));
        assert!(big.iter().enumerate().all(|(index, byte)| *byte == index as u8));
    });
}

#[test]
fn scopes_of_any_arena_and_handles_do_not_meet() {
    in_each_mode(|| {
        let arena = RequestArena::new();
        let outside = arena.alloc([1u8; 100]);
        let inside = arena.run(|| {
            let scratch = black_box(vec![0xFFu8; 3000]);
            let inside = arena.alloc_slice_copy(&[2u8; 2000]);
            assert!(scratch.iter().all(|&byte| byte == 0xFF));
            inside
        });
        let other = with_request_arena(|| {
            let scratch = black_box(vec![0xFFu8; 3000]);
            let other = arena.alloc_slice_copy(&[3u8; 5000]);
            drop(scratch);
            other
        });
        // Churn: whatever was taken back by mistake is overwritten.
        for _ in 0..50 {
            with_request_arena(|| drop(black_box((0..60).map(|_| vec![0xEEu8; 900]).collect::<Vec<_>>())));
            drop(black_box(vec![0xEEu8; 4096]));
        }
        assert!(outside.iter().all(|&byte| byte == 1));
        assert!(inside.iter().all(|&byte| byte == 2));
        assert!(other.iter().all(|&byte| byte == 3));
    });
}

#[test]
fn handles_made_in_a_scope_pin_no_chunk() {
    let _alone = alone();
    set_mode(Mode::Arena);
    let before = stats();
    let arenas: Vec<RequestArena> = (0..50).map(|_| RequestArena::new()).collect();
    for arena in &arenas {
        with_request_arena(|| {
            arena.alloc_str("lives as long as its arena, not as the scope");
        });
    }
    assert_eq!(stats().pinned_chunks, before.pinned_chunks);
    assert_eq!(stats().escaped_blocks, before.escaped_blocks);
}

#[test]
fn handles_below_many_scopes_pin_no_chunk_either() {
    fn nested(depth: usize, f: &mut dyn FnMut()) {
        if depth == 0 { f() } else { with_request_arena(|| nested(depth - 1, f)) }
    }
    let _alone = alone();
    set_mode(Mode::Arena);
    for depth in [1, 31, 32, 33, 40] {
        let before = stats();
        let arena = RequestArena::new();
        nested(depth, &mut || assert_eq!(arena.alloc_str("below"), "below"));
        assert_eq!(stats().escaped_blocks, before.escaped_blocks, "{depth} scopes");
    }
}

#[test]
fn big_and_small_values_in_turn_lose_no_room() {
    // Counts memory, which other tests take even while they wait.
    if !child::alone("big_and_small_values_in_turn_lose_no_room") {
        return;
    }
    set_mode(Mode::Standard);
    let before = stats().backing.bytes;
    let mut arena = RequestArena::new();
    let mut scope = arena.scope();
    let small: Vec<&mut [u8]> = (0..100u8)
        .map(|round| {
            let mut checkpoint = scope.checkpoint();
            checkpoint.scope().alloc_slice_copy(&[0xFFu8; 9_000]);
            drop(checkpoint);
            scope.alloc_slice_copy(&[0xEEu8; 17_000]);
            scope.alloc_slice_copy(&[round; 10])
        })
        .collect();
    let held = stats().backing.bytes - before;
    assert!(held < 1_800_000, "{held}");
    assert!(small.iter().enumerate().all(|(round, block)| block.iter().all(|&byte| byte == round as u8)));
    set_mode(Mode::Arena);
}

#[test]
fn handles_of_a_wiping_arena_leave_nothing() {
    let _alone = alone();
    for wiping in [true, false] {
        let mut arena = RequestArena::builder().zero_freed(wiping).build();
        arena.alloc(0u64);
        let secret = arena.alloc_slice_copy(&[0x5Cu8; 200]).as_ptr();
        arena.reset();
        // The block is kept, to be handed out again.
        let memory = std::fs::File::open("/proc/self/mem").expect("Linux");
        let mut found = vec![0u8; 200];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut found, secret.addr() as u64)
            .expect("readable");
        assert_eq!(found.contains(&0x5C), !wiping);
        let mut checkpoint = arena.checkpoint();
        let secret = checkpoint.scope().alloc_slice_copy(&[0x6Du8; 100]).as_ptr().addr();
        checkpoint.reset_to();
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut found[..100], secret as u64)
            .expect("readable");
        assert_eq!(found[..100].contains(&0x6D), !wiping);
        // Blocks that go back to the allocator: a newer one, one of a big value's own, and all with the arena.
        checkpoint.scope().alloc_slice_copy(&[0u8; 900]);
        let newer = checkpoint.scope().alloc_slice_copy(&[0x7Eu8; 900]).as_ptr().addr();
        let own = checkpoint.scope().alloc_slice_copy(&[0x7Eu8; 5_000]).as_ptr().addr();
        let mut holds = |address: usize| {
            std::os::unix::fs::FileExt::read_exact_at(&memory, &mut found, address as u64).expect("readable");
            found.contains(&0x7E)
        };
        assert!(holds(newer) && holds(own));
        checkpoint.reset_to();
        assert_eq!((holds(newer), holds(own)), (!wiping, !wiping));
        drop(checkpoint);
        let last = arena.alloc_slice_copy(&[0x7Eu8; 300]).as_ptr().addr();
        drop(arena);
        assert_eq!(holds(last), !wiping);
    }
}

#[test]
fn a_panic_while_a_slice_is_filled_leaves_the_arena_usable() {
    in_each_mode(|| {
        let arena = RequestArena::new();
        let before = arena.alloc(1u32);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            arena.alloc_slice_fill_with(100, |index| if index == 50 { panic!("planted") } else { index });
        }));
        assert!(panicked.is_err());
        let after = arena.alloc_slice_fill_with(100, |index| index);
        // Values may be made in the arena while a slice in it is filled.
        let nested = arena.alloc_slice_fill_with(10, |index| &*arena.alloc(index));
        assert!(after.iter().enumerate().all(|(index, value)| index == *value));
        assert!(nested.iter().enumerate().all(|(index, value)| index == **value));
        assert_eq!(*before, 1);
    });
}

#[test]
fn a_slice_that_was_not_filled_gives_its_place_back_if_that_is_still_the_newest() {
    let _alone = alone();
    // In the block that is there, in a new one, and in one of its own.
    for length in [50, 700, 1_000, 5_000] {
        let mut arena = RequestArena::new();
        assert_eq!(arena.alloc([1u8; 8]), &[1u8; 8]);
        let place = arena.checkpoint().scope().alloc_slice_fill_with(length, |_| 1u8).as_ptr();
        let fail = |at: usize, mut meanwhile: Option<&mut dyn FnMut()>| {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                arena.alloc_slice_fill_with(length, |index| {
                    if index == at {
                        resume_unwind(Box::new(()));
                    }
                    if let Some(meanwhile) = meanwhile.take() {
                        meanwhile();
                    }
                    2u8
                });
            }));
            assert!(unwound.is_err());
        };
        for at in [0, 1, 45] {
            fail(at, None);
        }
        let after = arena.alloc_slice_fill_with(length, |_| 3u8);
        assert_eq!(after.as_ptr(), place, "{length}");
        let mut other = None;
        fail(45, Some(&mut || other = Some(arena.alloc_slice_copy(&[4u8; 300]))));
        let last = arena.alloc_slice_fill_with(length, |_| 5u8);
        let more = arena.alloc_slice_fill_with(2_000, |_| 6u8);
        assert!(after.iter().all(|&byte| byte == 3) && last.iter().all(|&byte| byte == 5));
        assert!(more.iter().all(|&byte| byte == 6));
        assert_eq!(other.as_deref(), Some(&[4u8; 300][..]), "what was made meanwhile stays");
    }
}

#[test]
fn sizes_that_no_memory_has_are_refused() {
    let _alone = alone();
    let arena = RequestArena::new();
    let refused = catch_unwind(AssertUnwindSafe(|| {
        arena.alloc_slice_fill_with(usize::MAX / 2, |_| 0u64);
    }));
    assert!(refused.is_err());
    assert_eq!(*arena.alloc(5), 5);
}

#[test]
fn drop_is_not_called() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    in_each_mode(|| {
        let mut arena = RequestArena::new();
        arena.alloc(Bomb);
        arena.reset();
        arena.alloc(Bomb);
        arena.close();
    });
}

#[test]
fn older_handles_stay_while_checkpoints_come_and_go() {
    in_each_mode(|| {
        let mut arena = RequestArena::new();
        let mut scope = arena.scope();
        let mut kept: Vec<&mut [u8]> = Vec::new();
        for round in 0..100u8 {
            kept.push(scope.alloc_slice_copy(&[round; 300]));
            let mut checkpoint = scope.checkpoint();
            for depth in 0..3 {
                let mut inner = checkpoint.scope();
                let scratch = inner.alloc_slice_copy(&[0xFFu8; 700]);
                let mut deeper = inner.checkpoint();
                deeper.scope().alloc_slice_fill_with(5000, |_| 0xEEu8);
                deeper.reset_to();
                let again = deeper.scope().alloc_slice_copy(&[0xDDu8; 700]);
                assert!(again.iter().all(|&byte| byte == 0xDD));
                drop(deeper);
                assert!(scratch.iter().all(|&byte| byte == 0xFF), "depth {depth}");
                checkpoint.reset_to();
            }
        }
        for (round, block) in kept.iter().enumerate() {
            assert!(block.iter().all(|&byte| byte == round as u8), "round {round}");
        }
    });
}

#[test]
fn going_back_uses_the_same_memory_again() {
    let _alone = alone();
    let mut arena = RequestArena::new();
    arena.alloc(1u8);
    let mut checkpoint = arena.checkpoint();
    let first = std::ptr::from_ref(checkpoint.scope().alloc([1u64; 8])).addr();
    checkpoint.reset_to();
    let second = std::ptr::from_ref(checkpoint.scope().alloc([1u64; 8])).addr();
    assert_eq!(first, second);
}

#[test]
fn memory_is_given_back_and_bounded() {
    // Counts memory, which other tests take even while they wait.
    if !child::alone("memory_is_given_back_and_bounded") {
        return;
    }
    set_mode(Mode::Standard);
    // Beyond the block that an arena keeps.
    const SLACK: u64 = 64 << 10;
    let live = || stats().backing.bytes;
    let before = live();
    let mut arena = RequestArena::new();
    assert!(live().abs_diff(before) < 512, "an arena without handles has no memory");
    arena.alloc_slice_fill_with(1 << 20, |_| 1u8);
    assert!(live() >= before + (1 << 20));
    arena.reset();
    assert!(live() <= before + SLACK, "{} bytes", live() - before);
    for _ in 0..1000 {
        arena.alloc_slice_fill_with(3000, |_| 1u8);
    }
    let full = live();
    arena.reset();
    let empty = live();
    assert!(empty <= before + SLACK && full > before + 2_900_000, "{before} {full} {empty}");
    for _ in 0..1000 {
        arena.alloc_slice_fill_with(3000, |_| 1u8);
        arena.reset();
    }
    assert!(live() <= empty + SLACK, "the block that is kept is used again");
    drop(arena);
    assert!(live() <= before + SLACK);
    set_mode(Mode::Arena);
}

#[test]
fn an_arena_with_handles_moves_between_threads() {
    in_each_mode(|| {
        let arena = RequestArena::new();
        arena.alloc_str("made here");
        let arena = std::thread::spawn(move || {
            assert_eq!(arena.alloc_str("made there"), "made there");
            arena
        })
        .join()
        .expect("a thread");
        assert_eq!(arena.alloc_slice_copy(&[1u8; 40_000]).len(), 40_000);
    });
}

/// One step of a random program.
#[derive(Clone, Debug)]
enum Step {
    Bytes(usize),
    Words(usize),
    Aligned(usize),
    Nested(Vec<Step>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let leaf = prop_oneof![
        (0usize..5000).prop_map(Step::Bytes),
        (0usize..300).prop_map(Step::Words),
        (1usize..4).prop_map(Step::Aligned),
    ];
    let step =
        leaf.prop_recursive(4, 40, 8, |inner| prop::collection::vec(inner, 1..8).prop_map(Step::Nested));
    prop::collection::vec(step, 1..30)
}

/// Runs the steps and checks after each level that nothing of it, or below it, has changed.
fn run<'a>(scope: &mut ArenaScope<'a>, program: &[Step], seed: u8) {
    let mut bytes: Vec<(u8, &'a mut [u8])> = Vec::new();
    let mut words: Vec<(u64, &'a mut [u64])> = Vec::new();
    let mut aligned: Vec<(u8, &'a mut [Aligned])> = Vec::new();
    for (index, step) in program.iter().enumerate() {
        let mark = seed.wrapping_add(index as u8);
        match step {
            Step::Bytes(len) => bytes.push((mark, scope.alloc_slice_fill_with(*len, |_| mark))),
            Step::Words(len) => {
                words.push((u64::from(mark), scope.alloc_slice_fill_with(*len, |_| u64::from(mark))))
            }
            Step::Aligned(len) => aligned.push((mark, scope.alloc_slice_fill_with(*len, |_| Aligned(mark)))),
            Step::Nested(program) => {
                let mut checkpoint = scope.checkpoint();
                run(&mut checkpoint.scope(), program, mark.wrapping_mul(31));
                if index % 2 == 0 {
                    checkpoint.reset_to();
                    run(&mut checkpoint.scope(), program, mark.wrapping_mul(37));
                }
            }
        }
        for (mark, block) in &mut bytes {
            assert!(block.iter().all(|byte| byte == mark));
        }
        for (mark, block) in &words {
            assert_eq!(block.as_ptr().addr() % 8, 0);
            assert!(block.iter().all(|word| word == mark));
        }
        for (mark, block) in &aligned {
            assert_eq!(block.as_ptr().addr() % 256, 0);
            assert!(block.iter().all(|value| value.0 == *mark));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_programs_keep_every_value(program in steps()) {
        let _alone = alone();
        let mut arena = RequestArena::new();
        run(&mut arena.scope(), &program, 1);
        arena.reset();
        run(&mut arena.scope(), &program, 2);
    }
}
