//! The allocators of the comparison.

/// What an allocator is to the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What Shockwave is held against.
    Peer,
    /// An arena without a free: only for operations that drop all they allocate, and no allocator for programs.
    Bump,
    /// Shockwave in one of its modes.
    Shockwave,
    /// The lower bound; no allocator for real programs.
    Floor,
    /// Counts what a program asks for; it is not timed.
    Meter,
}

/// One allocator. Its binary is `alloc-` and its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Allocator {
    /// Its name on the command line and in the binary's name.
    pub name: &'static str,
    /// Its name in the tables.
    pub title: &'static str,
    /// What it is to the comparison.
    pub kind: Kind,
    /// The cargo feature its binary needs.
    pub feature: Option<&'static str>,
    /// The program without which it cannot be built.
    pub needs: Option<&'static str>,
}

impl Allocator {
    /// Every allocator, in the order of the tables.
    pub const ALL: [Allocator; 12] = [
        Allocator::new("system", "system", Kind::Peer, None),
        Allocator::new("mimalloc", "mimalloc 3", Kind::Peer, Some("mimalloc")),
        Allocator::new("jemalloc", "jemalloc", Kind::Peer, Some("jemalloc")),
        Allocator {
            needs: Some("cmake"),
            ..Allocator::new("snmalloc", "snmalloc", Kind::Peer, Some("snmalloc"))
        },
        Allocator::new("rpmalloc", "rpmalloc", Kind::Peer, Some("rpmalloc")),
        Allocator::new("rallocator", "rallocator", Kind::Peer, Some("rallocator")),
        Allocator::new("talc", "talc", Kind::Peer, Some("talc")),
        Allocator::new("bumpalo", "bumpalo", Kind::Bump, Some("bumpalo")),
        Allocator::new("standard", "shockwave standard", Kind::Shockwave, Some("shockwave")),
        Allocator::SLAB,
        Allocator::ARENA,
        Allocator::new("floor", "floor", Kind::Floor, None),
    ];

    /// Shockwave in slab mode.
    pub const SLAB: Allocator = Allocator::new("slab", "shockwave slab", Kind::Shockwave, Some("shockwave"));

    /// Shockwave in arena mode.
    pub const ARENA: Allocator =
        Allocator::new("arena", "shockwave arena", Kind::Shockwave, Some("shockwave"));

    /// Shockwave in standard mode on an allocator that does next to nothing.
    pub const PASSTHROUGH: Allocator =
        Allocator::new("passthrough", "shockwave standard on the floor", Kind::Meter, Some("shockwave"));

    /// The system allocator with counters.
    pub const COUNTED: Allocator = Allocator::new("counted", "counted", Kind::Meter, None);

    const fn new(
        name: &'static str,
        title: &'static str,
        kind: Kind,
        feature: Option<&'static str>,
    ) -> Allocator {
        Allocator { name, title, kind, feature, needs: None }
    }

    /// The names that `--modes` takes.
    pub fn modes() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(|allocator| allocator.kind == Kind::Shockwave).map(|allocator| allocator.name)
    }

    /// The names that `--peers` takes: everything that is not Shockwave.
    pub fn peers() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(|allocator| allocator.kind != Kind::Shockwave).map(|allocator| allocator.name)
    }

    /// The name of its binary.
    pub fn binary(&self) -> String {
        format!("alloc-{}", self.name)
    }
}
