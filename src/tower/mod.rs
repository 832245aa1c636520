//! An arena for each request of a web server: a [`tower`](https://docs.rs/tower) layer for axum, hyper, tonic and whatever else
//! is made of its services.
//!
//! ```
//! use axum::{Extension, Router, routing::get};
//! use shockwave_alloc::{ArenaHandle, Shockwave, tower::RequestArenaLayer};
//!
//! # #[global_allocator]
//! # static GLOBAL: Shockwave = Shockwave::new();
//! async fn hello(Extension(arena): Extension<ArenaHandle>) -> String {
//!     let words: Vec<String> = ["everything", "in", "here"].map(String::from).into();
//!     format!("{} took {} B so far\n", words.join(" "), arena.stats().unwrap_or_default().bytes)
//! }
//!
//! let app: Router = Router::new()
//!     .route("/", get(hello))
//!     .layer(RequestArenaLayer::new().soft_limit(64 << 20).on_close(|stats, request| {
//!         println!("{} {}: {} B in {} allocations", request.method(), request.uri(), stats.total_bytes, stats.allocations);
//!     }));
//! ```
//!
//! The arena is entered while the service inside handles the request, at each poll of its future and of the response's body,
//! and while these are dropped. It closes when the body is consumed or dropped, so that layers inside that stream or compress
//! work in it. A request that is cancelled closes it as well.
//!
//! What a handler spawns does not run in the arena, unless it takes a clone of the [`ArenaHandle`] that the layer puts into
//! the extensions of the request; see there. The arena stays open until the last clone is gone, too.
//!
//! What is built during a request and kept for later ones (caches, pools of connections) is better allocated through
//! [`outside_arena`](crate::outside_arena) or [`ArenaFutureExt::outside_arena`](crate::ArenaFutureExt::outside_arena): in the
//! arena it would stay valid, and keep the chunk it is in.
//!
//! For what servers keep of a response the layer does that: headers, trailers and the body's frames, which are written after the
//! body is gone, are copied out of the arena. Frames above 16 KiB, which are not in it, keep it open until they are written.
//! ARCHITECTURE.md lists under "What escapes in a server" what else outlives requests, and what to do about it.
//!
//! Outside of [`Mode::Arena`](crate::Mode::Arena) the layer only hands the request on, with an [`ArenaHandle::none`].

mod body;
mod info;
mod outside;
mod service;
mod small;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tower_layer::Layer;

use crate::{ArenaHandle, ArenaStats, RequestArena, Scavenger};

pub use body::ResponseBody;
pub use info::RequestInfo;
pub use service::{RequestArenaService, ResponseFuture};

use info::Watch;
use small::{Choice, Small};

/// Gives each request an arena, see the [module](self).
///
/// Put it outside of the layers whose work belongs to the request. axum's `Router::layer` has it around the handlers; the
/// choice of the route is then made before. To have that in the arena as well:
/// `Router::new().fallback_service(RequestArenaLayer::new().layer(router))`.
#[derive(Clone)]
#[must_use = "a layer does nothing unless it is put around a service"]
pub struct RequestArenaLayer {
    options: Arc<Options>,
}

/// Called when an arena has closed.
type OnClose = dyn Fn(&ArenaStats, &RequestInfo) + Send + Sync;
/// Makes the answer to a request whose arena is over its limit.
type OverLimit = dyn Fn(&ArenaStats, &RequestInfo) -> Response<Bytes> + Send + Sync;
/// Says which requests get no arena.
type Skip = dyn Fn(&Parts) -> bool + Send + Sync;

#[derive(Clone, Default)]
struct Options {
    limit: Option<usize>,
    zero_freed: bool,
    over_limit: Option<Arc<OverLimit>>,
    on_close: Option<Arc<OnClose>>,
    skip: Option<Arc<Skip>>,
    small: Option<Arc<Small>>,
    server_timing: bool,
    record_in_span: bool,
    scavenger: Option<Arc<Scavenger>>,
}

impl RequestArenaLayer {
    /// A layer without a limit, whose arenas nobody is told about.
    pub fn new() -> RequestArenaLayer {
        RequestArenaLayer { options: Arc::new(Options::default()) }
    }

