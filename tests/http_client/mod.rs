//! A client for the tests of servers: connections over loopback, each with as many requests as wanted.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use shockwave_alloc::stats;
use tokio::net::TcpStream;

/// A connection of either version.
pub enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub async fn http1(address: SocketAddr) -> Client {
        let (sender, connection) = http1::handshake(connect(address).await).await.expect("a handshake");
        tokio::spawn(connection.with_upgrades());
        Client::Http1(sender)
    }

    pub async fn http2(address: SocketAddr) -> Client {
        let executor = TokioExecutor::new();
        let (sender, connection) =
            http2::handshake(executor, connect(address).await).await.expect("a handshake");
        tokio::spawn(connection);
        Client::Http2(sender)
    }

    /// Sends a request whose URI is a path; the host is added.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Answer {
        let response = match self {
            Client::Http1(sender) => {
                request.headers_mut().insert("host", http::HeaderValue::from_static("localhost"));
                sender.ready().await.expect("an open connection");
                sender.send_request(request).await
            }
            Client::Http2(sender) => {
                let uri = format!("http://localhost{}", request.uri());
                *request.uri_mut() = uri.parse().expect("a URI");
                sender.ready().await.expect("an open connection");
                sender.send_request(request).await
            }
        };
        let (parts, body) = response.expect("a response").into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path).body(Full::default()).expect("a request")).await
    }

    pub async fn post(&mut self, path: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(path).header("content-type", kind).body(Full::new(body.into()));
        self.send(request.expect("a request")).await
    }
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

async fn connect(address: SocketAddr) -> TokioIo<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    TokioIo::new(stream)
}

/// Waits until something that the server does after an answer has happened.
pub async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never happens: {}", stats());
}
