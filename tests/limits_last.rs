//! A reservation of 16 MiB and no more memory than that: before an allocation fails, what others keep is looked for.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};

use refusing::{REFUSES, Refusing};
use shockwave_alloc::{Mode, Shockwave, set_mode, stats};

mod refusing;

#[global_allocator]
static GLOBAL: Shockwave<Refusing> = Shockwave::with_backing(Refusing).with_reservation(16 << 20);

const THREADS: usize = 6;

#[test]
fn what_sleeping_threads_keep_is_enough_for_one_more_block() {
    let layout = Layout::from_size_align(64 << 10, 8).unwrap();
    set_mode(Mode::Standard);
    let short = Layout::from_size_align(100, 8).unwrap();
    // SAFETY: the layout has a size, and the block is as long.
    let of_backing = unsafe {
        let block = alloc(short);
        block.write_bytes(0x77, 100);
        block
    };
    set_mode(Mode::Arena);
    let (filled, done) = (Arc::new(Barrier::new(THREADS + 1)), Arc::new(Barrier::new(THREADS + 1)));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (filled, done) = (Arc::clone(&filled), Arc::clone(&done));
            std::thread::spawn(move || {
                // Freed, and kept for the thread's next requests.
                drop((0..12).map(|_| vec![thread as u8; 64 << 10]).collect::<Vec<_>>());
                filled.wait();
                done.wait();
                vec![thread as u8; 64 << 10].iter().all(|&byte| byte == thread as u8)
            })
        })
        .collect();
    filled.wait();
    let mut blocks: Vec<*mut u8> = Vec::with_capacity(1000);
    let kept = stats();
    // Nothing is asserted while there is no memory for a message.
    let mut all_zero = true;
    REFUSES.store(true, Ordering::Relaxed);
    loop {
        // SAFETY: the layout has a size.
        let block =
            unsafe { if blocks.len().is_multiple_of(2) { alloc(layout) } else { alloc_zeroed(layout) } };
        if block.is_null() {
            break;
        }
        if !blocks.len().is_multiple_of(2) {
            // SAFETY: the block has this size and was zeroed.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            all_zero &= bytes.iter().all(|&byte| byte == 0);
        }
        // SAFETY: as above.
        unsafe { block.write_bytes(0xEE, layout.size()) };
        blocks.push(block);
    }
    // More than can ever be there.
    // SAFETY: the layout has a size.
    let too_much = unsafe { alloc(Layout::from_size_align(1 << 30, 8).unwrap()) };
    // What lives with the backing allocator moves, when there is a place for it.
    // SAFETY: the blocks have these layouts, and neither is used after that.
    let moved = unsafe {
        dealloc(blocks.pop().expect("a block"), layout);
        realloc(of_backing, short, 60 << 10)
    };
    REFUSES.store(false, Ordering::Relaxed);
    assert!(all_zero && too_much.is_null());
    assert!(!moved.is_null());
    // SAFETY: the block has this size, of which the first 100 bytes were written.
    unsafe {
        assert!(std::slice::from_raw_parts(moved, 100).iter().all(|&byte| byte == 0x77));
        dealloc(moved, Layout::from_size_align(60 << 10, 8).unwrap());
    }
    let count = blocks.len();
    for block in blocks {
        // SAFETY: it was allocated with this layout.
        unsafe {
            assert_eq!(block.add(layout.size() - 1).read(), 0xEE);
            dealloc(block, layout);
        }
    }
    done.wait();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    // 256 pages less the tables' and those of small objects; 72 of them were with the sleeping threads.
    assert!(count > 150, "{count} blocks of 64 KiB\n{kept}\n{}", stats());
}
