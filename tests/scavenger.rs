//! Memory goes back to the OS: by the scavenger, by the way, and at once, of whoever holds it; and what lives stays as it is.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use shockwave_alloc::{
    ScavengerConfig, Shockwave, on_thread_park, purge, start_scavenger, stats, with_request_arena,
};

mod common;
mod resident;

use common::{Rng, alone};
use resident::is_resident;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Resident memory of the process in bytes.
fn resident() -> usize {
    stats().resident_bytes as usize
}

fn block(number: usize) -> Box<[u8]> {
    let size = [512, 1024, 512, 2048, 1024, 512][number % 6];
    vec![number as u8; size].into_boxed_slice()
}

fn verify(number: usize, block: &[u8]) {
    assert!(block.iter().all(|byte| *byte == number as u8), "block {number} is damaged");
}

/// A block and its number.
type Survivor = (usize, Box<[u8]>);

/// Makes `count` blocks and frees all but one in `survives` (all of them if that is 0). Returns the survivors and by how many bytes
/// the process had grown.
fn burst(count: usize, survives: usize) -> (Vec<Survivor>, usize) {
    let mut random = Rng(7);
    let before = resident();
    let blocks: Vec<_> = (0..count).map(|number| (number, black_box(block(number)))).collect();
    let peak = resident().saturating_sub(before);
    let survivors = blocks.into_iter().filter(|_| survives != 0 && random.below(survives) == 0).collect();
    (survivors, peak)
}

/// Waits until the process has at most `limit` bytes, doing `meanwhile` now and then. Returns what it has.
fn wait_for(limit: usize, mut meanwhile: impl FnMut()) -> usize {
    let begin = Instant::now();
    while resident() > limit && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
        meanwhile();
    }
    resident()
}

