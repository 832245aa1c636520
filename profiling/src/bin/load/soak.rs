//! A long run with everything that clients do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::Failure;
use crate::cli::Soak;
use crate::misbehave::{self, Done};
use crate::oha;
use crate::sample::{self, VARIANTS};
use crate::server::{Server, mib};
use crate::store::{NewUser, User};
use crate::traffic::Traffic;
use crate::wrk::{self, Load, Run};

/// A user that is asked for again and again.
const USER: u64 = 7;

/// Memory has to stay as it is after this. Each turn was there by then: eight of 5 s, and some tenths more.
const FIRST: Duration = Duration::from_secs(60);

/// What is asked for in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Hello,
    User,
    List,
}

/// Who sends in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Wrk,
    Oha,
}

/// The turns: who, how many connections, whether they are kept, and what for.
const TURNS: [(Tool, u32, bool, Path); 8] = [
    (Tool::Wrk, 64, true, Path::User),
    (Tool::Wrk, 1000, true, Path::Hello),
    (Tool::Wrk, 64, false, Path::List),
    (Tool::Wrk, 1000, false, Path::User),
    (Tool::Oha, 64, true, Path::List),
    (Tool::Oha, 1000, true, Path::User),
    (Tool::Oha, 64, false, Path::Hello),
    (Tool::Oha, 1000, false, Path::List),
];

