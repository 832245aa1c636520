//! A JSON API on axum in which each request has an arena.
//!
//! ```text
//! cargo run --release --example axum_api                    # on 127.0.0.1:8080, or give HOST:PORT
//! curl -i http://127.0.0.1:8080/notes -H 'content-type: application/json' -d '{"title":"first","tags":["a","b"]}'
//! curl -i http://127.0.0.1:8080/notes
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use shockwave_alloc::tower::RequestArenaLayer;
use shockwave_alloc::{ArenaHandle, Shockwave, outside_arena};
use tokio::net::TcpListener;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Bytes that a request may hold in its arena.
const LIMIT: usize = 8 << 20;

#[derive(Clone, Serialize, Deserialize)]
struct Note {
    title: String,
    tags: Vec<String>,
}

type Store = Arc<RwLock<BTreeMap<u64, Note>>>;

/// All routes; the layer is the one line that gives each request its arena.
pub fn app() -> Router {
    Router::new()
        .route("/notes", get(list).post(create))
        .route("/notes/{id}", get(one))
        .route("/summary", get(summary))
        .route("/hoard", get(hoard))
        .layer(
            RequestArenaLayer::new()
                .server_timing(true)
                .soft_limit(LIMIT)
                .over_limit_response(|stats, _| too_much(stats.total_bytes)),
        )
        .with_state(Store::default())
}

async fn list(State(store): State<Store>) -> Json<BTreeMap<u64, Note>> {
    // A copy of everything, in the arena, and text made of it: all gone with the response.
    Json(store.read().expect("no panic with the lock").clone())
}

async fn one(State(store): State<Store>, Path(id): Path<u64>) -> Result<Json<Note>, StatusCode> {
    store.read().expect("no panic with the lock").get(&id).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn create(State(store): State<Store>, Json(note): Json<Note>) -> (StatusCode, Json<u64>) {
    // What is kept is copied outside of the arena. Without that it would stay valid as well, and keep its 64 KiB.
    let id = outside_arena(|| {
        let mut notes = store.write().expect("no panic with the lock");
        let id = notes.last_key_value().map_or(1, |(&last, _)| last + 1);
        notes.insert(id, note.clone());
        id
    });
    (StatusCode::CREATED, Json(id))
}

/// Counts the words of all notes in another task, which joins the arena on purpose.
async fn summary(
    State(store): State<Store>,
    Extension(arena): Extension<ArenaHandle>,
) -> Result<String, StatusCode> {
    let inside = arena.clone();
    let count = tokio::task::spawn_blocking(move || {
        inside.run(|| {
            let notes: Vec<Note> = store.read().expect("no panic with the lock").values().cloned().collect();
            let words = notes.iter().flat_map(|note| note.title.split_whitespace().map(str::to_lowercase));
            words.collect::<std::collections::HashSet<_>>().len()
        })
    });
    let count = count.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let allocations = arena.stats().unwrap_or_default().allocations;
    Ok(format!("{count} different words, {allocations} allocations so far\n"))
}

/// Takes ten times the limit: the layer answers for it.
async fn hoard() -> String {
    let mut hoard = Vec::new();
    for _ in 0..LIMIT / 1000 {
        hoard.push(vec![0u8; 10_000]);
        tokio::time::sleep(Duration::from_micros(10)).await;
    }
    format!("{} B\n", hoard.iter().map(Vec::len).sum::<usize>())
}

fn too_much(bytes: u64) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{bytes} B are too much for one request\n")));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Serves until the listener fails.
///
/// # Errors
///
/// When the server fails as a whole.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    axum::serve(listener, app()).await
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve(listener).await
}
