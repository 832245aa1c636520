//! Sends orders from a thread of its own, and verifies every answer.

use std::error::Error;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

use super::servers::{Text, invoice, order};

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, one request at a time.
    Http1,
    /// HTTP/2, one request at a time.
    Http2,
    /// gRPC, which is HTTP/2.
    Grpc,
}

/// What stands in for any failure.
pub type Failure = Box<dyn Error + Send + Sync>;

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Sends `requests` orders over `connections` connections at the same time, and leaves.
///
/// # Errors
///
/// When a connection fails, or an answer is not the invoice.
pub fn send(
    address: SocketAddr,
    protocol: Protocol,
    path: &'static str,
    requests: usize,
    connections: usize,
) -> Result<(), Failure> {
    // In this thread: the server's threads have none of its memory.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for first in 0..connections {
            tasks.spawn(async move {
                let mut sender = connect(address, protocol).await?;
                for number in (first..requests).step_by(connections) {
                    exchange(&mut sender, protocol, path, number).await?;
                }
                Ok::<_, Failure>(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    })
}

async fn connect(address: SocketAddr, protocol: Protocol) -> Result<Sender, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(stream);
    Ok(if protocol == Protocol::Http1 {
        let (sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        Sender::Http1(sender)
    } else {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Sender::Http2(sender)
    })
}

async fn exchange(sender: &mut Sender, protocol: Protocol, path: &str, number: usize) -> Result<(), Failure> {
    let json = serde_json::to_string(&order(number))?;
    let (kind, body) = match protocol {
        Protocol::Grpc => ("application/grpc", framed(&Text { json })),
        _ => ("application/json", Bytes::from(json)),
    };
    let request = Request::post(format!("http://localhost{path}"))
        .header("host", "localhost")
        .header("user-agent", "orders/1.0")
        .header("accept", "application/json")
        .header("te", "trailers")
        .header("content-type", kind)
        .body(Full::new(body))?;
    let response = match sender {
        Sender::Http1(sender) => {
            sender.ready().await?;
            sender.send_request(request).await?
        }
        Sender::Http2(sender) => {
            sender.ready().await?;
            sender.send_request(request).await?
        }
    };
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let text = match protocol {
        Protocol::Grpc => Text::decode(body.get(5..).unwrap_or_default())?.json,
        _ => String::from_utf8(body.to_vec())?,
    };
    if status != 200 || text != invoice(number) {
        return Err(format!("order {number} to {path} was answered with {status}: {text:?}").into());
    }
    Ok(())
}

/// The message as gRPC frames it: not compressed, its length, itself.
fn framed(message: &Text) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    frame.extend_from_slice(&message.encode_to_vec());
    frame.freeze()
}
