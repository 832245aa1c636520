//! Memory of many connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::Failure;
use crate::cli::Connections;
use crate::server::{Server, mib};

/// Longer than it takes to send all requests.
const WAIT: Duration = Duration::from_secs(20);

/// Prints, per allocator, resident memory before, with idle connections that had a request each, with a request of each waiting
/// in a handler, and after all have gone.
///
/// # Errors
/// When a server or a request fails.
pub async fn run(options: &Connections) -> Result<(), Failure> {
    println!("{} connections; resident MiB", options.count);
    println!("| allocator | at first | idle | waiting | 2 s after they closed |");
    println!("|---|---:|---:|---:|---:|");
    for name in &options.servers {
        let server = Server::start(name, options.workers)?;
        let first = server.resident()?;
        let mut open = Vec::new();
        let mut connecting = JoinSet::new();
        for _ in 0..options.count {
            if connecting.len() >= 100 {
                open.extend(connecting.join_next().await.transpose()?.transpose()?);
            }
            connecting.spawn(connect(server.address));
        }
        while let Some(connection) = connecting.join_next().await {
            open.push(connection??);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let idle = server.resident()?;
        let mut waiting = JoinSet::new();
        for mut connection in open {
            waiting.spawn(async move {
                request(&mut connection, &format!("/wait/{}", WAIT.as_millis())).await.map(|()| connection)
            });
        }
        tokio::time::sleep(WAIT / 2).await;
        let during = server.resident()?;
        while let Some(answered) = waiting.join_next().await {
            answered??;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!(
            "| {name} | {} | {} | {} | {} |",
            mib(first),
            mib(idle),
            mib(during),
            mib(server.resident()?)
        );
    }
    Ok(())
}

/// A connection with a small buffer, so that there can be many.
type Stream = tokio::io::BufReader<tokio::net::TcpStream>;

async fn connect(address: SocketAddr) -> std::io::Result<Stream> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let mut stream = tokio::io::BufReader::with_capacity(512, stream);
    request(&mut stream, "/users/7").await?;
    Ok(stream)
}

/// Sends a request and reads past the answer.
async fn request(stream: &mut Stream, path: &str) -> std::io::Result<()> {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: load\r\naccept: */*\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line).await? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        line.clear();
    }
    let read = tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await?;
    if length == 0 || read < length { Err(std::io::Error::other("no whole answer")) } else { Ok(()) }
}
