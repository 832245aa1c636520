//! The workload of `profile.sh`: the example server answers a fixed number of requests, which a second thread sends over
//! loopback and whose answers it verifies.
//!
//! A fixed number and not a fixed time, so that each allocator has the same work, and so that what a profiler counts can
//! be divided by the requests.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::client::Connection;
use crate::store::Store;
use crate::traffic::{Script, Traffic};

/// Makes the server's routes.
pub type Make = fn(Arc<Store>) -> axum::Router;

/// Connections that send at the same time.
const CONNECTIONS: usize = 8;
/// Share of the requests that is sent before measuring: one in this number.
const WARM_UP_SHARE: u64 = 5;

/// Serves as many requests as the command line says, `REQUESTS`, and prints in one line, all integers: `REQUESTS
/// NANOSECONDS BACKING_CALLS MINOR_FAULTS MAJOR_FAULTS PEAK_KIB`. The time is the processor time of the server's
/// thread; it, the calls and the faults are those of the requests after a warm-up of a fifth as many.
pub fn main(router: Make) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let requests = match (arguments.next().map(|number| number.parse()), arguments.next()) {
        (Some(Ok(requests @ 1..=100_000_000)), None) => requests,
        _ => {
            eprintln!("error: accepted is exactly one argument: REQUESTS, from 1 to 100000000");
            return ExitCode::from(2);
        }
    };
    match measure(requests, router) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(requests: u64, router: Make) -> io::Result<String> {
    let (address_sender, address) = oneshot::channel();
    let (warm_sender, warm) = oneshot::channel();
    let (go, started) = oneshot::channel();
    let (end_sender, end) = oneshot::channel();
    let client = std::thread::spawn(move || {
        runtime()?.block_on(async {
            let Ok(address) = address.await else { return Ok(()) };
            let mut client = Client { address, scripts: Client::scripts() };
            client.send(requests.div_ceil(WARM_UP_SHARE)).await?;
            let _ = warm_sender.send(());
            // The server has read its counters.
            let _ = started.await;
            client.send(requests).await?;
            let _ = end_sender.send(());
            Ok(())
        })
    });
    let line = runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let _ = address_sender.send(listener.local_addr()?);
        let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
        tokio::spawn(axum::serve(listener, router(Arc::new(Store::seeded()))).into_future());
        // A sender that is dropped has failed, and its thread says why.
        let _ = warm.await;
        let before = Usage::now();
        let _ = go.send(());
        let _ = end.await;
        let after = Usage::now();
        io::Result::Ok(format!(
            "{requests} {} {} {} {} {}",
            after.nanoseconds - before.nanoseconds,
            after.backing_calls - before.backing_calls,
            after.minor_faults - before.minor_faults,
            after.major_faults - before.major_faults,
            after.peak_kib
        ))
    })?;
    match client.join() {
        Ok(Ok(())) => Ok(line),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("the client panicked")),
    }
}

/// One thread: the server's counters are then those of its thread.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// What sends the requests.
struct Client {
    address: SocketAddr,
    scripts: Vec<Script>,
}

impl Client {
    fn scripts() -> Vec<Script> {
        let traffic = Arc::new(Traffic::prepare());
        (0..CONNECTIONS).map(|number| Script::new(Arc::clone(&traffic), number)).collect()
    }

    /// Sends `requests` over all connections, which begin and end with it.
    async fn send(&mut self, requests: u64) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for (number, mut script) in (0..).zip(self.scripts.drain(..)) {
            let address = self.address;
            // What does not divide goes to the first.
            let share = (requests + CONNECTIONS as u64 - 1 - number) / CONNECTIONS as u64;
            tasks.spawn(async move {
                let mut connection = Connection::open(address).await?;
                for _ in 0..share {
                    let step = script.advance();
                    let answer = connection.exchange(script.request(step)).await?;
                    script.check(step, &answer).map_err(io::Error::other)?;
                }
                io::Result::Ok(script)
            });
        }
        while let Some(script) = tasks.join_next().await {
            self.scripts.push(script??);
        }
        Ok(())
    }
}

/// Counters of the server's thread, the backing calls and the peak of the process.
struct Usage {
    nanoseconds: u64,
    backing_calls: u64,
    minor_faults: i64,
    major_faults: i64,
    peak_kib: i64,
}

impl Usage {
    fn now() -> Usage {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: the pointer is to a local of the type that the call fills.
        let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
        assert_eq!(result, 0, "the arguments are valid");
        // SAFETY: filled by the call that succeeded.
        let usage = unsafe { usage.assume_init() };
        let nanoseconds =
            |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
        Usage {
            nanoseconds: nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime),
            backing_calls: shockwave_alloc::stats().backing_calls,
            minor_faults: usage.ru_minflt,
            major_faults: usage.ru_majflt,
            peak_kib: usage.ru_maxrss,
        }
    }
}
