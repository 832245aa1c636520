//! A reservation of 16 MiB and no more memory than that: what a request needs is found among what is meant to live for long.

use std::alloc::{GlobalAlloc, Layout, System, alloc, dealloc};
use std::sync::atomic::{AtomicBool, Ordering};

use shockwave_alloc::{RequestArena, Shockwave};

/// The system's memory, until there is none.
struct Refusing;

static REFUSES: AtomicBool = AtomicBool::new(false);

// SAFETY: hands calls on, or refuses, which is allowed.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if REFUSES.load(Ordering::Relaxed) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static GLOBAL: Shockwave<Refusing> = Shockwave::with_backing(Refusing).with_reservation(16 << 20);

/// More than there is room for.
const MOST: usize = 20_000;

/// Makes blocks until there is no memory, and fills them with `byte`.
fn fill(blocks: &mut Vec<*mut u8>, layout: Layout, byte: u8) {
    while blocks.len() < MOST {
        // SAFETY: the layout has a size.
        let block = unsafe { alloc(layout) };
        if block.is_null() {
            break;
        }
        // SAFETY: the block is new, and as long.
        unsafe { block.write_bytes(byte, layout.size()) };
        blocks.push(block);
    }
}

fn are_all(blocks: &[*mut u8], layout: Layout, byte: u8) -> bool {
    blocks.iter().all(|block| {
        // SAFETY: the blocks are live, as long, and were written.
        unsafe { std::slice::from_raw_parts(*block, layout.size()) }.iter().all(|&is| is == byte)
    })
}

#[test]
fn what_one_term_has_free_serves_the_other() {
    let layout = Layout::from_size_align(1000, 8).unwrap();
    let [mut long, mut short, mut again] = [const { Vec::new() }; 3].map(|mut blocks: Vec<*mut u8>| {
        blocks.reserve_exact(MOST);
        blocks
    });
    // Over its limit at once, so that all it needs comes from the slab, and not as what is meant to stay.
    let arena = RequestArena::builder().soft_limit(1).build();
    arena.run(|| drop(Box::new(1u64)));
    // Nothing is asserted while there is no memory for a message.
    REFUSES.store(true, Ordering::Relaxed);
    fill(&mut long, layout, 1);
    let made = long.len();
    // Every second one, so that no page is free.
    let mut index = 0;
    long.retain(|block| {
        index += 1;
        if index % 2 == 0 {
            // SAFETY: the block is live and not used afterwards.
            unsafe { dealloc(*block, layout) };
        }
        index % 2 != 0
    });
    arena.run(|| fill(&mut short, layout, 2));
    // And the other way round.
    let (found, kept) = (short.len(), short.len() / 2);
    // SAFETY: the blocks are live and not used afterwards.
    short.drain(kept..).for_each(|block| unsafe { dealloc(block, layout) });
    fill(&mut again, layout, 3);
    REFUSES.store(false, Ordering::Relaxed);
    let intact = are_all(&long, layout, 1) && are_all(&short, layout, 2) && are_all(&again, layout, 3);
    [&long, &short, &again].into_iter().flatten().for_each(|block| {
        // SAFETY: the block is live and not used afterwards.
        unsafe { dealloc(*block, layout) }
    });
    assert!(intact);
    assert!(made > 8_000, "{made}");
    assert!(found > made / 2 - 100, "{found} of {} free blocks", made / 2);
    assert!(again.len() + 100 > found - kept, "{} of {} free blocks", again.len(), found - kept);
}
