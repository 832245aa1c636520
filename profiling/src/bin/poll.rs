//! What a poll in an arena costs, and a request through the layer: `poll` prints nanoseconds each, `poll WAY TIMES` only goes a
//! way, for a program that counts instructions (the difference of two counts, by the difference of the times):
//!
//! ```text
//! for n in 1000 11000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/poll arena $n; done
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::http::{Request, Response};
use shockwave_alloc::tower::RequestArenaLayer;
use shockwave_alloc::{ArenaFutureExt, ArenaHandle, RequestArena, Shockwave};
use tower::{Service, ServiceBuilder, service_fn};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Never ready, and nothing to do.
struct Idle;

impl Future for Idle {
    type Output = ();

    #[inline(never)]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        black_box(Poll::Pending)
    }
}

/// The ways, and what is done once on each.
const WAYS: [(&str, &str); 8] = [
    ("plain", "a poll without an arena"),
    ("arena", "a poll in an arena"),
    ("handle", "a poll in an arena with several owners"),
    ("outside", "a poll outside of the arena around"),
    ("service", "a request to a service without the layer"),
    ("layer", "the same with the layer"),
    ("body", "a request to a service that answers with 500 B, which are read"),
    ("body-layer", "the same with the layer"),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next().map(|times| times.parse())) {
        (None, _) => {
            for (way, what) in WAYS {
                println!("{way:8} {:6.1} ns  {what}", fastest(way));
            }
            ExitCode::SUCCESS
        }
        (Some(way), Some(Ok(times))) if WAYS.iter().any(|known| known.0 == way) => {
            go(&way, times);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "error: accepted is nothing, or WAY TIMES with one of {}",
                WAYS.map(|way| way.0).join(", ")
            );
            ExitCode::from(2)
        }
    }
}

/// Nanoseconds each, of the fastest of some rounds.
fn fastest(way: &str) -> f64 {
    const TIMES: usize = 20_000;
    go(way, TIMES);
    let round = || {
        let start = Instant::now();
        go(way, TIMES);
        start.elapsed().as_nanos() as f64 / TIMES as f64
    };
    (0..30).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn go(way: &str, times: usize) {
    match way {
        "plain" => polls(Idle, times),
        "arena" => polls(Idle.in_request_arena(), times),
        "handle" => polls(Idle.in_arena(ArenaHandle::from(RequestArena::new())), times),
        "outside" => RequestArena::new().run(|| polls(Idle.outside_arena(), times)),
        "layer" => requests(ServiceBuilder::new().layer(RequestArenaLayer::new()).service_fn(answer), times),
        "body" => requests(service_fn(answer_with_body), times),
        "body-layer" => {
            let service = ServiceBuilder::new().layer(RequestArenaLayer::new()).service_fn(answer_with_body);
            requests(service, times);
        }
        _ => requests(service_fn(answer), times),
    }
}

fn polls(future: impl Future<Output = ()>, times: usize) {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..times {
        let _ = black_box(future.as_mut().poll(&mut context));
    }
}

async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(request.into_body());
    response.headers_mut().insert("content-type", axum::http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

async fn answer_with_body(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let mut response = answer(request).await?;
    *response.body_mut() = Body::from(black_box(vec![b' '; 500]));
    Ok(response)
}

fn requests<B: HttpBody + Unpin>(
    mut service: impl Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    times: usize,
) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..times {
        let response = pin!(service.call(Request::new(Body::empty()))).poll(&mut context);
        if let Poll::Ready(Ok(mut response)) = black_box(response) {
            // As hyper does: the frame lives longer than the body.
            let body = response.body_mut();
            let frame = (!body.is_end_stream()).then(|| Pin::new(body).poll_frame(&mut context));
            drop(black_box(response));
            drop(black_box(frame));
        }
    }
}
