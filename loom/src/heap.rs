//! What the models of remote frees and of abandonment share: a heap of a few pages with a few blocks each.

use std::sync::Arc;

use loom::cell::UnsafeCell;

use crate::remote::{Chain, MailLink, Mailbox, RemoteFrees};

/// Blocks in a page of the model.
pub(crate) const BLOCKS: usize = 4;

/// The real list of remote frees or a weak copy.
pub(crate) trait Frees: Send + Sync + 'static {
    fn push(&self, chain: Chain, link: impl FnMut(Option<u16>)) -> bool;
    fn take(&self) -> Chain;
}

impl Frees for RemoteFrees {
    fn push(&self, chain: Chain, link: impl FnMut(Option<u16>)) -> bool {
        self.push(chain, link)
    }

    fn take(&self) -> Chain {
        self.take()
    }
}

/// The real mailbox or a weak copy.
pub(crate) trait Mail: Send + Sync + 'static {
    type Link: Send + Sync + 'static;
    fn link() -> Self::Link;
    fn next(link: &Self::Link) -> usize;
    fn post(&self, page: usize, link: &Self::Link) -> bool;
    fn take(&self) -> usize;
    fn try_abandon(&self) -> bool;
    fn try_claim(&self) -> Option<usize>;
}

impl Mail for Mailbox {
    type Link = MailLink;

    fn link() -> MailLink {
        MailLink::new()
    }

    fn next(link: &MailLink) -> usize {
        link.next()
    }

    fn post(&self, page: usize, link: &MailLink) -> bool {
        self.post(page, link)
    }

    fn take(&self) -> usize {
        self.take()
    }

    fn try_abandon(&self) -> bool {
        self.try_abandon()
    }

    fn try_claim(&self) -> Option<usize> {
        self.try_claim()
    }
}

/// A step of `heap.rs` or `outbox.rs` that a model may get wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// The owner takes a page's frees before it reads the page's link.
    LinkReadLate,
    /// Every push is followed by a post, not only the one that found the page without frees.
    PostAlways,
    /// A poster that is told the heap has no owner does nothing about it.
    NoClaim,
}

/// Who allocates from a page and knows its free blocks: the owner's plain fields.
#[derive(Default)]
struct Plain {
    /// For each page, which blocks came back.
    back: Vec<[bool; BLOCKS]>,
}

pub(crate) struct Page<F, L> {
    frees: F,
    mail: L,
    /// First word of each block: index of the next block in its chain.
    blocks: [UnsafeCell<Option<u16>>; BLOCKS],
}

/// A heap, all of whose blocks are handed out at first.
pub(crate) struct Heap<F, M: Mail> {
    pages: Vec<Page<F, M::Link>>,
    pub mailbox: M,
    plain: UnsafeCell<Plain>,
    mistake: Mistake,
}

impl<F: Frees, M: Mail> Heap<F, M> {
    pub(crate) fn new(mailbox: M, frees: Vec<F>, mistake: Mistake) -> Arc<Self> {
        let back = vec![[false; BLOCKS]; frees.len()];
        let pages = frees
            .into_iter()
            .map(|frees| Page {
                frees,
                mail: M::link(),
                blocks: [const { None }; BLOCKS].map(UnsafeCell::new),
            })
            .collect();
        Arc::new(Heap { pages, mailbox, plain: UnsafeCell::new(Plain { back }), mistake })
    }

    /// Frees blocks of a page by a thread that does not own the heap, as one chain. As `outbox::send` and `Heap::post`.
    pub(crate) fn free(&self, page: usize, blocks: &[u16]) {
        let Page { frees, mail, blocks: words, .. } = &self.pages[page];
        for pair in blocks.windows(2) {
            // SAFETY: loom checks that nobody else uses the block meanwhile.
            words[usize::from(pair[0])].with_mut(|word| unsafe { *word = Some(pair[1]) });
        }
        let tail = usize::from(blocks[blocks.len() - 1]);
        let chain = Chain { head: blocks[0], count: blocks.len() as u16 };
        // SAFETY: as above.
        let first = frees.push(chain, |behind| words[tail].with_mut(|word| unsafe { *word = behind }));
        if !first && self.mistake != Mistake::PostAlways {
            return;
        }
        // Addresses of pages have their lowest bit free and are not 0.
        let ownerless = self.mailbox.post((page + 1) * 2, mail);
        if ownerless && self.mistake != Mistake::NoClaim && self.try_claim() {
            self.abandon();
        }
    }

    /// Collects what is there. Only for the owner.
    pub(crate) fn drain(&self) {
        self.collect(self.mailbox.take());
    }

    pub(crate) fn try_claim(&self) -> bool {
        match self.mailbox.try_claim() {
            Some(list) => {
                self.collect(list);
                true
            }
            None => false,
        }
    }

    pub(crate) fn abandon(&self) {
        while !self.mailbox.try_abandon() {
            self.drain();
        }
    }

    fn collect(&self, mut list: usize) {
        // SAFETY: loom checks that only one thread at a time does this.
        self.plain.with_mut(|plain| {
            while list != 0 {
                let index = list / 2 - 1;
                let page = &self.pages[index];
                let mut next = M::next(&page.mail);
                let chain = page.frees.take();
                if self.mistake == Mistake::LinkReadLate {
                    next = M::next(&page.mail);
                }
                assert!(chain.count > 0, "a page without frees is in the mailbox");
                // SAFETY: as above.
                self.take_back(page, chain, unsafe { &mut (&mut *plain).back[index] });
                list = next;
            }
        });
    }

    /// Walks a chain, and uses every block of it again.
    fn take_back(&self, page: &Page<F, M::Link>, chain: Chain, back: &mut [bool; BLOCKS]) {
        let mut head = Some(chain.head);
        for _ in 0..chain.count {
            let block = usize::from(head.expect("a chain is shorter than its count"));
            assert!(!back[block], "a block came back twice");
            back[block] = true;
            // SAFETY: loom checks that nobody else uses the block meanwhile.
            head = page.blocks[block].with_mut(|word| unsafe { (*word).take() });
        }
        assert_eq!(head, None, "a chain is longer than its count");
    }

    /// Checks at the end that exactly the blocks 0 to `blocks` of each page came back. Only for the owner.
    pub(crate) fn assert_back(&self, blocks: usize) {
        // SAFETY: loom checks that the owner alone does this.
        self.plain.with(|plain| {
            // SAFETY: as above.
            for page in unsafe { &(*plain).back } {
                assert!(
                    page.iter().enumerate().all(|(block, &back)| back == (block < blocks)),
                    "a block is lost"
                );
            }
        });
    }
}