/// Runs every server under load and prints what it has served and how its memory went.
///
/// # Errors
/// When an answer was wrong or missing, fewer than one in 1,000 were compared, or memory [grew](has_grown) after the first minute,
/// which shorter runs do not tell. The other servers have their turn nevertheless.
pub async fn run(soak: &Soak) -> Result<(), Failure> {
    let there = oha::is_there().await;
    let turns: Vec<_> = TURNS.into_iter().filter(|turn| there || turn.0 == Tool::Wrk).collect();
    println!(
        "{} s each; 64 and 1,000 connections, kept and new, in turns by {}",
        soak.seconds,
        if there { "wrk and oha" } else { "wrk (there is no oha in the path)" }
    );
    println!(
        "| server | by tools | compared | verified | slow | aborted | vanished | MiB at first | most later | at the end |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut failures = Vec::new();
    for name in &soak.servers {
        if let Err(failure) = one(name, soak, &turns).await {
            failures.push(format!("{name}: {failure}"));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ").into()) }
}

async fn one(name: &str, soak: &Soak, turns: &[(Tool, u32, bool, Path)]) -> Result<(), Failure> {
    let server = Server::start(name, soak.workers)?;
    let address = server.address;
    let done = Arc::new(Done::default());
    let traffic = Arc::new(Traffic::prepare());
    // The store grows until it is full, which is not what is looked for.
    misbehave::fill(address).await?;
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
    let mut tools = tokio::spawn(send(address, turns.to_vec(), soak.seconds, end));
    let (mut at_first, mut most) = (0, 0);
    let mut next = begin;
    let runs = loop {
        next += Duration::from_millis(500);
        tokio::select! {
            runs = &mut tools => break runs??,
            Some(ended) = clients.join_next() => {
                ended??;
                return Err("a client has ended without a failure".into());
            }
            () = sleep_until(next) => {}
        }
        let resident = server.resident()?;
        if begin.elapsed() < FIRST {
            at_first = at_first.max(resident);
        } else {
            most = most.max(resident);
        }
    };
    drop(clients);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        runs.requests,
        runs.compared,
        count(&done.verified),
        count(&done.slow),
        count(&done.aborted),
        count(&done.vanished),
        mib(at_first),
        if most > 0 { mib(most) } else { "-".to_owned() },
        mib(server.resident()?)
    );
    judge(&runs, count(&done.verified))?;
    for (what, counter) in [("slow", &done.slow), ("aborted", &done.aborted), ("vanished", &done.vanished)] {
        if count(counter) == 0 && soak.seconds >= 10 {
            return Err(format!("not one {what} client").into());
        }
    }
    if has_grown(at_first, most) {
        return Err(format!("memory grew from {} to {} MiB", mib(at_first), mib(most)).into());
    }
    Ok(())
}

/// Goes through the turns again and again until the end of the time.
async fn send(
    address: SocketAddr,
    turns: Vec<(Tool, u32, bool, Path)>,
    seconds: u64,
    end: Instant,
) -> Result<Run, Failure> {
    let mut sum = Run::default();
    let turn = turn_of(seconds, turns.len() as u64);
    let user = format!("/users/{USER}");
    let (hello, users) = (["Hello from Shockwave!\n".to_owned()], users());
    for (tool, connections, keep, path) in turns.into_iter().cycle() {
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 {
            break;
        }
        let (path, bodies): (&str, &[String]) = match path {
            Path::Hello => ("/hello", &hello),
            Path::User => (&user, &users),
            // It is another one after each user that a client makes; those clients compare it.
            Path::List => ("/users", &[]),
        };
        let load = Load { path, connections, seconds: left.min(turn), keep, bodies };
        let run = match tool {
            Tool::Wrk => wrk::run(address, load).await?,
            Tool::Oha => oha::run(address, load).await?,
        };
        if run.errors > 0 || run.wrong > 0 {
            return Err(format!(
                "{tool:?} has counted {} errors and {} wrong answers with {load:?}",
                run.errors, run.wrong
            )
            .into());
        }
        sum.requests += run.requests;
        sum.compared += run.compared;
    }
    Ok(sum)
}

/// What the user may be: clients change its variant.
fn users() -> Vec<String> {
    let user = |variant| User::new(USER, NewUser { variant, profile: sample::profile(variant) });
    (0..VARIANTS).map(|variant| serde_json::to_string(&user(variant)).expect("strings and numbers")).collect()
}

/// Seconds of a turn: short enough that each has several while memory is watched.
fn turn_of(seconds: u64, turns: u64) -> u64 {
    (seconds / (turns * 3)).clamp(1, 5)
}

/// Whether one in 1,000 answers was compared.
fn judge(runs: &Run, verified: u64) -> Result<(), String> {
    if (runs.compared + verified) * 1000 < runs.requests {
        return Err(format!("only {} of {} answers were compared", runs.compared + verified, runs.requests));
    }
    Ok(())
}

/// Whether memory has grown by more than a tenth and 8 MiB, which is what its noise comes to.
fn has_grown(at_first: u64, most: u64) -> bool {
    most > at_first + at_first / 10 + (8 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_load_has_its_turn() {
        for tool in [Tool::Wrk, Tool::Oha] {
            for connections in [64, 1000] {
                for keep in [true, false] {
                    assert!(TURNS.iter().any(|turn| (turn.0, turn.1, turn.2) == (tool, connections, keep)));
                }
            }
        }
        let compared = TURNS.iter().filter(|turn| turn.0 == Tool::Wrk && turn.3 != Path::List);
        assert!(compared.count() >= 3);
    }

    #[test]
    fn every_turn_comes_several_times() {
        assert_eq!(turn_of(600, 8), 5);
        for (seconds, turns) in [(20, 4), (40, 8), (60, 8), (100, 4), (3600, 8)] {
            assert!(turn_of(seconds, turns) * turns * 2 <= seconds, "{seconds}");
        }
        assert_eq!(turn_of(1, 8), 1);
    }

    #[test]
    fn one_in_a_thousand_has_to_be_compared() {
        let run = |requests, compared| Run { requests, compared, ..Run::default() };
        assert!(judge(&run(1_000_000, 900), 100).is_ok());
        assert!(judge(&run(1_000_000, 900), 99).unwrap_err().contains("999"));
    }

    #[test]
    fn growth_is_more_than_a_tenth_and_8_mib() {
        let mib = 1 << 20;
        assert!(!has_grown(100 * mib, 118 * mib));
        assert!(has_grown(100 * mib, 119 * mib));
        assert!(!has_grown(100 * mib, 50 * mib));
    }

    #[test]
    fn the_users_that_may_come_are_all_variants() {
        let users = users();
        assert_eq!(users.len() as u64, VARIANTS);
        assert!(users.iter().all(|user| user.starts_with("{\"id\":7,\"variant\":")), "{}", users[0]);
    }
}