    /// Sets how many bytes the arena of a request may hold (see [`ArenaBuilder::soft_limit`](crate::ArenaBuilder::soft_limit)).
    /// A request that is found over it before its handler has answered is dropped and answered with
    /// [`over_limit_response`](Self::over_limit_response).
    ///
    /// The layer looks each time that the handler waits for something. No allocation fails: a handler that never waits gets
    /// its answer out, and so does one whose response has begun.
    pub fn soft_limit(self, bytes: usize) -> Self {
        self.with(|options| options.limit = Some(bytes))
    }

    /// Sets the answer to a request that is over the [limit](Self::soft_limit): 503 Service Unavailable without a body if not
    /// set. It is made outside of the arena.
    pub fn over_limit_response(
        self,
        response: impl Fn(&ArenaStats, &RequestInfo) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.with(|options| options.over_limit = Some(Arc::new(response)))
    }

    /// Overwrites what a request has had in its arena (see [`ArenaBuilder::zero_freed`](crate::ArenaBuilder::zero_freed)).
    ///
    /// Frames of the body and what is in the response's headers then stay in the arena, so that they are overwritten as well: each
    /// keeps its chunk until it is written.
    pub fn zero_freed(self, on: bool) -> Self {
        self.with(|options| options.zero_freed = on)
    }

    /// Calls `f` when the arena of a request has closed, outside of arenas, in the thread that closed it.
    ///
    /// It costs an allocation per request, and the request's URI is kept until then.
    ///
    /// # Panics
    ///
    /// A panic of `f` is one of whatever dropped the response: it ends the connection.
    pub fn on_close(self, f: impl Fn(&ArenaStats, &RequestInfo) + Send + Sync + 'static) -> Self {
        self.with(|options| options.on_close = Some(Arc::new(f)))
    }

    /// Requests for which `skip` is true get no arena.
    ///
    /// ```
    /// # use shockwave_alloc::tower::RequestArenaLayer;
    /// let layer = RequestArenaLayer::new().skip(|request| request.uri.path() == "/events");
    /// ```
    pub fn skip(self, skip: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|options| options.skip = Some(Arc::new(skip)))
    }

    /// Requests of kinds that allocate little get no arena (off if not set): those whose handlers make fewer than some 100 allocations,
    /// which cost less in the slab than the arena does.
    ///
    /// What kind a request is of, its method and path say. One in 64 of such a kind still gets an arena, to see whether it has changed.
    /// The others have an [`ArenaHandle::none`], and nobody is told about them ([`on_close`](Self::on_close),
    /// [`server_timing`](Self::server_timing)). Has no effect together with a [soft limit](Self::soft_limit) or
    /// [`zero_freed`](Self::zero_freed), which all requests are to have.
    ///
    /// ```
    /// # use shockwave_alloc::tower::RequestArenaLayer;
    /// let layer = RequestArenaLayer::new().skip_small(true);
    /// ```
    pub fn skip_small(self, on: bool) -> Self {
        self.with(|options| options.small = on.then(|| Arc::new(Small::new())))
    }

    /// Adds what the arena has served until the response begins to the response (off if not set):
    /// `server-timing: arena;desc="12 allocations, 3456 B"`.
    ///
    /// Browsers show it beside the request. It tells clients how the server works inside: for development, or behind a proxy
    /// that removes it.
    pub fn server_timing(self, on: bool) -> Self {
        self.with(|options| options.server_timing = on)
    }

    /// Records the arena's final figures in the span that is current when the request arrives (off if not set): the fields
    /// `arena.bytes`, `arena.allocations`, `arena.escaped_blocks` and `arena.over_limit`, as far as the span declares them.
    ///
    /// ```
    /// use tracing::field::Empty;
    ///
    /// # let request = http::Request::new(());
    /// // In the layer outside of this one that makes the request's span:
    /// let span = tracing::info_span!("request", path = request.uri().path(), arena.bytes = Empty, arena.allocations = Empty);
    /// ```
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn record_in_span(self, on: bool) -> Self {
        self.with(|options| options.record_in_span = on)
    }

    /// Keeps a scavenger until the layer and the services made of it are gone: memory that requests have left goes back to the OS when they
    /// cease, too.
    ///
    /// ```
    /// use shockwave_alloc::{ScavengerConfig, start_scavenger, tower::RequestArenaLayer};
    ///
    /// let layer = RequestArenaLayer::new().scavenger(start_scavenger(ScavengerConfig::DEFAULT)?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn scavenger(self, scavenger: Scavenger) -> Self {
        self.with(|options| options.scavenger = Some(Arc::new(scavenger)))
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(Arc::make_mut(&mut self.options));
        self
    }
}

