//! A small HTTP/1.1 client: one connection that is kept, one request at a time, one buffer for all answers.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes that the buffer has at first: the largest answer of the sample server and its head, without growing.
const BUFFER_BYTES: usize = 128 * 1024;
/// Bytes of an answer above which it is refused rather than buffered.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;

/// A connection that is kept from request to request.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, in the buffer of its connection.
pub struct Response<'a> {
    /// Status code.
    pub status: u16,
    /// Header lines, without the status line.
    head: &'a [u8],
    /// Body, complete.
    pub body: &'a [u8],
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Sends a complete request and reads the complete answer.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not one that this client understands. The connection is of
    /// no use after that.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Response<'_>> {
        self.stream.write_all(request).await?;

        let mut filled = 0;
        let head = loop {
            let searched = filled;
            filled += self.read(filled).await?;
            if let Some(end) = end_of_head(&self.buffer[..filled], searched) {
                break parse_head(&self.buffer[..end], end)?;
            }
        };
        if head.total > LARGEST_ANSWER {
            return Err(invalid("the answer is larger than 16 MiB"));
        }
        if head.total > self.buffer.len() {
            self.buffer.resize(head.total, 0);
        }
        while filled < head.total {
            filled += self.read(filled).await?;
        }
        if filled > head.total {
            return Err(invalid("bytes follow the answer"));
        }
        Ok(Response {
            status: head.status,
            head: &self.buffer[head.fields..head.body],
            body: &self.buffer[head.body..head.total],
        })
    }

    async fn read(&mut self, filled: usize) -> Result<usize> {
        let free = &mut self.buffer[filled..];
        if free.is_empty() {
            return Err(invalid("the head of the answer does not end"));
        }
        match self.stream.read(free).await? {
            0 => {
                Err(Error::new(ErrorKind::UnexpectedEof, "the server closed the connection within an answer"))
            }
            count => Ok(count),
        }
    }
}

impl<'a> Response<'a> {
    /// Names and values of the headers, in the order and spelling of the answer.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        fields(self.head)
    }
}

/// Where the parts of an answer start and end in the buffer.
struct Head {
    status: u16,
    fields: usize,
    body: usize,
    total: usize,
}

/// Index after the empty line that ends the head. Bytes before `searched` are known to lack it.
fn end_of_head(bytes: &[u8], searched: usize) -> Option<usize> {
    // The end may lie across two reads: it starts up to three bytes early.
    let from = searched.saturating_sub(3);
    bytes[from..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| from + at + 4)
}

fn parse_head(head: &[u8], body: usize) -> Result<Head> {
    let line_end = head.iter().position(|&byte| byte == b'\n').unwrap_or(head.len() - 1);
    let status = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(number)
        .ok_or_else(|| invalid("the answer does not start with HTTP/1.1 and a status"))?;
    let start = line_end + 1;
    let length = fields(&head[start..])
        .find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))
        .and_then(|(_, value)| number(value))
        .ok_or_else(|| invalid("the answer has no content-length"))?;
    Ok(Head { status: status as u16, fields: start, body, total: body.saturating_add(length) })
}

fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

fn number(digits: &[u8]) -> Option<usize> {
    str::from_utf8(digits).ok()?.parse().ok()
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}
