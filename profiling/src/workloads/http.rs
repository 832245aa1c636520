//! Requests with their compute: parse the bytes into owned parts, build the answer.

use std::hint::black_box;

use super::fragmented::aged_heap;
use crate::{Clock, Sample, Scope};

/// Header lines that browsers and proxies send; [`message`] numbers further ones.
const USUAL_HEADERS: [(&str, &str); 3] = [
    ("Host", "api.example.org"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"),
    ("Accept", "application/json, text/plain;q=0.9, */*;q=0.8"),
];

/// One operation: a request with 4 headers and a body of 512 B is parsed and answered.
pub fn typical<S: Scope>(clock: &Clock) -> Sample {
    serve::<S>(clock, 4, 512)
}

/// [`typical`] on a heap that has been in use for long: random ones of 100,000 live blocks of 16 B to 2 KiB were replaced
/// 3.6 million times, and one in four is still live.
pub fn typical_fragmented<S: Scope>(clock: &Clock) -> Sample {
    let _left = aged_heap();
    typical::<S>(clock)
}

/// One operation: a request with 32 headers and a body of 512 B is parsed and answered.
pub fn headers<S: Scope>(clock: &Clock) -> Sample {
    serve::<S>(clock, 32, 512)
}

/// One operation: a request with 4 headers and a body of 64 KiB is parsed and answered. The body is copied
/// twice, which is most of the time.
pub fn large<S: Scope>(clock: &Clock) -> Sample {
    serve::<S>(clock, 4, 64 << 10)
}

/// Parses and answers a request of `header_count` headers and `body_bytes` bytes of body.
fn serve<S: Scope>(clock: &Clock, header_count: usize, body_bytes: usize) -> Sample {
    let message = message(header_count, body_bytes);
    let call = || {
        let request = parse(black_box(&message)).expect("the message is valid");
        let answer = answer(request).into_bytes();
        black_box(&answer).len() as u64
    };
    // SAFETY: request and answer are dropped within the call.
    unsafe { clock.measure_scoped::<S>(1, call) }
}

/// A request whose parts own their memory, as in a server that hands it to another task.
pub(super) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// Bytes that it asks the allocator for.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let text = |text: &String| text.capacity();
        let headers: usize = self.headers.iter().map(|(name, value)| text(name) + text(value)).sum();
        let list = self.headers.capacity() * size_of::<(String, String)>();
        text(&self.method) + text(&self.path) + headers + list + self.body.capacity()
    }
}

/// An answer before it is written.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Takes a message apart; `None` if it is no HTTP/1.1 request with a length.
pub(super) fn parse(message: &[u8]) -> Option<Request> {
    let (line, mut rest) = split_line(message)?;
    let mut words = line.split(|byte| *byte == b' ');
    let method = text(words.next()?)?.to_owned();
    let path = text(words.next()?)?.to_owned();
    if words.next()? != b"HTTP/1.1" {
        return None;
    }
    let mut headers = Vec::new();
    let mut length = None;
    loop {
        let (line, after) = split_line(rest)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        let (name, value) = text(line)?.split_once(':')?;
        let (name, value) = (name.to_owned(), value.trim_ascii().to_owned());
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok();
        }
        headers.push((name, value));
    }
    let body = rest.get(..length?)?.to_vec();
    Some(Request { method, path, headers, body })
}

/// Echoes the body, and names what was asked for.
fn answer(request: Request) -> Answer {
    let agent = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
    let headers = vec![
        ("Content-Type".to_owned(), "application/octet-stream".to_owned()),
        ("Content-Length".to_owned(), request.body.len().to_string()),
        ("X-Request".to_owned(), format!("{} {}", request.method, request.path)),
        ("X-Agent".to_owned(), agent.map(|(_, value)| value.clone()).unwrap_or_default()),
    ];
    Answer { status: 200, headers, body: request.body }
}

impl Answer {
    /// The bytes that go to the client, in one buffer that grows as it is filled.
    fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(b"HTTP/1.1 ");
        bytes.extend_from_slice(self.status.to_string().as_bytes());
        bytes.extend_from_slice(b" OK\r\n");
        for (name, value) in &self.headers {
            for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The first line without its end, and what follows it.
fn split_line(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', message)?;
    Some((message[..end].strip_suffix(b"\r")?, &message[end + 1..]))
}

/// The bytes as text if they are UTF-8.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The request that is parsed, as it comes from the network.
pub(super) fn message(header_count: usize, body_bytes: usize) -> Vec<u8> {
    let mut head = String::from("POST /v1/accounts/4711/orders HTTP/1.1\r\n");
    for (name, value) in USUAL_HEADERS {
        head += &format!("{name}: {value}\r\n");
    }
    for number in USUAL_HEADERS.len() + 1..header_count {
        // Values of 8 to 71 B.
        head += &format!("X-Forwarded-Detail-{number}: {}\r\n", "v".repeat(8 + number * 23 % 64));
    }
    head += &format!("Content-Length: {body_bytes}\r\n\r\n");
    let mut message = head.into_bytes();
    message.extend((0..body_bytes).map(|index| b'a' + (index % 26) as u8));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_answers_what_it_builds() {
        for (headers, body) in [(4, 512), (32, 512), (4, 64 << 10)] {
            let request = parse(&message(headers, body)).unwrap();
            assert_eq!((request.headers.len(), request.body.len()), (headers, body));
            assert_eq!(
                (request.method.as_str(), request.path.as_str()),
                ("POST", "/v1/accounts/4711/orders")
            );
            let bytes = answer(request).into_bytes();
            assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\nContent-Type: "));
            assert!(bytes.ends_with(b"z") || bytes.len() > body);
        }
    }

    #[test]
    fn refuses_what_is_no_request() {
        assert!(parse(b"GET / HTTP/1.0\r\n\r\n").is_none());
        assert!(parse(b"GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\nshort").is_none());
    }
}
