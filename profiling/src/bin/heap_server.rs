//! The example server on Shockwave over dhat, which counts and names what reaches the heap of the system:
//! `heap-server FILE`, in the mode that `SHOCKWAVE_MODE` names. It serves until standard input ends and then writes the
//! profile to FILE.

#[path = "../../../examples/server/api.rs"]
mod api;
#[path = "../heap/counters.rs"]
mod counters;
#[path = "../../../examples/server/sample.rs"]
#[allow(dead_code, reason = "the load uses the rest")]
mod sample;
#[path = "../../../examples/server/store.rs"]
mod store;

use std::error::Error;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::routing::get;
use axum::serve::ListenerExt;
use counters::{Counters, PATH, READY};
use shockwave_alloc::Shockwave;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[global_allocator]
static GLOBAL: Shockwave<dhat::Alloc> = Shockwave::with_backing(dhat::Alloc);

/// Frames of a backtrace. The innermost are the allocator's, and a handler stands below those of serde.
const FRAMES: usize = 24;
/// Time that requests under way have at the end.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), None) = (arguments.next(), arguments.next()) else {
        eprintln!("error: accepted is exactly one argument: FILE");
        return ExitCode::from(2);
    };
    // Dropped last: what is alive then is what the program has not freed.
    let _profiler = dhat::Profiler::builder().file_name(file).trim_backtraces(Some(FRAMES)).build();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = api::router(Arc::new(store::Store::seeded())).route(PATH, get(heap));
        let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
        let (stop, stopped) = oneshot::channel();
        // A thread, because the runtime waits at its end for blocking tasks and a read cannot be cancelled.
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = stop.send(());
        });
        let mut out = std::io::stdout();
        writeln!(out, "{READY}{address}").and_then(|()| out.flush())?;
        let (ending, ended) = oneshot::channel();
        let server = axum::serve(listener, router).with_graceful_shutdown(async move {
            let _ = stopped.await;
            let _ = ending.send(());
        });
        tokio::select! {
            result = server => result?,
            () = async { let _ = ended.await; tokio::time::sleep(GRACE).await } => {}
        }
        Ok(())
    })
}

async fn heap() -> Json<Counters> {
    let heap = dhat::HeapStats::get();
    let own = shockwave_alloc::stats();
    Json(Counters {
        total_blocks: heap.total_blocks,
        total_bytes: heap.total_bytes,
        committed_bytes: own.committed_bytes,
        live_bytes: own.slab.bytes + own.arena.bytes + own.mid.bytes + own.large.bytes,
        pinned_bytes: own.pinned_bytes,
        resident_bytes: own.resident_bytes,
        arena_bytes: own.arena_bytes,
        outside_bytes: own.pretenured_bytes,
        arenas_closed: own.arenas_closed,
    })
}
