//! The layer around services: when its arena opens, is entered and closes, and its options.
#![cfg(feature = "tower")]

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full};
use shockwave_alloc::tower::{RequestArenaLayer, ResponseBody};
use shockwave_alloc::{
    ArenaHandle, ArenaStats, Mode, Shockwave, current_arena_stats, outside_arena, set_mode, stats,
    with_request_arena,
};
use tower::{Layer, ServiceExt, service_fn};

use common::{alone, churn};

mod common;

// Which block goes where is what is tested; pretenuring would change it.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn in_arena() -> bool {
    current_arena_stats().is_some()
}

fn get_request(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).expect("a request")
}

/// Pending once.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// What `on_close` was called with.
#[derive(Clone, Default)]
struct Closed(Arc<Mutex<Vec<Record>>>);

#[derive(Clone, Debug, PartialEq)]
struct Record {
    stats: ArenaStats,
    line: String,
    status: Option<StatusCode>,
    finished: bool,
}

impl Closed {
    fn watch(&self, layer: RequestArenaLayer) -> RequestArenaLayer {
        let closed = self.clone();
        layer.on_close(move |stats, request| {
            assert!(!in_arena(), "called outside");
            closed.0.lock().unwrap().push(Record {
                stats: *stats,
                line: format!("{} {} {:?}", request.method(), request.uri(), request.version()),
                status: request.status(),
                finished: request.finished(),
            });
        })
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn only(&self) -> Record {
        let [record] = &self.0.lock().unwrap()[..] else { panic!("not one arena was closed") };
        record.clone()
    }
}

/// Notes whether what it has made was dropped in an arena.
#[derive(Clone, Default)]
struct Drops(Arc<Mutex<Vec<bool>>>);

struct Dropped(Drops);

impl Drop for Dropped {
    fn drop(&mut self) {
        let inside = in_arena();
        outside_arena(|| self.0.0.lock().unwrap().push(inside));
    }
}

impl Drops {
    fn make(&self) -> Dropped {
        Dropped(self.clone())
    }

    fn were_in_arena(&self) -> bool {
        let drops = self.0.lock().unwrap();
        !drops.is_empty() && drops.iter().all(|&in_arena| in_arena)
    }
}

/// A body of three frames that are made when they are polled, in the arena.
struct Frames {
    left: usize,
    _dropped: Dropped,
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert!(in_arena());
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("frame {};", self.left))))))
    }
}

#[test]
fn the_arena_lives_from_the_call_to_the_end_of_the_body() {
    let _alone = alone();
    for consumed in [true, false] {
        let (closed, open) = (Closed::default(), stats().open_arenas);
        let drops = Drops::default();
        let inner = service_fn(|request: Request<Body>| {
            assert!(in_arena(), "called in the arena");
            let dropped = drops.make();
            async move {
                let uri = request.uri().to_string();
                pause().await;
                assert!(in_arena() && uri == "/path?query");
                Ok::<_, Infallible>(Response::new(Frames { left: 3, _dropped: dropped }))
            }
        });
        let service = closed.watch(RequestArenaLayer::new()).layer(inner);
        let mut future = Box::pin(service.oneshot(get_request("/path?query")));
        assert!(poll_once(future.as_mut()).is_pending() && !in_arena());
        let Poll::Ready(Ok(response)) = poll_once(future.as_mut()) else { panic!("not ready") };
        drop(future);
        assert_eq!((stats().open_arenas, closed.count()), (open + 1, 0));
        let mut body = Box::pin(response.into_body());
        let mut text = String::new();
        let frames = if consumed { 4 } else { 2 };
        for _ in 0..frames {
            if let Poll::Ready(Some(frame)) = poll_once(pin!(body.frame())) {
                churn();
                text += std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap();
            }
            assert!(!in_arena());
        }
        // Consumed, it is closed although the body is still there.
        assert_eq!(closed.count(), usize::from(consumed));
        drop(body);
        assert!(drops.were_in_arena());
        assert_eq!(text, if consumed { "frame 2;frame 1;frame 0;" } else { "frame 2;frame 1;" });
        let record = closed.only();
        assert_eq!(record.line, "GET /path?query HTTP/1.1");
        assert_eq!((record.status, record.finished), (Some(StatusCode::OK), consumed));
        assert!(record.stats.allocations >= 3);
        assert_eq!(record.stats.escaped_blocks, 0);
        assert_eq!(stats().open_arenas, open);
    }
}

