//! Clients that verify what they get, and clients that are slow, give up or disappear.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::client::Connection;
use crate::sample;
use crate::traffic::{Script, Traffic};

/// What clients have done.
#[derive(Default)]
pub struct Done {
    pub verified: AtomicU64,
    pub slow: AtomicU64,
    pub aborted: AtomicU64,
    pub vanished: AtomicU64,
}

/// Sends the mixed requests of the example's comparison and verifies every answer; a new connection every hundred.
///
/// # Errors
/// When an answer is not what it has to be.
pub async fn verify(
    address: SocketAddr,
    traffic: Arc<Traffic>,
    number: usize,
    done: Arc<Done>,
) -> io::Result<()> {
    let mut script = Script::new(traffic, number);
    loop {
        let mut connection = Connection::open(address).await?;
        for _ in 0..100 {
            let step = script.advance();
            let answer = connection.exchange(script.request(step)).await?;
            script.check(step, &answer).map_err(io::Error::other)?;
            done.verified.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Reads a download in small pieces with long pauses, and compares it.
///
/// # Errors
/// When the server gives up, or the contents are wrong.
pub async fn read_slowly(address: SocketAddr, done: Arc<Done>) -> io::Result<()> {
    let expected = sample::download();
    loop {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let mut stream = socket.connect(address).await?;
        stream.write_all(b"GET /download HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        let mut piece = [0; 2048];
        loop {
            let read = stream.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            answer.extend_from_slice(&piece[..read]);
            sleep(Duration::from_millis(20)).await;
        }
        if !answer.ends_with(expected.as_bytes()) {
            return Err(io::Error::other("a slow reader got something else than the download"));
        }
        done.slow.fetch_add(1, Ordering::Relaxed);
    }
}

/// Begins an upload, and leaves in the middle of it.
///
/// # Errors
/// When it cannot connect.
pub async fn abort_uploads(address: SocketAddr, done: Arc<Done>) -> io::Result<()> {
    let body = sample::upload();
    loop {
        let mut stream = TcpStream::connect(address).await?;
        let head =
            format!("POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body[..body.len() / 2]).await?;
        sleep(Duration::from_millis(10)).await;
        done.aborted.fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks for something, and is gone before the answer comes: with a reset, as when a machine disappears.
///
/// # Errors
/// When it cannot connect.
pub async fn vanish(address: SocketAddr, done: Arc<Done>) -> io::Result<()> {
    for path in ["/users", "/wait/50", "/download", "/wait/0"].iter().cycle() {
        let socket = TcpSocket::new_v4()?;
        socket.set_zero_linger()?;
        let mut stream = socket.connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await?;
        sleep(Duration::from_millis(5)).await;
        done.vanished.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