/// Calls [`purge`] until `done`, or for long: a thread that is about to sleep, but does not yet, is not visited. Returns `done`.
fn purge_until(mut done: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        purge();
        let done = done();
        if done || begin.elapsed() > Duration::from_secs(20) {
            return done;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The OS pages in which `blocks` begin.
fn os_pages<'a>(blocks: impl IntoIterator<Item = &'a Vec<u8>>) -> BTreeSet<usize> {
    blocks.into_iter().map(|block| block.as_ptr().addr() & !0xFFF).collect()
}

/// Damages what is free, and sees that the survivors are whole.
fn check(survivors: &[Survivor]) {
    let again: Vec<_> = (0..60_000).map(|number| black_box(block(number + 1))).collect();
    again.iter().enumerate().for_each(|(number, block)| verify(number + 1, block));
    survivors.iter().for_each(|(number, block)| verify(*number, block));
}

#[test]
fn a_scavenger_returns_what_a_sleeping_thread_holds() {
    let _alone = alone();
    purge();
    let before = resident();
    let scavenger =
        start_scavenger(ScavengerConfig::DEFAULT.decay(Duration::from_millis(100))).expect("a thread");
    let (survivors, peak) = burst(100_000, 20);
    let after = wait_for(before + peak / 4, || {});
    assert!(after <= before + peak / 4, "{} of {peak} left\n{}", after.saturating_sub(before), stats());
    assert!(stats().hole_bytes > 0, "{}", stats());
    check(&survivors);
    drop(survivors);
    let all = wait_for(before + peak / 25, || {});
    assert!(all <= before + peak / 25, "{} of {peak} left\n{}", all.saturating_sub(before), stats());
    drop(scavenger);
}

#[test]
fn a_dozing_scavenger_is_woken() {
    let _alone = alone();
    purge();
    let config =
        ScavengerConfig::DEFAULT.decay(Duration::from_millis(4)).longest_sleep(Duration::from_secs(3600));
    let scavenger = start_scavenger(config).expect("a thread");
    // Long enough for it to find nothing again and again, and to sleep for a second or more.
    std::thread::sleep(Duration::from_millis(1500));
    let before = resident();
    let (_, peak) = burst(50_000, 0);
    let after = wait_for(before + peak / 10, || {});
    assert!(after <= before + peak / 10, "{} of {peak} left", after.saturating_sub(before));
    let begin = Instant::now();
    drop(scavenger);
    assert!(begin.elapsed() < Duration::from_secs(60), "dropping wakes it, too");
}

#[test]
fn without_a_scavenger_traffic_does_it() {
    let _alone = alone();
    purge();
    let before = resident();
    let (survivors, peak) = burst(100_000, 20);
    let after = wait_for(before + peak * 2 / 5, || {
        for _ in 0..50 {
            with_request_arena(|| drop(black_box(vec![1u8; 100])));
        }
    });
    assert!(after <= before + peak * 2 / 5, "{} of {peak} left\n{}", after.saturating_sub(before), stats());
    check(&survivors);
}

#[test]
fn purge_reaches_threads_that_sleep_and_threads_that_have_ended() {
    let _alone = alone();
    purge();
    let before = resident();
    let (report, reports) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let sleeper = std::thread::spawn(move || {
        let (survivors, _) = burst(50_000, 20);
        report.send(()).expect("someone listens");
        wait.recv().expect("told to go on");
        check(&survivors);
    });
    reports.recv().expect("the sleeper is alive");
    let survivors = std::thread::spawn(|| burst(50_000, 20)).join().expect("it ends");
    // The second burst may have used again what the first has freed, so the growth of the process is less than this.
    let all: usize = 2 * (0..50_000).map(|number| block(number).len()).sum::<usize>();
    let held = resident() - before;
    let purged = purge();
    let after = resident();
    // Rounds by the way may have returned a part of it before.
    let fallen = (before + held).saturating_sub(after);
    assert!(purged > 0 && purged >= fallen / 2, "{purged} of {held}, {fallen} less");
    assert!(after <= before + all / 4, "{} of {all} left\n{}", after.saturating_sub(before), stats());
    go_on.send(()).expect("the sleeper is alive");
    sleeper.join().expect("its blocks are whole");
    check(&survivors.0);
}

#[test]
fn what_bins_hold_goes_back_when_their_owner_looks_at_the_clock() {
    let _alone = alone();
    const PAGES: usize = 64;
    let period = Duration::from_millis(10);
    let config = ScavengerConfig::DEFAULT.decay(2 * period).longest_sleep(period);
    let _scavenger = start_scavenger(config).unwrap();
    // What other tests have left goes first.
    for _ in 0..20 {
        purge();
        std::thread::sleep(2 * period);
    }
    let before = stats().slab_pages;
    // 64 blocks of 1 KiB a page. Those that are freed last are each of another page, so whoever keeps them keeps these pages.
    let mut blocks: Vec<_> = (0..64 * PAGES).map(|_| Some(black_box(vec![1u8; 1024]))).collect();
    (0..blocks.len()).filter(|number| number % 64 != 0).for_each(|number| blocks[number] = None);
    blocks.clear();
    std::thread::sleep(50 * period);
    let kept = stats().slab_pages - before;
    assert!((3..PAGES as u64 / 2).contains(&kept), "{kept} pages are kept");
    let begin = Instant::now();
    while stats().slab_pages > before + 1 && begin.elapsed() < Duration::from_secs(20) {
        on_thread_park();
        std::thread::sleep(2 * period);
    }
    assert!(stats().slab_pages <= before + 1, "{} pages of {kept}", stats().slab_pages - before);
}

#[test]
fn holes_of_the_page_that_a_sleeping_thread_takes_blocks_from_go_back() {
    let _alone = alone();
    let (report, reports) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let sleeper = std::thread::spawn(move || {
        // Half a page, which so stays the one that the class takes blocks from, a class that nobody else here uses. Of the freed blocks
        // some remain with the thread.
        let mut blocks: Vec<_> = (0..28).map(|number| Some(black_box(vec![number as u8; 1152]))).collect();
        let pages = os_pages(blocks.iter().flatten());
        (1..28).for_each(|number| blocks[number] = None);
        report.send((blocks, pages)).expect("someone listens");
        wait.recv().expect("told to go on");
        // Of the purged blocks, too.
        let again: Vec<_> = (0..56).map(|number| black_box(vec![number as u8; 1152])).collect();
        again.iter().enumerate().for_each(|(number, block)| verify(number, block));
    });
    let (blocks, pages) = reports.recv().expect("the sleeper is alive");
    let purged = || pages.iter().filter(|page| !is_resident(**page)).count();
    assert!(purge_until(|| purged() >= 4), "{} of {}", purged(), pages.len());
    go_on.send(()).expect("the sleeper is alive");
    sleeper.join().expect("its blocks are whole");
    verify(0, blocks[0].as_ref().expect("it was kept"));
}

#[test]
fn the_pages_that_a_sleeping_thread_takes_blocks_from_go_back_when_others_have_emptied_them() {
    let _alone = alone();
    let (report, reports) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    /// All blocks of a page, so that the thread keeps none, of each of eight classes that nobody else here uses: a page that others
    /// have blocks in stays.
    fn pages() -> Vec<Vec<u8>> {
        [640, 896, 1280, 1792, 2560, 3584, 5120, 7168]
            .into_iter()
            .flat_map(|size| (0..(64 << 10) / size).map(move |_| black_box(vec![size as u8; size])))
            .collect()
    }
    let sleeper = std::thread::spawn(move || {
        report.send(pages()).expect("someone listens");
        wait.recv().expect("told to go on");
        let again = pages();
        assert!(again.iter().all(|block| block.iter().all(|&byte| byte == block.len() as u8)));
    });
    let blocks = reports.recv().expect("the sleeper is alive");
    let pages = os_pages(&blocks);
    drop(blocks);
    let kept = || pages.iter().filter(|page| is_resident(**page)).count();
    // The harness may have a block in one of them.
    assert!(purge_until(|| kept() < pages.len() / 2), "{} of {}", kept(), pages.len());
    go_on.send(()).expect("the sleeper is alive");
    sleeper.join().expect("its blocks are whole");
}

#[test]
fn holes_that_were_used_again_go_back_again() {
    let _alone = alone();
    let (report, reports) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let sleeper = std::thread::spawn(move || {
        // Of a class that nobody else here uses: a page in which others have blocks has holes from the beginning.
        let kept = black_box(vec![7u8; 1408]);
        // As many live blocks at each visit. Others free them, so that the thread keeps none.
        for _ in wait {
            let blocks: Vec<_> = (0..40).map(|number| black_box(vec![number as u8; 1408])).collect();
            report.send(blocks).expect("someone listens");
        }
        verify(7, &kept);
    });
    for round in 0..10 {
        go_on.send(()).expect("the sleeper is alive");
        let blocks = reports.recv().expect("the sleeper is alive");
        blocks.iter().enumerate().for_each(|(number, block)| verify(number, block));
        let pages = os_pages(&blocks);
        drop(blocks);
        let purged = || pages.iter().filter(|page| !is_resident(**page)).count();
        assert!(purge_until(|| purged() >= 4), "{} of {} in round {round}", purged(), pages.len());
    }
    drop(go_on);
    sleeper.join().expect("its block is whole");
}

#[test]
fn visits_disturb_nobody() {
    let _alone = alone();
    let config = ScavengerConfig::DEFAULT.decay(Duration::from_millis(2));
    let scavenger = start_scavenger(config).expect("a thread");
    let begin = Instant::now();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::channel::<Survivor>()).unzip();
    std::thread::scope(|scope| {
        for (thread, receiver) in receivers.into_iter().enumerate() {
            let senders = senders.clone();
            scope.spawn(move || {
                let mut random = Rng(thread as u64);
                let mut mine: Vec<Survivor> = Vec::new();
                for turn in 0.. {
                    // Waves: many blocks, then few, so that pages get holes and are filled again.
                    let most = if (turn / 2000_usize).is_multiple_of(2) { 4000 } else { 150 };
                    let number = random.below(1 << 20);
                    // Of few big blocks to a page many may live while whole OS pages are free.
                    let new = match number % 6 {
                        0 | 1 => vec![number as u8; 1 + number % 200].into_boxed_slice(),
                        2 => vec![number as u8; 4000].into_boxed_slice(),
                        _ => block(number),
                    };
                    if turn.is_multiple_of(64) {
                        with_request_arena(|| mine.push((number, new.clone())));
                        if begin.elapsed() > Duration::from_secs(4) {
                            break;
                        }
                    }
                    mine.push((number, new));
                    while mine.len() > most {
                        let (number, old) = mine.swap_remove(random.below(mine.len()));
                        verify(number, &old);
                        if random.below(3) == 0 {
                            // Another thread frees it.
                            let _ = senders[random.below(4)].send((number, old));
                        }
                    }
                    for (number, block) in receiver.try_iter() {
                        verify(number, &block);
                    }
                    if turn.is_multiple_of(5000) {
                        std::thread::sleep(Duration::from_millis(3));
                    }
                }
                mine.iter().for_each(|(number, block)| verify(*number, block));
            });
        }
        // Threads that begin and end meanwhile.
        scope.spawn(move || {
            while begin.elapsed() < Duration::from_secs(4) {
                std::thread::spawn(|| drop(burst(2000, 20))).join().expect("it ends");
            }
        });
    });
    assert!(stats().purges > 0);
    drop(scavenger);
}

