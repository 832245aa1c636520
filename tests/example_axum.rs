//! The example `axum_api` with real requests.

use std::time::Duration;

use shockwave_alloc::stats;
use tokio::net::TcpListener;

use http_client::{Client, wait_for};

#[allow(dead_code, reason = "`main` is the test's")]
#[path = "../examples/axum_api.rs"]
mod axum_api;
mod http_client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_each_from_an_arena() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum_api::serve(listener));
    let before = stats();

    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        clients.spawn(async move {
            let mut client = Client::http1(address).await;
            for round in 0..25 {
                let note =
                    format!(r#"{{"title":"note {round} of client {number}","tags":["a","tag {number}"]}}"#);
                let created = client.post("/notes", "application/json", note.clone()).await;
                assert_eq!(created.status, 201, "{created:?}");
                assert!(created.headers["server-timing"].to_str().unwrap().starts_with("arena;desc=\""));
                let got = client.get(&format!("/notes/{}", created.text())).await;
                assert_eq!((got.status.as_u16(), got.text()), (200, note.as_str()));
            }
        });
    }
    clients.join_all().await;

    let mut client = Client::http1(address).await;
    let all: serde_json::Value = serde_json::from_slice(&client.get("/notes").await.body).expect("JSON");
    assert_eq!(all.as_object().expect("an object").len(), 200);
    // "note", "of", "client", and the numbers from 0 to 24.
    let summary = client.get("/summary").await;
    assert!(summary.text().starts_with("28 different words, "), "{}", summary.text());
    assert_eq!(client.get("/notes/1000").await.status, 404);
    assert_eq!(client.post("/notes", "application/json", "{").await.status, 400);

    let hoard = client.get("/hoard").await;
    assert_eq!(hoard.status, 503);
    assert!(hoard.text().ends_with(" B are too much for one request\n"), "{}", hoard.text());

    // A client that goes away in the middle of its request.
    for _ in 0..5 {
        let mut leaver = Client::http1(address).await;
        let _ = tokio::time::timeout(Duration::from_millis(1), leaver.get("/hoard")).await;
    }
    let requests = 8 * 50 + 6;
    wait_for(|| {
        stats().arenas_closed - before.arenas_closed >= requests && stats().open_arenas == before.open_arenas
    })
    .await;
}
