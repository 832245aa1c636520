//! Serving until somebody says stop.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::store::Store;
use crate::{Failure, api};

/// What the line that tells the address starts with.
pub const READY: &str = "listening on http://";

/// Time that requests under way have after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Serves on `address` until Ctrl-C or, if `supervised`, until standard input ends.
///
/// # Errors
/// When the address cannot be bound, or the server fails as a whole.
pub async fn serve(address: &str, supervised: bool) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen on '{address}': {error}; accepted is HOST:PORT with a free port")
    })?;
    let bound = listener.local_addr()?;
    say(&format!("{READY}{bound} in mode {}\n", shockwave_alloc::mode()));

    let (stop, stopped) = oneshot::channel();
    let signal = async move {
        stop_signal(supervised).await;
        let _ = stop.send(());
    };
    // Answers are small and complete: waiting for more to send only adds latency.
    let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
    let server = axum::serve(listener, api::router(Arc::new(Store::seeded()))).with_graceful_shutdown(signal);
    tokio::select! {
        result = server => result?,
        // A request that never ends does not keep the process.
        () = async { let _ = stopped.await; tokio::time::sleep(GRACE).await } => {}
    }
    if !supervised {
        say(&format!("{}\n", shockwave_alloc::stats()));
    }
    Ok(())
}

/// Prints at once, and without a panic when nobody reads any more.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn stop_signal(supervised: bool) {
    let ended = async {
        if supervised {
            standard_input_ended().await;
        } else {
            std::future::pending().await
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated() => {}
        () = ended => {}
    }
}

/// The supervisor holds the other end of standard input, which the system closes however the supervisor ends.
async fn standard_input_ended() {
    let (sender, receiver) = oneshot::channel();
    // A thread, because the runtime waits at its end for blocking tasks and a read cannot be cancelled.
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = sender.send(());
    });
    let _ = receiver.await;
}

#[cfg(unix)]
async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => _ = signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
