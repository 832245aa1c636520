//! The service and its future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::HeaderName;
use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::body::ResponseBody;
use super::{Opened, Options, Skip, outside};
use crate::{ArenaHandle, ArenaStats, Mode, mode, outside_arena};

/// Handles each request in an arena of its own. Made by [`RequestArenaLayer`](super::RequestArenaLayer).
#[derive(Clone, Debug)]
pub struct RequestArenaService<S> {
    inner: S,
    options: Arc<Options>,
}

impl<S> RequestArenaService<S> {
    pub(super) fn new(inner: S, options: Arc<Options>) -> Self {
        RequestArenaService { inner, options }
    }
}

impl<S, RequestBody, B> Service<Request<RequestBody>> for RequestArenaService<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let mut skipped = mode() != Mode::Arena;
        if !skipped && let Some(skip) = &self.options.skip {
            (request, skipped) = skips(&**skip, request);
        }
        let opened = if skipped { None } else { self.options.open(&request) };
        let inner = match &opened {
            Some(opened) => opened.arena.run(|| {
                request.extensions_mut().insert(opened.arena.clone());
                self.inner.call(request)
            }),
            None => {
                request.extensions_mut().insert(ArenaHandle::none());
                self.inner.call(request)
            }
        };
        ResponseFuture { inner: Some(inner), opened }
    }
}

/// Asks whether a request is to have no arena.
fn skips<B>(skip: &Skip, request: Request<B>) -> (Request<B>, bool) {
    let (parts, body) = request.into_parts();
    let skipped = skip(&parts);
    (Request::from_parts(parts, body), skipped)
}

pin_project! {
    /// The response to come. Made by [`RequestArenaService`].
    #[must_use = "futures do nothing unless they are polled"]
    pub struct ResponseFuture<F> {
        // `None` when it is done.
        #[pin]
        inner: Option<F>,
        // `None` if the request has no arena, and when it is done.
        opened: Option<Opened>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(opened) = this.opened {
                opened.arena.run(|| this.inner.set(None));
            }
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut poll = || {
            let inner = this.inner.as_mut().as_pin_mut().expect("not polled again when it is done");
            let result = ready!(inner.poll(context));
            this.inner.set(None);
            Poll::Ready(result)
        };
        let Some(opened) = this.opened else {
            return poll().map_ok(|response| response.map(ResponseBody::without_arena));
        };
        let polled = opened.arena.run(|| {
            let mut polled = poll();
            if let Poll::Ready(Ok(response)) = &mut polled {
                opened.prepare(response);
            }
            polled
        });
        match polled {
            Poll::Ready(Ok(response)) => {
                let opened = this.opened.take().expect("it is there");
                // Hands the arena over.
                Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, opened))))
            }
            Poll::Ready(Err(error)) => {
                *this.opened = None;
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                let Some(rejection) = opened.rejection() else { return Poll::Pending };
                opened.arena.run(|| this.inner.set(None));
                *this.opened = None;
                Poll::Ready(Ok(rejection))
            }
        }
    }
}

impl Opened {
    /// Makes a response ready to be sent, with the arena entered.
    fn prepare<B>(&self, response: &mut Response<B>) {
        if self.server_timing
            && let Some(value) = self.arena.stats().and_then(|stats| server_timing(&stats))
        {
            response.headers_mut().append(HeaderName::from_static("server-timing"), value);
        }
        if let Some(watch) = &self.watch {
            watch.answered(response.status());
        }
        if let Some((small, kind)) = &self.noted
            && let Some(stats) = self.arena.stats()
            // One that was diverted has served nothing, whatever the handler has allocated.
            && stats.allocations > 0
        {
            small.note(*kind, stats.allocations);
        }
        outside::headers(response.headers_mut(), self.moving);
    }

    /// What to answer instead of waiting for the handler, if its arena is over the limit.
    fn rejection<B>(&self) -> Option<Response<ResponseBody<B>>> {
        let watch = self.watch.as_deref()?;
        let stats = self.arena.over_limit().then(|| self.arena.stats())??;
        let response = outside_arena(|| watch.options().over_limit_response(&stats, watch.info()));
        watch.answered(response.status());
        Some(response.map(ResponseBody::of_bytes))
    }
}

fn server_timing(stats: &ArenaStats) -> Option<HeaderValue> {
    let ArenaStats { allocations, total_bytes, .. } = stats;
    HeaderValue::try_from(format!("arena;desc=\"{allocations} allocations, {total_bytes} B\"")).ok()
}