impl Default for RequestArenaLayer {
    fn default() -> Self {
        RequestArenaLayer::new()
    }
}

impl<S> Layer<S> for RequestArenaLayer {
    type Service = RequestArenaService<S>;

    fn layer(&self, inner: S) -> RequestArenaService<S> {
        RequestArenaService::new(inner, Arc::clone(&self.options))
    }
}

impl Options {
    /// Opens the arena of a request. `None` if it is to have none.
    fn open<B>(self: &Arc<Self>, request: &Request<B>) -> Option<Opened> {
        let kind = kind_of_request(request.method(), request.uri().path());
        // What protects something is done for all.
        let protects = self.limit.is_some() || self.zero_freed;
        let small = self.small.as_ref().filter(|_| !protects);
        let noted = match small.map(|small| (small, small.choose(kind))) {
            Some((_, Choice::Skipped)) => return None,
            Some((small, Choice::LookedAt)) => Some((Arc::clone(small), kind)),
            Some((_, Choice::Arena)) | None => None,
        };
        let mut builder = RequestArena::builder().zero_freed(self.zero_freed).kind(kind);
        if let Some(limit) = self.limit {
            builder = builder.soft_limit(limit);
        }
        let watched = self.on_close.is_some() || self.limit.is_some() || self.record_in_span;
        let watch = watched.then(|| Watch::new(request, Arc::clone(self)));
        let arena = ArenaHandle::with_closing(builder.build(), watch.clone().map(|watch| watch as _));
        Some(Opened { arena, watch, noted, server_timing: self.server_timing, moving: !self.zero_freed })
    }

    fn over_limit_response(&self, stats: &ArenaStats, info: &RequestInfo) -> Response<Bytes> {
        match &self.over_limit {
            Some(response) => response(stats, info),
            None => {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
        }
    }
}

/// A key for requests that do the same: of the method and those parts of the path that have no digit, since the others name things.
fn kind_of_request(method: &Method, path: &str) -> u64 {
    // FNV-1a (Fowler, Noll and Vo), 64 bits, of each part and then of these.
    const SEED: u64 = 0xcbf2_9ce4_8422_2325;
    const fn add(hash: u64, value: u64) -> u64 {
        (hash ^ value).wrapping_mul(0x100_0000_01b3)
    }
    let mut key = method.as_str().bytes().fold(SEED, |hash, byte| add(hash, byte.into()));
    let (mut part, mut has_digit) = (SEED, false);
    for &byte in path.as_bytes() {
        if byte == b'/' {
            key = if has_digit { key } else { add(key, part) };
            (part, has_digit) = (SEED, false);
        } else {
            has_digit |= byte.is_ascii_digit();
            part = add(part, byte.into());
        }
    }
    if has_digit { key } else { add(key, part) }
}

/// The arena of a request, and what is to be done with its figures.
struct Opened {
    arena: ArenaHandle,
    watch: Option<Arc<Watch>>,
    /// Where to note how many allocations it has served, and the key of its kind.
    noted: Option<(Arc<Small>, u64)>,
    server_timing: bool,
    /// Whether frames and what is in headers are moved out of the arena.
    moving: bool,
}

impl fmt::Debug for RequestArenaLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestArenaLayer").field("options", &self.options).finish()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("limit", &self.limit)
            .field("zero_freed", &self.zero_freed)
            .field("over_limit", &self.over_limit.is_some())
            .field("on_close", &self.on_close.is_some())
            .field("skip", &self.skip.is_some())
            .field("small", &self.small)
            .field("server_timing", &self.server_timing)
            .field("record_in_span", &self.record_in_span)
            .field("scavenger", &self.scavenger.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_do_the_same_are_of_one_kind() {
        let kind = |method: Method, path| kind_of_request(&method, path);
        assert_eq!(kind(Method::GET, "/users/17"), kind(Method::GET, "/users/9f2c"));
        assert_eq!(kind(Method::GET, "/users/17/posts"), kind(Method::GET, "/users/18/posts"));
        let kinds = [
            kind(Method::GET, "/"),
            kind(Method::GET, "/users"),
            kind(Method::POST, "/users"),
            kind(Method::GET, "/posts"),
            kind(Method::GET, "/users/posts"),
            kind(Method::GET, "/posts/users"),
        ];
        for (index, one) in kinds.iter().enumerate() {
            assert!(!kinds[..index].contains(one), "{index}");
        }
    }
}
