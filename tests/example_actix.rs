//! The example `actix_api` with real requests.

use std::net::TcpListener;

use shockwave_alloc::stats;

use http_client::{Client, wait_for};

#[allow(dead_code, reason = "`main` is the test's")]
#[path = "../examples/actix_api.rs"]
mod actix_api;
mod http_client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_each_from_an_arena() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, handle) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async {
            let server = actix_api::server(listener, 2).expect("a server");
            sender.send(server.handle()).expect("somebody waits");
            server.await
        })
    });
    let before = stats();

    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        clients.spawn(async move {
            let mut client = Client::http1(address).await;
            for round in 0..25 {
                let answer = client.get(&format!("/sorted/pear,apple,{number}-{round}")).await;
                assert_eq!(answer.text(), format!("{number}-{round} apple pear"));
                let allocations = answer.headers["x-allocations"].to_str().expect("text");
                assert!(allocations.parse::<u64>().expect("a number") > 0, "nothing was in an arena");
                let text = format!("text {round} of client {number}");
                let answer = client.post("/reversed", "text/plain", text.clone()).await;
                assert!(answer.text().chars().rev().eq(text.chars()));
            }
        });
    }
    clients.join_all().await;
    wait_for(|| {
        let now = stats();
        now.arenas_closed - before.arenas_closed == 8 * 50 && now.open_arenas == before.open_arenas
    })
    .await;
    handle.recv().expect("it runs").stop(true).await;
    thread.join().expect("no panic").expect("no failure");
}