/// What a thread frees of others' blocks it collects; a few do not wait until there are many.
#[test]
fn few_blocks_freed_for_another_thread_are_handed_over_in_time() {
    let _alone = alone();
    let scavenger =
        start_scavenger(ScavengerConfig::DEFAULT.decay(Duration::from_millis(20))).expect("a thread");
    let live = || stats().slab.blocks;
    let before = live();
    // With what else a new thread frees of its parent's, less than the 64 that are handed over at once.
    let blocks: Vec<_> = (0..55).map(|number| Some(black_box(Box::new([number as u8; 64])))).collect();
    let (freed, rest) = std::thread::spawn(move || {
        let mut blocks = blocks;
        blocks.fill(None);
        let freed = live();
        let begin = Instant::now();
        let mut rest = freed;
        // It goes on with blocks of its own.
        while rest + 40 > freed && begin.elapsed() < Duration::from_secs(20) {
            (0..100).for_each(|_| drop(black_box((0..300).map(block).collect::<Vec<_>>())));
            rest = live();
        }
        (freed, rest)
    })
    .join()
    .expect("no panic");
    assert!(freed >= before + 40, "they are collected: {before} blocks before, {freed} after");
    assert!(rest + 40 <= freed, "{freed} blocks, and {rest} at last");
    drop(scavenger);
}

