//! The program of one mode. The global allocator belongs to a binary, so each mode has its own, and
//! `bench_mode!` makes them from the same code.
//!
//! ```sh
//! cargo bench                                   # all modes, one after another
//! cargo bench --bench arena -- typical          # one mode, the groups whose name contains a word
//! ```
//!
//! | benchmark of the original | group and functions |
//! |---|---|
//! | HTTPRequest (typical request) | `typical_request`: `serve`, `pooled` |
//! | LargeRequest | `large_request`: `serve`, `pooled` |
//! | ManyHeaders | `many_headers`: `serve`, `pooled` |
//! | AllocationRate | `allocation_rate`: `map_and_body` |
//! | CacheLocality | `cache_locality`: `build_and_read`, `read` |
//! | GCPressure | `pressure`: `unmodified`, `outside_arena` |
//! | Throughput (parallel) | `throughput`: `1_thread`, `2_threads`, `2_threads_pooled` |
//!
//! `serve` and the like run the same code on the allocator in its mode; `pooled` fills and reads an object of the
//! mode's own pool, which is what the original's modes are.
//!
//! Below criterion's lines for a workload stands what time does not show: calls to the backing heap and bytes
//! per operation, and resident memory for each request in flight.
//!
//! # Comparing
//!
//! Groups and functions have the same names in every binary, so one mode can be the baseline of another:
//!
//! ```sh
//! cargo bench --bench slab -- --save-baseline slab
//! cargo bench --bench arena -- --baseline slab
//! ```
//!
//! The second command prints, for each workload, by how much the arena's time differs from the slab's, with
//! confidence interval and p-value. In the same way a change to the code is compared with what was before:
//! `--save-baseline before`, then `--baseline before`. The two runs are minutes apart; on a machine that does
//! other things at the time, `cargo run --release -p profiling -- report` is to be trusted more, because there
//! the modes take turns.

mod children;
mod driver;
mod pooled;

use std::marker::PhantomData;

use criterion::{Criterion, Throughput};
use shockwave_alloc::{Mode, RequestArena};

use crate::workloads as bench;
use bench::{Pool, Scope, Workload};
use driver::Bench;

/// Makes the program of a binary: the global allocator in `$mode`, `main`, and request objects from pools of the type
/// `$pool`.
#[macro_export]
macro_rules! bench_mode {
    ($mode:expr, $pool:ty) => {
        #[global_allocator]
        static GLOBAL: shockwave_alloc::Shockwave<$crate::workloads::Counted> =
            shockwave_alloc::Shockwave::with_backing($crate::workloads::Counted).with_mode($mode);

        fn main() -> std::process::ExitCode {
            $crate::modes::main::<$pool>($mode)
        }
    };
}

/// A request arena for each request. The code is the same in every mode: outside [`Mode::Arena`] a scope has
/// no effect.
pub struct Requests<P>(PhantomData<P>);

impl<P: Pool> Scope for Requests<P> {
    type Open = RequestArena;
    type Pool = P;

    #[inline]
    fn run<R>(request: impl FnOnce() -> R) -> R {
        shockwave_alloc::with_request_arena(request)
    }

    #[inline]
    fn open<R>(request: impl FnOnce() -> R) -> (R, RequestArena) {
        let arena = RequestArena::new();
        (arena.run(request), arena)
    }

    #[inline]
    fn outside<R>(make: impl FnOnce() -> R) -> R {
        shockwave_alloc::outside_arena(make)
    }
}

/// What a binary does: measures figures if it is a child, and else runs the benchmarks.
pub fn main<P: Pool>(mode: Mode) -> std::process::ExitCode {
    if shockwave_alloc::mode() != mode {
        eprintln!("error: SHOCKWAVE_MODE must not be set: this benchmark is about mode {mode}");
        return std::process::ExitCode::from(2);
    }
    if let Some(workload) = children::asked_for() {
        println!("{}", children::measure::<P>(workload));
        return std::process::ExitCode::SUCCESS;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let with_figures = children::wanted();
    let mut rest = &Workload::ALL[..];
    while let [first, ..] = rest {
        let (name, _) = first.group_and_function();
        let (workloads, others) =
            rest.split_at(rest.iter().take_while(|workload| workload.group_and_function().0 == name).count());
        rest = others;
        let mut group = criterion.benchmark_group(name);
        for workload in workloads {
            group.throughput(Throughput::Elements(workload.threads() as u64));
            let bench = Bench { group: &mut group, function: workload.group_and_function().1 };
            let has_run = workload.drive::<Requests<P>, _>(bench);
            if has_run && with_figures {
                println!("{:24}operation: {}", "", workload.operation());
                match children::figures(*workload) {
                    Ok(figures) => println!("{}", children::lines(mode, &figures)),
                    Err(reason) => println!("{:24}no figures: {reason}", ""),
                }
            }
        }
        group.finish();
    }
    criterion.final_summary();
    std::process::ExitCode::SUCCESS
}