#[test]
fn a_request_that_is_cancelled_or_fails_closes_its_arena() {
    let _alone = alone();
    let open = stats().open_arenas;
    for polls in 0..3 {
        let closed = Closed::default();
        let drops = Drops::default();
        let inner = service_fn(|_: Request<Body>| {
            let dropped = drops.make();
            async move {
                let _dropped = dropped;
                let _block = Box::new([1u8; 100]);
                pause().await;
                pause().await;
                Err::<Response<Body>, _>("a failure")
            }
        });
        let service = closed.watch(RequestArenaLayer::new()).layer(inner);
        let mut future = Box::pin(service.oneshot(get_request("/")));
        for _ in 0..polls {
            assert!(poll_once(future.as_mut()).is_pending());
        }
        if polls == 2 {
            assert!(matches!(poll_once(future.as_mut()), Poll::Ready(Err("a failure"))));
        }
        drop(future);
        assert_eq!(stats().open_arenas, open);
        if polls > 0 {
            assert!(drops.were_in_arena());
            let record = closed.only();
            assert_eq!((record.status, record.finished), (None, false));
            assert!(record.stats.allocations > 0);
        }
    }
}

#[test]
fn a_body_whose_length_is_known_is_finished_without_a_look_at_its_end() {
    let _alone = alone();
    let closed = Closed::default();
    let inner = service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("a known length".to_string()))))
    });
    let response = block_on(closed.watch(RequestArenaLayer::new()).layer(inner).oneshot(get_request("/")));
    let mut body = response.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(14));
    let frame = block_on(body.frame()).unwrap().unwrap().into_data().unwrap();
    assert!(body.is_end_stream());
    drop(body);
    assert!(closed.only().finished);
    assert_eq!(frame, "a known length");
}

async fn hungry(text: &'static str) -> String {
    hungry_with(text, Drops::default().make()).await
}

async fn hungry_with(text: &'static str, _dropped: Dropped) -> String {
    let mut words: Vec<String> = Vec::new();
    for round in 0..100 {
        words.push(text.repeat(10));
        if round % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    format!("{} words", words.len())
}

#[test]
fn a_request_over_its_limit_is_answered_for() {
    let _alone = alone();
    let open = stats().open_arenas;
    for (limit, own, expected) in [
        (2000, false, (StatusCode::SERVICE_UNAVAILABLE, "")),
        (2000, true, (StatusCode::PAYLOAD_TOO_LARGE, "GET /hungry: too much")),
        (1 << 20, true, (StatusCode::OK, "100 words")),
    ] {
        let closed = Closed::default();
        let mut layer = closed.watch(RequestArenaLayer::new().soft_limit(limit));
        if own {
            layer = layer.over_limit_response(|stats, request| {
                assert!(stats.over_limit && !in_arena());
                let text = format!("{} {}: too much", request.method(), request.uri());
                Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE).body(text.into()).unwrap()
            });
        }
        let drops = Drops::default();
        let made = drops.clone();
        let handler = move || hungry_with("text", made.make());
        let app = Router::new().route("/hungry", get(handler)).layer(layer);
        let (status, body) = block_on(async {
            let response = app.oneshot(get_request("/hungry")).await.unwrap();
            (response.status(), response.into_body().collect().await.unwrap().to_bytes())
        });
        assert_eq!((status, std::str::from_utf8(&body).unwrap()), expected);
        assert!(drops.were_in_arena());
        let record = closed.only();
        assert_eq!((record.status, record.stats.over_limit), (Some(status), limit == 2000));
        assert_eq!(stats().open_arenas, open);
    }
}

