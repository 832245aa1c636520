//! hyper without a framework: HTTP/1 and HTTP/2 on one port, an arena for each connection and one inside it for each request;
//! and a protocol of lines after an upgrade, as WebSocket would be, with an arena for each message.
//!
//! ```text
//! cargo run --release --example hyper_raw                   # on 127.0.0.1:8081, or give HOST:PORT
//! curl -d 'some words' http://127.0.0.1:8081/shout
//! ```

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use shockwave_alloc::tower::RequestArenaLayer;
use shockwave_alloc::{ArenaFutureExt, Shockwave, with_request_arena};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tower::ServiceBuilder;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

async fn handle(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/shout") => {
            let body = request.into_body().collect().await?.to_bytes();
            let words: Vec<String> =
                String::from_utf8_lossy(&body).split(' ').map(str::to_uppercase).collect();
            Ok(Response::new(Full::from(words.join(" ! "))))
        }
        (&Method::GET, "/lines") if request.headers().get(UPGRADE).is_some_and(|name| name == "lines") => {
            // Spawned, so outside of the request's arena.
            tokio::spawn(async move {
                if let Ok(upgraded) = hyper::upgrade::on(request).await {
                    // Whoever it was has gone away.
                    let _ = lines(TokioIo::new(upgraded)).in_request_arena().await;
                }
            });
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(UPGRADE, http::HeaderValue::from_static("lines"));
            Ok(response)
        }
        _ => {
            let mut response = Response::new(Full::from("POST /shout, or upgrade GET /lines\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok(response)
        }
    }
}

/// Answers each line with its words in reverse order. The connection's arena is entered, and has a message's inside.
async fn lines(stream: impl AsyncRead + AsyncWrite) -> std::io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let mut answer = with_request_arena(|| line.split(' ').rev().collect::<Vec<_>>().join(" "));
        answer.push('\n');
        writer.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// Serves until the listener fails.
///
/// # Errors
///
/// When no connection can be accepted.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let service = ServiceBuilder::new().layer(RequestArenaLayer::new()).service_fn(handle);
        let connection = async move {
            let builder = Builder::new(TokioExecutor::new());
            let served = builder
                .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service))
                .await;
            // A client that does not speak HTTP, or that has gone away, is no failure of the server.
            drop(served);
            Ok::<(), Infallible>(())
        };
        // What the connection itself needs, its buffers and tables, is in an arena that ends with it.
        tokio::spawn(connection.in_request_arena());
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8081".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve(listener).await
}
