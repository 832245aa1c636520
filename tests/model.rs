//! Random sequences of everything a program can do, against a shadow of the live blocks: alignment, contents, overlap.

use std::mem;
use std::panic::resume_unwind;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use shockwave_alloc::{
    ArenaGuard, Mode, RequestArena, Shockwave, outside_arena, set_mode, stats, with_request_arena,
};

use common::{Block, Live, Rng, alone, churn};

mod common;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Arenas a program has.
const ARENAS: usize = 4;
/// Live blocks it may have.
const BLOCKS: usize = 400;
/// Blocks that channels and the like may have in its arenas besides.
const NOISE: u64 = 100;

/// Where a step's allocation happens.
#[derive(Clone, Copy, Debug)]
enum Around {
    Nothing,
    FreshArena,
    NoArena,
}

/// One step. Numbers that choose among what there is are taken modulo how much there is.
#[derive(Clone, Debug)]
enum Step {
    Alloc { size: usize, align: usize, zeroed: bool, around: Around },
    Realloc { block: usize, size: usize, around: Around },
    Free { block: usize, around: Around },
    FreeNewest(usize),
    FreeElsewhere(usize),
    ReallocElsewhere { block: usize, size: usize },
    Enter(usize),
    Leave,
    LeaveAny(usize),
    Forget,
    Reset(usize),
    Replace(usize),
    UseElsewhere(usize),
    SetMode(Mode),
    Look,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        12 => 1..300usize,
        6 => 300..5_000usize,
        3 => 5_000..17_000usize,
        2 => 17_000..200_000usize,
        1 => (1usize << 20) - 10..(1 << 20) + 100_000,
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let around =
        || prop_oneof![8 => Just(Around::Nothing), 1 => Just(Around::FreshArena), 1 => Just(Around::NoArena)];
    let align = prop_oneof![9 => 0..5u32, 1 => 5..18u32];
    let number = 0..1_000usize;
    prop_oneof![
        20 => (sizes(), align, any::<bool>(), around()).prop_map(|(size, shift, zeroed, around)| Step::Alloc {
            size,
            align: 1 << shift,
            zeroed,
            around
        }),
        8 => (number.clone(), sizes(), around())
            .prop_map(|(block, size, around)| Step::Realloc { block, size, around }),
        8 => (number.clone(), around()).prop_map(|(block, around)| Step::Free { block, around }),
        4 => (1..6usize).prop_map(Step::FreeNewest),
        2 => number.clone().prop_map(Step::FreeElsewhere),
        1 => (number.clone(), sizes()).prop_map(|(block, size)| Step::ReallocElsewhere { block, size }),
        4 => number.clone().prop_map(Step::Enter),
        3 => Just(Step::Leave),
        1 => number.clone().prop_map(Step::LeaveAny),
        1 => Just(Step::Forget),
        2 => number.clone().prop_map(Step::Reset),
        2 => number.clone().prop_map(Step::Replace),
        1 => number.prop_map(Step::UseElsewhere),
        1 => prop_oneof![1 => Just(Mode::Standard), 1 => Just(Mode::Slab), 3 => Just(Mode::Arena)].prop_map(Step::SetMode),
        1 => Just(Step::Look),
    ]
}

/// A thread that does what another asks it to, in an arena of its own.
struct Elsewhere {
    jobs: Sender<Job>,
    done: Receiver<Option<Block>>,
}

enum Job {
    Free(Block),
    Realloc(Block, usize),
    Use(&'static RequestArena),
}

// SAFETY: who sends an arena does not touch it until the answer is there, so the handle is as good as moved.
unsafe impl Send for Job {}

impl Elsewhere {
    fn run(jobs: Receiver<Job>, done: Sender<Option<Block>>) {
        let mut live = Live::new(&GLOBAL, 4);
        for job in jobs {
            let mut answer = None;
            match job {
                Job::Free(block) => {
                    live.adopt(block);
                    live.free(block);
                }
                Job::Realloc(block, size) => {
                    live.adopt(block);
                    let block = with_request_arena(|| live.realloc(block, size));
                    answer = Some(live.take(block));
                }
                Job::Use(arena) => {
                    let blocks = arena.run(|| [50, 3, 700].map(|size| live.alloc(size, 8)));
                    live.free(blocks[0]);
                    live.free(blocks[2]);
                    answer = Some(live.take(blocks[1]));
                }
            }
            if done.send(answer).is_err() {
                return;
            }
        }
    }