#[test]
fn a_handler_that_never_waits_is_not_cut_short_by_the_limit() {
    let _alone = alone();
    let handler = || async { (0..100).map(|n| format!("word {n} ")).collect::<Vec<_>>().concat() };
    let app = Router::new().route("/", get(handler)).layer(RequestArenaLayer::new().soft_limit(100));
    let response = block_on(app.oneshot(get_request("/"))).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[test]
fn a_handler_reads_its_figures_steps_outside_and_lets_tasks_join() {
    let _alone = alone();
    async fn handler(Extension(arena): Extension<ArenaHandle>) -> String {
        let before = arena.stats().expect("it is here").allocations;
        let _words: Vec<String> = vec!["one".into(), "two".into()];
        let after = arena.stats().expect("it is here").allocations;
        let cached = outside_arena(|| String::from("for a cache"));
        assert_eq!(arena.stats().expect("it is here").allocations, after);
        let joined = tokio::task::spawn_blocking(move || arena.run(in_arena)).await.unwrap();
        format!("{} {joined} {cached}", after - before)
    }
    let app = Router::new().route("/", get(handler)).layer(RequestArenaLayer::new());
    let body = block_on(async {
        app.oneshot(get_request("/")).await.unwrap().into_body().collect().await.unwrap().to_bytes()
    });
    assert_eq!(body, "3 true for a cache");
}

/// A server whose handlers allocate as often as the query says, or 10 times, and answer whether they have an arena.
fn counted(layer: RequestArenaLayer) -> Router {
    async fn handler(uri: http::Uri, Extension(arena): Extension<ArenaHandle>) -> String {
        let count = uri.query().map_or(10, |count| count.parse().unwrap());
        drop((0..count).map(|number| format!("{number}")).collect::<Vec<_>>());
        arena.is_some().to_string()
    }
    Router::new().route("/", get(handler)).route("/big", get(handler)).layer(layer)
}

/// How many of so many requests, to each of the URIs in turn, have an arena.
fn arenas(app: &Router, requests: usize, uris: &[&str]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let with_arena = |uri: &&&str| {
        let answer = app.clone().oneshot(get_request(uri));
        runtime.block_on(async { answer.await.unwrap().into_body().collect().await.unwrap().to_bytes() })
            == "true"
    };
    uris.iter().cycle().take(requests).filter(with_arena).count()
}

#[test]
fn kinds_that_allocate_little_have_no_arena_if_asked_for() {
    let _alone = alone();
    let with = |layer: RequestArenaLayer, uris: &[&str]| arenas(&counted(layer), 1_000, uris);
    assert_eq!(with(RequestArenaLayer::new(), &["/"]), 1_000);
    assert_eq!(with(RequestArenaLayer::new().skip_small(true).skip_small(false), &["/"]), 1_000);
    assert_eq!(with(RequestArenaLayer::new().skip_small(true), &["/big?200"]), 1_000);
    let small = with(RequestArenaLayer::new().skip_small(true), &["/"]);
    assert!((8..300).contains(&small), "{small}");
    let half = with(RequestArenaLayer::new().skip_small(true), &["/", "/big?200"]);
    assert!((508..800).contains(&half), "{half}");
}

#[test]
fn what_protects_is_done_for_kinds_that_allocate_little_too() {
    let _alone = alone();
    let limited = RequestArenaLayer::new().skip_small(true).soft_limit(1 << 30);
    assert_eq!(arenas(&counted(limited), 1_000, &["/"]), 1_000);
    let zeroed = RequestArenaLayer::new().skip_small(true).zero_freed(true);
    assert_eq!(arenas(&counted(zeroed), 1_000, &["/"]), 1_000);
}

#[test]
fn skipped_requests_and_other_modes_have_no_arena() {
    let _alone = alone();
    async fn handler(Extension(arena): Extension<ArenaHandle>) -> String {
        tokio::task::yield_now().await;
        format!("{} {} {}", arena.is_some(), in_arena(), arena.run(in_arena))
    }
    let closed = Closed::default();
    let layer = closed.watch(RequestArenaLayer::new()).skip(|request| request.uri.path() == "/skipped");
    let app = Router::new().route("/", get(handler)).route("/skipped", get(handler)).layer(layer);
    let answer = |uri: &str| {
        let app = app.clone();
        block_on(async {
            app.oneshot(get_request(uri)).await.unwrap().into_body().collect().await.unwrap().to_bytes()
        })
    };
    assert_eq!(answer("/"), "true true true");
    assert_eq!(answer("/skipped"), "false false false");
    // A request that is skipped stays in whatever arena is around.
    assert_eq!(with_request_arena(|| answer("/skipped")), "false true false");
    for mode in [Mode::Slab, Mode::Standard] {
        set_mode(mode);
        assert_eq!(answer("/"), "false false false");
    }
    set_mode(Mode::Arena);
    assert_eq!(closed.count(), 1);
}

#[test]
fn figures_in_a_header_only_if_asked_for() {
    let _alone = alone();
    for on in [false, true] {
        let app = Router::new()
            .route("/", get(|| hungry("text")))
            .layer(RequestArenaLayer::new().server_timing(on));
        let response = block_on(app.oneshot(get_request("/"))).unwrap();
        let value = response.headers().get("server-timing").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(value.is_some(), on);
        let Some(value) = value else { continue };
        let description = value.strip_prefix("arena;desc=\"").and_then(|rest| rest.strip_suffix(" B\""));
        let (allocations, bytes) =
            description.and_then(|text| text.split_once(" allocations, ")).expect(&value);
        assert!(allocations.parse::<u64>().unwrap() > 100);
        assert!(bytes.parse::<u64>().unwrap() > 4000);
    }
}

#[test]
fn the_headers_of_a_response_do_not_keep_the_arena() {
    let _alone = alone();
    let closed = Closed::default();
    let inner = service_fn(|_: Request<Body>| async {
        let mut response = Response::new(Full::new(Bytes::from_static(b"static")));
        for (name, value) in [("set-cookie", "one"), ("x-static", "two"), ("set-cookie", "three")] {
            response.headers_mut().append(name, http::HeaderValue::from_static(value));
        }
        Ok::<_, Infallible>(response)
    });
    let response = block_on(closed.watch(RequestArenaLayer::new()).layer(inner).oneshot(get_request("/")));
    let (mut parts, body) = response.unwrap().into_parts();
    let cookies: Vec<_> = parts.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["one", "three"]);
    assert_eq!(parts.headers["x-static"], "two");
    assert_eq!(parts.headers.len(), 3);
    // As hyper does: it sends the headers and keeps the empty map with the connection; then the body goes.
    parts.headers.clear();
    drop(body);
    assert_eq!(closed.only().stats.escaped_blocks, 0);
    assert!(parts.headers.capacity() > 0);
}

