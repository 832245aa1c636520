//! The handlers, and the layer that gives each request an arena of its own.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use shockwave_alloc::tower::RequestArenaLayer;
use shockwave_alloc::{mode, outside_arena, stats};

use crate::sample;
use crate::store::{NewUser, Store, User};

/// All routes over one store, each request in an arena, except where that is not worth it.
#[allow(dead_code, reason = "not every program that uses this has arenas")]
pub fn router(store: Arc<Store>) -> Router {
    // Outside of the layer: who asks for the figures does not want to be in them.
    requests(store).layer(RequestArenaLayer::new().skip_small(true)).merge(figures())
}

/// The routes alone, as they are for other allocators.
#[allow(dead_code, reason = "not every program that uses this has other allocators")]
pub fn routes(store: Arc<Store>) -> Router {
    requests(store).merge(figures())
}

fn requests(store: Arc<Store>) -> Router {
    Router::new()
        .route("/hello", get(hello))
        .route("/users", get(list_users).post(create_user))
        .route("/users/{id}", get(get_user).put(update_user))
        .route("/headers", get(headers))
        .route("/upload", post(upload))
        .route("/download", get(download))
        .route("/wait/{ms}", get(wait))
        .with_state(store)
}

fn figures() -> Router {
    Router::new().route("/stats", get(stats_text)).route("/stats.json", get(stats_json))
}

async fn hello() -> Response {
    format!("Hello from {}!\n", "Shockwave").into_response()
}

#[derive(Deserialize)]
struct Page {
    /// Users with larger ids; without it, the newest users.
    after: Option<u64>,
}

async fn list_users(State(store): State<Arc<Store>>, Query(page): Query<Page>) -> Response {
    // The copies of the users and the text of the answer go with the request's arena.
    Json(store.list(page.after)).into_response()
}

async fn get_user(State(store): State<Arc<Store>>, Path(id): Path<u64>) -> Response {
    match store.get(id) {
        Some(user) => Json(user).into_response(),
        None => no_user(id),
    }
}

async fn create_user(State(store): State<Arc<Store>>, body: Bytes) -> Response {
    let user: NewUser = match serde_json::from_slice(&body) {
        Ok(user) => user,
        Err(error) => return not_understood(&error),
    };
    let answer = user.clone();
    // The store gets the very blocks that were parsed into the arena. They escape: valid until the store
    // frees them, and until then they keep the arena's chunk.
    let id = store.create(user);
    (StatusCode::CREATED, Json(User::new(id, answer))).into_response()
}

async fn update_user(State(store): State<Arc<Store>>, Path(id): Path<u64>, body: Bytes) -> Response {
    let user: NewUser = match serde_json::from_slice(&body) {
        Ok(user) => user,
        Err(error) => return not_understood(&error),
    };
    // The other way to keep something for long: a copy made outside of the arena, so that nothing
    // escapes.
    let kept = outside_arena(|| user.clone());
    if store.update(id, kept) { Json(User::new(id, user)).into_response() } else { no_user(id) }
}

#[derive(Serialize)]
struct HeaderSummary {
    headers: usize,
    bytes: usize,
}

/// Answers each `x-sample-*` header of the request as `x-echo-*`.
async fn headers(request: HeaderMap) -> Response {
    let fields: Vec<(String, String)> = request
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-sample-")?;
            Some((format!("x-echo-{name}"), value.to_str().ok()?.to_owned()))
        })
        .collect();
    let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    let mut response = Json(HeaderSummary { headers: fields.len(), bytes }).into_response();
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

async fn upload(body: Bytes) -> Response {
    Json(sample::summarize(&body)).into_response()
}

async fn download() -> Response {
    sample::download().into_response()
}

/// Answers with a user after so many milliseconds, with the work done before and kept meanwhile, as when another server is
/// waited for.
async fn wait(State(store): State<Arc<Store>>, Path(ms): Path<u64>, request: HeaderMap) -> Response {
    let user = store.get(1 + ms % 2_000);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    match user {
        Some(user) => {
            (StatusCode::OK, [("x-headers", request.len().to_string())], Json(user)).into_response()
        }
        None => no_user(1),
    }
}

fn no_user(id: u64) -> Response {
    (StatusCode::NOT_FOUND, format!("no user has the id {id}\n")).into_response()
}

fn not_understood(error: &serde_json::Error) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, format!("the body is not a user: {error}\n")).into_response()
}

async fn stats_text() -> String {
    format!("{}\n", stats())
}

async fn stats_json() -> Json<Snapshot> {
    Json(Snapshot::now())
}

/// The counters of the allocator that a load is judged by; what `/stats.json` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Mode the process is in.
    pub mode: String,
    /// Calls to the backing allocator so far.
    pub backing_calls: u64,
    /// Bytes bumped in arenas that are closed.
    pub arena_bytes: u64,
    /// Arenas closed so far.
    pub arenas_closed: u64,
    /// Arenas open now.
    pub open_arenas: u64,
    /// Blocks that were alive when their arena closed, so far.
    pub escaped_blocks: u64,
    /// Chunks that escaped blocks keep now.
    pub pinned_chunks: u64,
    /// Bytes of those chunks.
    pub pinned_bytes: u64,
    /// Bytes committed in the reservation.
    pub committed_bytes: u64,
    /// Resident bytes of the process.
    pub resident_bytes: u64,
}

impl Snapshot {
    fn now() -> Self {
        let stats = stats();
        Self {
            mode: mode().to_string(),
            backing_calls: stats.backing_calls,
            arena_bytes: stats.arena_bytes,
            arenas_closed: stats.arenas_closed,
            open_arenas: stats.open_arenas,
            escaped_blocks: stats.escaped_blocks,
            pinned_chunks: stats.pinned_chunks,
            pinned_bytes: stats.pinned_bytes,
            committed_bytes: stats.committed_bytes,
            resident_bytes: stats.resident_bytes,
        }
    }
}
