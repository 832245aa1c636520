//! A long run with everything that clients do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::misbehave::{self, Done};
use crate::server::{Server, mib};
use crate::traffic::Traffic;
use crate::wrk;
use crate::{Failure, Soak};

/// How long it takes at least until every kind of load has been there.
const SETTLING: Duration = Duration::from_secs(25);

/// Runs every server under load and prints what it has served and how its memory went.
///
/// # Errors
/// When an answer was wrong or missing, or memory grew by more than a tenth and 8 MiB after the first tenth of the time (the
/// first minute of ten), or the first 25 s if that is longer: until then wrk has had each of its turns.
pub async fn run(soak: &Soak) -> Result<(), Failure> {
    println!("{} s each; wrk with 64 and 1,000 connections kept and 64 new ones in turn", soak.seconds);
    println!(
        "| server | by wrk | verified | slow | aborted | vanished | MiB until a tenth | most later | at the end |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for name in &soak.servers {
        one(name, soak).await.map_err(|failure| format!("{name}: {failure}"))?;
    }
    Ok(())
}

async fn one(name: &str, soak: &Soak) -> Result<(), Failure> {
    let server = Server::start(name, soak.workers)?;
    let address = server.address;
    let done = Arc::new(Done::default());
    let traffic = Arc::new(Traffic::prepare());
    // Dropped at the end of the time, which ends them.
    let mut clients = JoinSet::new();
    for number in 0..4 {
        clients.spawn(misbehave::verify(address, Arc::clone(&traffic), number, Arc::clone(&done)));
        clients.spawn(misbehave::read_slowly(address, Arc::clone(&done)));
        clients.spawn(misbehave::abort_uploads(address, Arc::clone(&done)));
        clients.spawn(misbehave::vanish(address, Arc::clone(&done)));
    }
    let begin = Instant::now();
    let end = begin + Duration::from_secs(soak.seconds);
    let settled = begin + (Duration::from_secs(soak.seconds) / 10).max(SETTLING);
    let mut wrk = tokio::spawn(async move {
        let mut runs = wrk::Run::default();
        let turns =
            [(64, true, "/users/7"), (1000, true, "/hello"), (64, false, "/users"), (1000, true, "/users/7")];
        for (connections, keep, path) in turns.into_iter().cycle() {
            // Short enough that each has several turns while memory is watched, and ends in time.
            let left = end.saturating_duration_since(Instant::now()).as_secs();
            if left == 0 {
                break;
            }
            let run = wrk::run(address, path, connections, left.min(5), keep).await?;
            runs.requests += run.requests;
            runs.errors += run.errors;
        }
        Ok::<_, Failure>(runs)
    });
    let (mut at_first, mut most) = (0, 0);
    let mut next = begin;
    let runs = loop {
        next += Duration::from_millis(500);
        tokio::select! {
            runs = &mut wrk => break runs??,
            Some(ended) = clients.join_next() => {
                ended??;
                return Err("a client has ended without a failure".into());
            }
            () = sleep_until(next) => {}
        }
        let resident = server.resident()?;
        if Instant::now() < settled {
            at_first = at_first.max(resident);
        } else {
            most = most.max(resident);
        }
    };
    drop(clients);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
        runs.requests,
        count(&done.verified),
        count(&done.slow),
        count(&done.aborted),
        count(&done.vanished),
        mib(at_first),
        mib(most),
        mib(server.resident()?)
    );
    if runs.errors > 0 {
        return Err(format!("wrk has counted {} errors", runs.errors).into());
    }
    if most > at_first + at_first / 10 + (8 << 20) {
        return Err(format!("memory grew from {} to {} MiB", mib(at_first), mib(most)).into());
    }
    Ok(())
}
