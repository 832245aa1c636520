//! Debug builds: frees whose layout does not fit the block.

use core::alloc::Layout;

use super::current;
use crate::header::PageHeader;
use crate::size_class::{self, SMALL_MAX};
use crate::stats::UNATTACHED;
use crate::sync::Ordering;
use crate::{invariant, page, startup};

/// Reports, in debug builds, a free whose layout does not fit the block.
#[cold]
fn report_mismatch(header: &PageHeader, ptr: *const u8, layout: Layout) {
    use invariant::{Decimal, say};
    if !page::is_block(header, ptr) {
        invariant::fatal("free of an address that is not the start of a block");
    }
    let counter = match current().attached() {
        Some(heap) => {
            heap.counters.mismatches.add(1);
            &heap.counters.mismatches
        }
        None => {
            UNATTACHED.mismatches.add_shared(1);
            &UNATTACHED.mismatches
        }
    };
    // A program that does this does it often.
    if counter.get() <= 10 {
        say(&[
            b"shockwave: a block of ",
            Decimal::new(u64::from(header.block_size.load(Ordering::Relaxed))).as_bytes(),
            b" B was freed with a layout of ",
            Decimal::new(layout.size() as u64).as_bytes(),
            b" B aligned to ",
            Decimal::new(layout.align() as u64).as_bytes(),
            b" B: the program (or a library it uses) calls dealloc with a wrong layout\n",
        ]);
    }
}

pub(super) fn check_layout(header: &PageHeader, ptr: *const u8, layout: Layout) {
    let extent = size_class::extent(layout.size(), layout.align());
    let class = usize::from(header.class.load(Ordering::Relaxed));
    // A block may have been shrunk in place to half its size, not further.
    let block = size_class::size_of_class(class);
    let fits = extent < SMALL_MAX && startup::class_of(extent) <= class && layout.size() > 0;
    if !fits || (block > 8 && (extent + 1) * 2 < block) || !page::is_block(header, ptr) {
        report_mismatch(header, ptr, layout);
    }
}
