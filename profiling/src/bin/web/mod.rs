//! The example server until standard input ends: what `load` starts.

use std::future::IntoFuture;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::store::Store;

/// Serves with as many worker threads as the command line says, `WORKERS`, on a free port of loopback, and prints the port.
pub fn main(router: fn(Arc<Store>) -> Router) -> ExitCode {
    let Some(Ok(workers @ 1..=1024)) = std::env::args().nth(1).map(|number| number.parse()) else {
        eprintln!("error: accepted is one argument: WORKERS, from 1 to 1024");
        return ExitCode::from(2);
    };
    match serve(router, workers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(router: fn(Arc<Store>) -> Router, workers: usize) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        std::io::stdout().flush()?;
        let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
        tokio::spawn(axum::serve(listener, router(Arc::new(Store::seeded()))).into_future());
        // Whoever started this holds the other end.
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await?.map(drop)
    })
}
