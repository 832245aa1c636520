//! Which free pages the OS provides memory for: a bit each.

use core::cell::Cell;
use core::ops::Range;

/// A bit for each page of the reservation, set while the page is free and may hold something other than zeros.
///
/// Belongs to the space and is used under its lock. It lies behind the table of page headers, so that marking a long run does not
/// touch the headers of its pages.
pub(super) struct Dirty {
    words: &'static [Cell<u64>],
    /// Number of bits that are set.
    count: usize,
}

impl Dirty {
    pub(super) const NONE: Dirty = Dirty { words: &[], count: 0 };

    /// Bytes that the bits of `pages` pages take.
    pub(super) const fn bytes(pages: usize) -> usize {
        pages.div_ceil(64) * 8
    }

    /// # Safety
    ///
    /// At `start`, a multiple of 8, there must be [`bytes`](Self::bytes)`(pages)` zeroed bytes that nobody else uses, for ever.
    pub(super) unsafe fn new(start: *mut u8, pages: usize) -> Dirty {
        // SAFETY: by the caller's promise; zeros are valid.
        let words = unsafe { core::slice::from_raw_parts(start.cast::<Cell<u64>>(), pages.div_ceil(64)) };
        Dirty { words, count: 0 }
    }

    /// Number of dirty free pages.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Marks pages that have become free.
    pub(super) fn set(&mut self, pages: Range<usize>) {
        let mut set = 0;
        self.for_words(pages, |word, mask| {
            set += (mask & !word.get()).count_ones() as usize;
            word.set(word.get() | mask);
        });
        self.count += set;
    }

    /// Forgets about pages that were given out or purged. Returns how many of them were dirty.
    pub(super) fn clear(&mut self, pages: Range<usize>) -> usize {
        let mut cleared = 0;
        self.for_words(pages, |word, mask| {
            cleared += (mask & word.get()).count_ones() as usize;
            word.set(word.get() & !mask);
        });
        self.count -= cleared;
        cleared
    }

    /// The last dirty pages before `end`: adjacent ones, at most `most`.
    pub(super) fn last_before(&self, end: usize, most: usize) -> Option<Range<usize>> {
        let top = self.words.get(..end.div_ceil(64))?;
        let index = top.iter().rposition(|word| word.get() != 0)?;
        let last = index * 64 + 63 - top[index].get().leading_zeros() as usize;
        let mut first = last;
        while first > 0 && last - first + 1 < most && self.is_set(first - 1) {
            first -= 1;
        }
        Some(first..last + 1)
    }

    /// Whether a page is free and dirty.
    pub(super) fn is_set(&self, page: usize) -> bool {
        self.words.get(page / 64).is_some_and(|word| word.get() >> (page % 64) & 1 != 0)
    }

    /// Calls `change` with each word that has bits of `pages`, and the mask of these.
    fn for_words(&self, pages: Range<usize>, mut change: impl FnMut(&Cell<u64>, u64)) {
        let mut page = pages.start;
        while page < pages.end {
            let Some(word) = self.words.get(page / 64) else { return };
            let upto = (page / 64 * 64 + 64).min(pages.end);
            let mask = (u64::MAX >> (64 - (upto - page))) << (page % 64);
            change(word, mask);
            page = upto;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(pages: usize) -> Dirty {
        let words = vec![0u64; pages.div_ceil(64)].leak();
        // SAFETY: leaked, zeroed, and nobody else's.
        unsafe { Dirty::new(words.as_mut_ptr().cast(), pages) }
    }

    #[test]
    fn ranges_are_what_a_list_of_flags_says() {
        let mut dirty = bits(300);
        let mut model = [false; 300];
        let mut random = 1u64;
        for turn in 0..2000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let start = (random >> 33) as usize % 300;
            let end = (start + (random >> 50) as usize % 140).min(300);
            let before = model[start..end].iter().filter(|flag| **flag).count();
            if turn % 2 == 0 {
                dirty.set(start..end);
                model[start..end].fill(true);
            } else {
                assert_eq!(dirty.clear(start..end), before);
                model[start..end].fill(false);
            }
            assert_eq!(dirty.count(), model.iter().filter(|flag| **flag).count());
            let most = 1 + (random >> 40) as usize % 20;
            let last = model.iter().rposition(|flag| *flag);
            let expected = last.map(|last| {
                let run = model[..=last].iter().rev().take_while(|flag| **flag).count();
                last + 1 - run.min(most)..last + 1
            });
            assert_eq!(dirty.last_before(300, most), expected);
        }
    }
}
