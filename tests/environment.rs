//! The environment variables, read once at the first allocation: each case is a process of its own.

mod child;
mod churn;

use std::process::Command;

use churn::{Block, Random, poison};
use shockwave_alloc::{Shockwave, mode, stats, with_request_arena};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_slab_size(128 << 10);

/// What a child does: it works, and says in which mode and with how big slabs.
fn report() {
    let before = stats();
    let mut random = Random::new(1);
    let mut blocks: Vec<Block> = (0..500).map(|_| Block::random(&mut random)).collect();
    blocks.extend(with_request_arena(|| (0..200).map(|n| Block::new(100, 8, n)).collect::<Vec<_>>()));
    poison();
    blocks.iter().for_each(Block::check);
    let now = stats();
    let backing = now.backing_calls > before.backing_calls;
    let arenas = now.arenas_closed > before.arenas_closed;
    // A thread that needs a page takes a whole slab and keeps the rest; a shorter one where there is a free run that is shorter.
    let pages = std::thread::spawn(|| {
        let pages = |stats: &shockwave_alloc::Stats| stats.slab_pages + stats.spare_bytes / (64 << 10);
        let mut blocks = Vec::with_capacity(400);
        let (mut before, mut most) = (stats(), 0);
        while blocks.len() < blocks.capacity() {
            blocks.push(Block::new(15 << 10, 8, 1));
            let after = stats();
            if after.slabs == before.slabs + 1 {
                most = most.max(pages(&after).saturating_sub(pages(&before)));
            }
            before = after;
        }
        most
    });
    println!("REPORT mode={} backing={backing} arenas={arenas} pages={}", mode(), pages.join().unwrap());
}

/// Runs the test `name` as a child with the given variables. Gives its report and what it wrote to standard
/// error.
fn reported(name: &str, variables: &[(&str, &str)]) -> (String, String) {
    let mut command: Command = child::command(name, "report");
    command.envs(variables.iter().copied());
    let (stdout, stderr) = child::run(command);
    // The harness prints the name of the test on the same line.
    let reports: Vec<&str> =
        stdout.lines().filter_map(|line| line.split_once("REPORT ")).map(|pair| pair.1).collect();
    assert_eq!(reports.len(), 1, "{stdout}");
    (reports[0].to_owned(), stderr)
}

/// The one line of a complaint, which must hold all `words`.
fn assert_complaint(stderr: &str, words: &[&str]) {
    assert_eq!(stderr.lines().count(), 1, "not one line: {stderr:?}");
    assert!(stderr.ends_with('\n'), "{stderr:?}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is missing: {stderr}");
    }
}

#[test]
fn the_variable_chooses_the_mode() {
    const NAME: &str = "the_variable_chooses_the_mode";
    if child::part().is_some() {
        return report();
    }
    for (variables, report) in [
        (&[][..], "mode=arena backing=false arenas=true pages="),
        (&[("SHOCKWAVE_MODE", "standard")], "mode=standard backing=true arenas=false pages="),
        (&[("SHOCKWAVE_MODE", "slab")], "mode=slab backing=false arenas=false pages="),
        (&[("SHOCKWAVE_MODE", "arena")], "mode=arena backing=false arenas=true pages="),
    ] {
        let (reported, stderr) = reported(NAME, variables);
        assert!(reported.starts_with(report), "{variables:?}: {reported}");
        assert_eq!(stderr, "", "{variables:?}");
    }
}

#[test]
fn a_mode_that_is_not_understood_is_answered_with_what_is_accepted() {
    const NAME: &str = "a_mode_that_is_not_understood_is_answered_with_what_is_accepted";
    if child::part().is_some() {
        return report();
    }
    let long = "x".repeat(5000);
    for value in ["fast", "Arena", "", " slab", "arena ", "standard,slab", long.as_str()] {
        let (reported, stderr) = reported(NAME, &[("SHOCKWAVE_MODE", value)]);
        assert!(reported.starts_with("mode=arena backing=false arenas=true"), "{value:?}: {reported}");
        let shown = &value[..value.len().min(40)];
        let named = format!("SHOCKWAVE_MODE={shown} ");
        assert_complaint(&stderr, &[&named, "standard", "slab", "arena"]);
    }
}

#[test]
fn the_variable_chooses_the_slab_size() {
    const NAME: &str = "the_variable_chooses_the_slab_size";
    if child::part().is_some() {
        return report();
    }
    for (value, pages) in [
        (None, 2),
        (Some("64K"), 1),
        (Some("65536"), 1),
        (Some("256k"), 4),
        (Some("1M"), 16),
        (Some("2m"), 32),
    ] {
        let variable = value.map(|value| ("SHOCKWAVE_SLAB_SIZE", value));
        let (reported, stderr) = reported(NAME, variable.as_slice());
        assert_eq!(reported, format!("mode=arena backing=false arenas=true pages={pages}"), "{value:?}");
        assert_eq!(stderr, "", "{value:?}");
    }
}

#[test]
fn a_slab_size_that_is_not_understood_is_answered_with_what_is_accepted() {
    const NAME: &str = "a_slab_size_that_is_not_understood_is_answered_with_what_is_accepted";
    if child::part().is_some() {
        return report();
    }
    for value in ["big", "", "0", "1", "100K", "32M", "1G", "-64K", "64 K", "18446744073709617152", "K"] {
        let (reported, stderr) = reported(NAME, &[("SHOCKWAVE_SLAB_SIZE", value)]);
        // The size in the code is used.
        assert_eq!(reported, "mode=arena backing=false arenas=true pages=2", "{value:?}");
        let named = format!("SHOCKWAVE_SLAB_SIZE={value} ");
        assert_complaint(&stderr, &[&named, "64K", "16M"]);
    }
}

#[test]
fn two_bad_values_give_two_lines() {
    if child::part().is_some() {
        return report();
    }
    let variables = [("SHOCKWAVE_MODE", "fast"), ("SHOCKWAVE_SLAB_SIZE", "big")];
    let (reported, stderr) = reported("two_bad_values_give_two_lines", &variables);
    assert_eq!(reported, "mode=arena backing=false arenas=true pages=2");
    let lines: Vec<&str> = stderr.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 2, "{stderr:?}");
    assert_complaint(lines[0], &["SHOCKWAVE_MODE=fast "]);
    assert_complaint(lines[1], &["SHOCKWAVE_SLAB_SIZE=big "]);
}