#[cfg(feature = "tower")]
#[test]
fn a_layer_keeps_its_scavenger_as_long_as_it_serves() {
    use http::{Request, Response};
    use http_body_util::BodyExt;
    use shockwave_alloc::tower::RequestArenaLayer;
    use tower::{Layer, Service, service_fn};

    let _alone = alone();
    let scavengers = || {
        let threads = std::fs::read_dir("/proc/self/task").expect("Linux");
        let names =
            threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim() == "shockwave-scav").count()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    purge();
    let scavenger =
        start_scavenger(ScavengerConfig::DEFAULT.decay(Duration::from_millis(100))).expect("a thread");
    let before = resident();
    let mut service =
        RequestArenaLayer::new().scavenger(scavenger).layer(service_fn(async |request: Request<usize>| {
            let blocks = (0..request.into_body()).map(|number| black_box(block(number))).collect::<Vec<_>>();
            let peak = resident();
            drop(blocks);
            Ok::<_, std::convert::Infallible>(Response::new(peak.to_string()))
        }));
    let response = runtime.block_on(service.call(Request::new(60_000))).unwrap();
    let body = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
    let peak: usize = std::str::from_utf8(&body).unwrap().parse().expect("a number");
    assert!(peak >= before + (40 << 20), "{peak} B of {before} B");
    // Requests have ceased.
    let rest = wait_for(before + (8 << 20), || {});
    assert!(rest <= before + (8 << 20), "{rest} B are left of {peak} B, {before} B before");
    assert_eq!(scavengers(), 1);
    drop(service);
    // A thread that was joined may be listed for a moment.
    let begin = Instant::now();
    while scavengers() > 0 && begin.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
    assert_eq!(scavengers(), 0);
}
