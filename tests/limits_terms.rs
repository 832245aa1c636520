//! A reservation of 16 MiB and no more memory than that: what a request needs is found among what is meant to live for long.

use std::alloc::{Layout, alloc, dealloc};
use std::sync::atomic::Ordering;

use refusing::{REFUSES, Refusing};
use shockwave_alloc::{RequestArena, Shockwave};

mod child;
mod refusing;

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

/// Frees every second block, so that no page is free.
fn free_half(blocks: &mut Vec<*mut u8>, layout: Layout) {
    let mut index = 0;
    blocks.retain(|block| {
        index += 1;
        if index % 2 == 0 {
            // SAFETY: the block is live and not used afterwards.
            unsafe { dealloc(*block, layout) };
        }
        index % 2 != 0
    });
}

fn free_all(blocks: &mut Vec<*mut u8>, layout: Layout) {
    // SAFETY: the blocks are live and not used afterwards.
    blocks.drain(..).for_each(|block| unsafe { dealloc(block, layout) });
}

fn are_all(blocks: &[*mut u8], layout: Layout, byte: u8) -> bool {
    blocks.iter().all(|block| {
        // SAFETY: the blocks are live, as long, and were written.
        unsafe { std::slice::from_raw_parts(*block, layout.size()) }.iter().all(|&is| is == byte)
    })
}

#[test]
fn what_one_term_has_free_serves_the_other() {
    if !child::alone("what_one_term_has_free_serves_the_other") {
        return;
    }
    let layout = Layout::from_size_align(1000, 8).unwrap();
    let [mut first, mut second] = [const { Vec::new() }; 2].map(|mut blocks: Vec<*mut u8>| {
        blocks.reserve_exact(MOST);
        blocks
    });
    // Over its limit at once, so that all it needs comes from the slab, and not as what is meant to stay.
    let arena = RequestArena::builder().soft_limit(1).build();
    arena.run(|| drop(Box::new(1u64)));
    let mut results = [(0, 0, false); 2];
    // Nothing is asserted while there is no memory for a message.
    REFUSES.store(true, Ordering::Relaxed);
    for (inside_first, result) in [false, true].into_iter().zip(&mut results) {
        let fill = |inside: bool, blocks: &mut Vec<*mut u8>, byte| {
            if inside { arena.run(|| fill(blocks, layout, byte)) } else { fill(blocks, layout, byte) }
        };
        fill(inside_first, &mut first, 1);
        let made = first.len();
        free_half(&mut first, layout);
        fill(!inside_first, &mut second, 2);
        *result = (made, second.len(), are_all(&first, layout, 1) && are_all(&second, layout, 2));
        free_all(&mut first, layout);
        free_all(&mut second, layout);
    }
    REFUSES.store(false, Ordering::Relaxed);
    assert!(arena.over_limit());
    for (made, found, intact) in results {
        assert!(intact);
        assert!(made > 8_000, "{made}");
        assert!(found > made / 2 - 100, "{found} of {} free blocks", made / 2);
    }
}
