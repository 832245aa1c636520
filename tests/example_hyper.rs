//! The example `hyper_raw` with real requests: both versions of HTTP, and its own protocol after an upgrade.

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use shockwave_alloc::stats;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use http_client::{Client, wait_for};

mod http_client;
#[allow(dead_code, reason = "`main` is the test's")]
#[path = "../examples/hyper_raw.rs"]
mod hyper_raw;

/// Statistics are the process's, so tests run one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_their_requests_have_arenas() {
    let _alone = ALONE.lock().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(hyper_raw::serve(listener));
    let before = stats();

    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        clients.spawn(async move {
            let mut client =
                if number % 2 == 0 { Client::http1(address).await } else { Client::http2(address).await };
            for round in 0..25 {
                let words = format!("request {round} of client {number}");
                let answer = client.post("/shout", "text/plain", words.clone()).await;
                let expected = words.to_uppercase().replace(' ', " ! ");
                assert_eq!((answer.status.as_u16(), answer.text()), (200, expected.as_str()));
            }
            assert_eq!(client.get("/nothing").await.status, 404);
            // What fits no chunk.
            let words = "many words ".repeat(20_000);
            let answer = client.post("/shout", "text/plain", words.clone()).await;
            assert_eq!(answer.text(), words.to_uppercase().replace(' ', " ! "));
        });
    }
    clients.join_all().await;
    // Each connection had one, too, which ends with it.
    wait_for(|| stats().arenas_closed - before.arenas_closed >= 8 * 28).await;
    wait_for(|| stats().open_arenas == before.open_arenas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_after_an_upgrade() {
    let _alone = ALONE.lock().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(hyper_raw::serve(listener));

    let stream = TokioIo::new(TcpStream::connect(address).await.expect("a connection"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(stream).await.expect("a handshake");
    tokio::spawn(connection.with_upgrades());
    let request = Request::get("/lines").header("host", "localhost").header("connection", "upgrade");
    let request = request.header("upgrade", "lines").body(Empty::new()).expect("a request");
    let response = sender.send_request(request).await.expect("a response");
    assert_eq!(response.status(), 101);
    let upgraded = hyper::upgrade::on(response).await.expect("an upgrade");
    let (reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    let mut answers = BufReader::new(reader).lines();
    for round in 0..200 {
        writer.write_all(format!("message {round} of many\n").as_bytes()).await.expect("an open connection");
        let answer = answers.next_line().await.expect("an open connection");
        assert_eq!(answer, Some(format!("many of {round} message")));
    }
}