#[test]
fn layers_inside_that_change_the_body_work_in_the_arena() {
    let _alone = alone();
    let closed = Closed::default();
    let app = Router::new()
        .route("/", get(|| async { "compress me ".repeat(1000) }))
        .layer(tower_http::compression::CompressionLayer::new())
        .layer(closed.watch(RequestArenaLayer::new()));
    let request = Request::get("/").header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let (before, response) = block_on(async { (closed.clone(), app.oneshot(request).await.unwrap()) });
    assert_eq!(before.count(), 0);
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let body = block_on(response.into_body().collect()).unwrap().to_bytes();
    assert!(body.starts_with(&[0x1f, 0x8b]) && body.len() < 1000);
    assert!(closed.only().finished);
}

#[test]
fn a_body_is_empty_by_default() {
    let body = ResponseBody::<Body>::default();
    assert!(body.is_end_stream() && body.size_hint().exact() == Some(0));
}

#[test]
fn nothing_is_lost_of_methods_and_bodies_that_pass_through() {
    let _alone = alone();
    let app = Router::new()
        .fallback(|method: Method, body: String| async move { format!("{method} {body}") })
        .layer(RequestArenaLayer::new());
    for method in [Method::POST, Method::PUT, Method::from_bytes(b"A-METHOD-OF-ITS-OWN").unwrap()] {
        let body = "content ".repeat(500);
        let request = Request::builder().method(&method).uri("/").body(Body::from(body.clone())).unwrap();
        let answer = block_on(async {
            app.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
        });
        assert_eq!(answer, format!("{method} {body}"));
    }
}

#[cfg(feature = "tracing")]
mod spans {
    use std::collections::BTreeMap;

    use tracing::field::{Empty, Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::*;

    /// Notes what is recorded in spans.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<BTreeMap<String, String>>>);

    impl Visit for Recorder {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.lock().unwrap().insert(field.name().to_owned(), format!("{value:?}"));
        }
    }

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Recorder {
        fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
            attributes.record(&mut self.clone());
        }

        fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
            values.record(&mut self.clone());
        }
    }

    #[test]
    fn the_span_of_the_request_gets_the_figures_when_the_arena_closes() {
        let _alone = alone();
        for on in [true, false] {
            let recorder = Recorder::default();
            let _subscribed =
                tracing::subscriber::set_default(tracing_subscriber::registry().with(recorder.clone()));
            let app = Router::new()
                .route("/", get(|| hungry("text")))
                .layer(RequestArenaLayer::new().record_in_span(on));
            let span = tracing::info_span!(
                "request",
                path = "/",
                arena.bytes = Empty,
                arena.allocations = Empty,
                arena.over_limit = Empty
            );
            let response = block_on(async {
                let _entered = span.entered();
                let mut future = pin!(app.oneshot(get_request("/")));
                loop {
                    if let Poll::Ready(response) = poll_once(future.as_mut()) {
                        break response.unwrap();
                    }
                }
            });
            let fields = |names: &[&str]| -> Vec<Option<String>> {
                names.iter().map(|&name| recorder.0.lock().unwrap().get(name).cloned()).collect()
            };
            assert_eq!(fields(&["arena.bytes"]), [None]);
            drop(response);
            let values = fields(&["path", "arena.bytes", "arena.allocations", "arena.over_limit"]);
            assert_eq!(values[0].as_deref(), Some("\"/\""));
            assert_eq!(values[1].is_some(), on);
            if on {
                assert!(values[1].as_ref().unwrap().parse::<u64>().unwrap() > 4000);
                assert!(values[2].as_ref().unwrap().parse::<u64>().unwrap() > 100);
                assert_eq!(values[3].as_deref(), Some("false"));
            }
        }
    }
}
