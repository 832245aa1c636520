//! The example `tonic_echo` with real calls.

use shockwave_alloc::stats;
use tokio::net::TcpListener;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use http_client::wait_for;
use tonic_echo::Words;

mod http_client;
#[allow(dead_code, reason = "`main` is the test's")]
#[path = "../examples/tonic_echo.rs"]
mod tonic_echo;

fn words<const N: usize>(words: [&str; N]) -> Words {
    Words { words: words.map(String::from).into() }
}

async fn reverse(channel: &Channel, request: Words) -> Result<Words, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("a server");
    let path = PathAndQuery::from_static("/echo.Echo/Reverse");
    client.unary(Request::new(request), path, ProstCodec::default()).await.map(|answer| answer.into_inner())
}

async fn each(channel: &Channel, request: Words) -> Vec<Words> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("a server");
    let path = PathAndQuery::from_static("/echo.Echo/Each");
    let answer = client.server_streaming(Request::new(request), path, ProstCodec::default()).await;
    let mut stream = answer.expect("an answer").into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.expect("a stream") {
        messages.push(message);
    }
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_each_from_an_arena() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(tonic_echo::serve(listener));
    let before = stats();
    let channel = Endpoint::try_from(format!("http://{address}")).expect("an address").connect().await;
    let channel = channel.expect("a connection");

    let mut calls = tokio::task::JoinSet::new();
    for number in 0..50 {
        let channel = channel.clone();
        calls.spawn(async move {
            let own = format!("call {number}");
            let answer = reverse(&channel, words(["first", "second", &own])).await.expect("an answer");
            assert_eq!(answer, words([&own, "second", "first"]));
            let many: Vec<String> = (0..300).map(|word| format!("word {word} of {number}")).collect();
            let messages = each(&channel, Words { words: many.clone() }).await;
            assert!(messages.iter().flat_map(|message| &message.words).eq(&many));
            assert_eq!(messages.len(), 300);
        });
    }
    calls.join_all().await;
    let refused = reverse(&channel, words([])).await.expect_err("nothing to reverse");
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "no words to reverse"));
    wait_for(|| {
        let now = stats();
        now.arenas_closed - before.arenas_closed == 101 && now.open_arenas == before.open_arenas
    })
    .await;
}
