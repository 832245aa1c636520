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
use crate::sample::{self, VARIANTS};
use crate::store::{KEPT_CREATED, NewUser};
use crate::traffic::{Script, Traffic};

/// What clients have done.
#[derive(Default)]
pub struct Done {
    pub verified: AtomicU64,
    pub slow: AtomicU64,
    pub aborted: AtomicU64,
    pub vanished: AtomicU64,
}

/// Makes as many users as the store keeps.
///
/// # Errors
/// When one is not made.
pub async fn fill(address: SocketAddr) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    for number in 0..KEPT_CREATED as u64 {
        let variant = number % VARIANTS;
        let body = serde_json::to_string(&NewUser { variant, profile: sample::profile(variant) })?;
        let head = "POST /users HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
        let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = connection.exchange(request.as_bytes()).await?;
        if answer.status != 201 {
            return Err(io::Error::other(format!("a user was not made: status {}", answer.status)));
        }
    }
    Ok(())
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

/// Downloads that a slow reader asks for at once: more than sockets take, so that the server waits with a response in its hands.
const PIPELINED: usize = 31;

/// Reads many downloads in small pieces with pauses, and compares them.
///
/// # Errors
/// When the server gives up, or the contents are wrong.
pub async fn read_slowly(address: SocketAddr, done: Arc<Done>) -> io::Result<()> {
    let expected = sample::download();
    let mut requests = "GET /download HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(PIPELINED - 1);
    requests.push_str("GET /download HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    loop {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let mut stream = socket.connect(address).await?;
        stream.write_all(requests.as_bytes()).await?;
        let mut answers = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            let read = stream.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            answers.extend_from_slice(&piece[..read]);
            sleep(Duration::from_millis(2)).await;
        }
        if !are_downloads(&answers, expected.as_bytes()) {
            return Err(io::Error::other("a slow reader got something else than the downloads"));
        }
        done.slow.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether these are as many answers as were asked for, each with the body that is expected.
fn are_downloads(answers: &[u8], body: &[u8]) -> bool {
    let mut rest = answers;
    for _ in 0..PIPELINED {
        let Some(head) = rest.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
        let Some(after) = rest[head + 4..].strip_prefix(body) else { return false };
        rest = after;
    }
    rest.is_empty()
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers everything with the same.
    async fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok() {
                    // Who has asked may have gone.
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn wrong_answers_are_seen() {
        let address = server("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nHello\n").await;
        let done = Arc::new(Done::default());
        let wrong = verify(address, Arc::new(Traffic::prepare()), 0, Arc::clone(&done)).await.unwrap_err();
        assert!(wrong.to_string().contains("was answered with status 200"), "{wrong}");
        assert_eq!(done.verified.load(Ordering::Relaxed), 0);
        let wrong = read_slowly(address, Arc::clone(&done)).await.unwrap_err();
        assert!(wrong.to_string().contains("something else"), "{wrong}");
        assert_eq!(done.slow.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn downloads_are_compared_to_the_last() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
        let all = answer.repeat(PIPELINED);
        assert!(are_downloads(all.as_bytes(), b"body"));
        assert!(!are_downloads(answer.repeat(PIPELINED - 1).as_bytes(), b"body"));
        assert!(!are_downloads(answer.repeat(PIPELINED + 1).as_bytes(), b"body"));
        assert!(!are_downloads((all[..all.len() - 1].to_owned() + "i").as_bytes(), b"body"));
    }

    #[tokio::test]
    async fn answers_that_end_too_early_are_failures() {
        let address = server("HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\nHello\n").await;
        let wrong = verify(address, Arc::new(Traffic::prepare()), 0, Arc::default()).await.unwrap_err();
        assert_eq!(wrong.kind(), io::ErrorKind::UnexpectedEof);
    }
}