    fn ask(&self, job: Job) -> Option<Block> {
        self.jobs.send(job).expect("the other thread lives");
        self.done.recv().expect("the other thread found nothing wrong")
    }
}

/// A program that is being run: its blocks, arenas, and scopes, innermost last.
struct Program {
    live: Live<Shockwave>,
    /// Each is a leaked box. A handle is reset, dropped or used elsewhere only while no guard in `guards` refers to it.
    arenas: [*mut RequestArena; ARENAS],
    guards: Vec<(usize, ArenaGuard<'static>)>,
    newest: Vec<Block>,
}

impl Program {
    fn new() -> Program {
        Program {
            live: Live::new(&GLOBAL, BLOCKS),
            arenas: [(); ARENAS].map(|()| Box::into_raw(Box::default())),
            guards: Vec::with_capacity(BLOCKS),
            newest: Vec::with_capacity(BLOCKS),
        }
    }

    fn arena(&self, index: usize) -> &'static RequestArena {
        // SAFETY: the box exists until it is replaced, which waits for the guards.
        unsafe { &*self.arenas[index] }
    }

    /// The arena of that number, unless a guard refers to it.
    fn unguarded(&self, number: usize) -> Option<usize> {
        let index = number % ARENAS;
        self.guards.iter().all(|&(guarded, _)| guarded != index).then_some(index)
    }

    fn block(&self, number: usize) -> Option<Block> {
        let blocks = self.live.blocks();
        blocks.get(number % blocks.len().max(1)).copied()
    }

    fn step(&mut self, step: &Step, elsewhere: &Elsewhere) {
        match *step {
            Step::Alloc { size, align, zeroed, around } if self.live.has_room(2) => {
                let block = within(around, || {
                    if zeroed { self.live.alloc_zeroed(size, align) } else { self.live.alloc(size, align) }
                });
                self.newest.push(block);
            }
            Step::Alloc { .. } => {}
            Step::Realloc { block, size, around } => {
                let Some(block) = self.block(block) else { return };
                within(around, || self.live.realloc(block, size));
            }
            Step::Free { block, around } => {
                let Some(block) = self.block(block) else { return };
                within(around, || self.live.free(block));
            }
            Step::FreeNewest(count) => {
                for _ in 0..count {
                    let Some(block) = self.newest.pop() else { return };
                    // It may have been freed or moved since.
                    let same = |live: &&Block| live.addr() == block.addr();
                    let found = self.live.blocks().iter().find(same).copied();
                    found.into_iter().for_each(|block| self.live.free(block));
                }
            }
            Step::FreeElsewhere(block) => {
                let Some(block) = self.block(block) else { return };
                elsewhere.ask(Job::Free(self.live.take(block)));
            }
            Step::ReallocElsewhere { block, size } => {
                let Some(block) = self.block(block) else { return };
                let block = elsewhere.ask(Job::Realloc(self.live.take(block), size));
                block.into_iter().for_each(|block| self.live.adopt(block));
            }
            Step::Enter(number) if self.guards.len() < BLOCKS => {
                let index = number % ARENAS;
                self.guards.push((index, self.arena(index).enter()));
            }
            Step::Enter(_) => {}
            Step::Leave => drop(self.guards.pop()),
            Step::LeaveAny(number) if !self.guards.is_empty() => {
                drop(self.guards.remove(number % self.guards.len()));
            }
            Step::LeaveAny(_) => {}
            Step::Forget => mem::forget(self.guards.pop()),
            Step::Reset(number) => {
                let Some(index) = self.unguarded(number) else { return };
                // SAFETY: no guard refers to it.
                unsafe { (*self.arenas[index]).reset() };
            }
            Step::Replace(number) => {
                let Some(index) = self.unguarded(number) else { return };
                let new = outside_arena(|| Box::into_raw(Box::default()));
                // SAFETY: no guard refers to it.
                drop(unsafe { Box::from_raw(mem::replace(&mut self.arenas[index], new)) });
            }
            Step::UseElsewhere(number) if self.live.has_room(2) => {
                let Some(index) = self.unguarded(number) else { return };
                let block = elsewhere.ask(Job::Use(self.arena(index)));
                block.into_iter().for_each(|block| self.live.adopt(block));
            }
            Step::UseElsewhere(_) => {}
            Step::SetMode(mode) => set_mode(mode),
            Step::Look => {
                self.live.check();
                let inside: u64 = (0..ARENAS).map(|index| self.arena(index).stats().blocks).sum();
                assert!(inside <= self.live.blocks().len() as u64 + NOISE, "{inside} blocks in arenas");
            }
        }
    }

    /// Ends everything, blocks before arenas or after them.
    fn end(mut self, blocks_first: bool) {
        self.live.check();
        if blocks_first {
            self.live.free_all(true);
        }
        self.guards.clear();
        for arena in self.arenas {
            // SAFETY: no guard refers to it.
            drop(unsafe { Box::from_raw(arena) });
        }
        churn();
        self.live.check();
        self.live.free_all(false);
    }
}

fn within<R>(around: Around, f: impl FnOnce() -> R) -> R {
    match around {
        Around::Nothing => f(),
        Around::FreshArena => with_request_arena(f),
        Around::NoArena => outside_arena(f),
    }
}

/// Runs a program in a thread of its own, with whose end its forgotten scopes end.
fn run(program: &[Step], blocks_first: bool) {
    let (jobs, taken) = mpsc::channel();
    let (answer, done) = mpsc::channel();
    thread::scope(|scope| {
        let other = scope.spawn(move || Elsewhere::run(taken, answer));
        let this = scope.spawn(move || {
            let elsewhere = Elsewhere { jobs, done };
            let mut state = Program::new();
            for (index, step) in program.iter().enumerate() {
                state.step(step, &elsewhere);
                if index % 16 == 0 {
                    state.live.check();
                }
            }
            state.end(blocks_first);
        });
        // The end of the scope would not wait for destructors of thread-locals, which free memory.
        for thread in [this, other] {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    set_mode(Mode::Arena);
}

#[test]
fn programs_of_one_thread() {
    // Held while programs are made, too: they may be mid-size blocks themselves, and the other test counts those.
    let _alone = alone();
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let programs = (prop::collection::vec(steps(), 0..300), any::<bool>());
    let result = runner.run(&programs, |(program, blocks_first)| {
        let before = stats();
        run(&program, blocks_first);
        let after = stats();
        prop_assert_eq!(after.mid, before.mid);
        prop_assert_eq!(after.large, before.large);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}\n{runner}");
    }
}

/// What the threads of [`programs_of_several_threads`] do, from one seed.
fn exchange(seed: u64, threads: usize) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::channel::<Block>()).unzip();
    let leftovers: Vec<Block> = thread::scope(|scope| {
        let running: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(index, receiver)| {
                let senders = senders.clone();
                scope.spawn(move || one_of_several(Rng(seed ^ (index as u64) << 32), senders, receiver))
            })
            .collect();
        drop(senders);
        running
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|_| panic!("seed {seed:#x}")))
            .collect()
    });
    let mut live = Live::new(&GLOBAL, leftovers.len());
    leftovers.into_iter().for_each(|block| live.adopt(block));
    churn();
    live.check();
    live.free_all(seed & 1 == 0);
}

fn one_of_several(mut rng: Rng, senders: Vec<Sender<Block>>, receiver: Receiver<Block>) -> Vec<Block> {
    let mut live = Live::new(&GLOBAL, 4 * BLOCKS);
    let mut arenas = [const { RequestArena::new() }; 2];
    for _ in 0..60 {
        let arena = &arenas[rng.below(2)];
        let guard = (rng.below(4) != 0).then(|| arena.enter());
        for _ in 0..rng.below(40) {
            let (size, align) = (rng.size(), rng.align());
            let choice = rng.below(10);
            let chosen = live.blocks().get(rng.below(live.blocks().len().max(1))).copied();
            match (choice, chosen) {
                (0..=3, _) | (_, None) if live.has_room(BLOCKS) => {
                    live.alloc(size, align);
                }
                (4, Some(block)) => {
                    live.realloc(block, size);
                }
                (5, Some(block)) => {
                    with_request_arena(|| live.realloc(block, size));
                }
                (6..=8, Some(block)) => {
                    let block = live.take(block);
                    if let Err(back) = senders[rng.below(senders.len())].send(block) {
                        live.adopt(back.0);
                    }
                }
                (_, Some(block)) => live.free(block),
                (_, None) => {}
            }
            for block in receiver.try_iter().take(3) {
                live.adopt(block);
                if live.blocks().len() > 2 * BLOCKS || rng.below(2) == 0 {
                    live.free(block);
                }
            }
        }
        drop(guard);
        match rng.below(3) {
            0 => arenas[rng.below(2)].reset(),
            1 => arenas[rng.below(2)] = RequestArena::new(),
            _ => {}
        }
    }
    drop(senders);
    live.check();
    // What still comes belongs to whoever gets it.
    receiver.into_iter().for_each(|block| live.adopt(block));
    live.blocks().to_vec()
}

#[test]
fn programs_of_several_threads() {
    let _alone = alone();
    let given = std::env::var("MODEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let mut seeds = Rng(given.unwrap_or(now));
    let before = stats();
    for round in 0..if given.is_some() { 1 } else { 24 } {
        let seed = given.unwrap_or_else(|| seeds.next());
        exchange(seed, 2 + round % 3);
    }
    let after = stats();
    assert_eq!((after.mid, after.large), (before.mid, before.large));
    assert_eq!((after.pinned_chunks, after.open_arenas), (before.pinned_chunks, before.open_arenas));
}
