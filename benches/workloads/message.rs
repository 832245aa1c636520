//! A request as it comes from the connection, parsed into parts that own their memory, and its answer.

use std::collections::HashMap;
use std::hint::black_box;

/// What a connection has read: the head up to the empty line, and the body.
pub struct Message {
    head: String,
    body: Vec<u8>,
}

/// Name and value of a header.
type HeaderLine = (String, String);

/// A parsed request. Its parts own their memory, as in a server that hands it to another task.
pub struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    protocol: String,
    headers: Vec<HeaderLine>,
    body: Vec<u8>,
}

/// The four headers of the original's typical request.
const USUAL_HEADERS: [(&str, &str); 4] = [
    ("Host", "example.com"),
    ("Content-Type", "application/json"),
    ("User-Agent", "Go-http-client/1.1"),
    ("Accept", "*/*"),
];

/// The line of the original's typical request.
const USUAL_LINE: &str = "GET /api/v1/users/12345?expand=profile HTTP/1.1";

impl Message {
    /// 4 headers and a body of 512 B.
    pub fn typical() -> Message {
        Message::new(USUAL_LINE, usual_headers(4), 512)
    }

    /// 4 headers and a body of 64 KiB.
    pub fn large() -> Message {
        Message::new("POST /api/v1/upload HTTP/1.1", usual_headers(4), 64 << 10)
    }

    /// 32 headers and a body of 512 B.
    pub fn many_headers() -> Message {
        let headers = (0..32).map(|number| (format!("X-Custom-Header-{number}"), format!("value-{number}")));
        Message::new(USUAL_LINE, headers, 512)
    }

    /// 1 header and a body of 512 B.
    pub fn one_header() -> Message {
        Message::new(USUAL_LINE, usual_headers(1), 512)
    }

    /// 2 headers and a body of 128 B, for many requests at once.
    pub fn small() -> Message {
        Message::new(USUAL_LINE, usual_headers(2), 128)
    }

    /// 2 headers and a body of 1 KiB.
    pub fn under_pressure() -> Message {
        Message::new("PUT /api/v1/entries/67890?source=import HTTP/1.1", usual_headers(2), 1 << 10)
    }

    fn new(line: &str, headers: impl Iterator<Item = HeaderLine>, body_bytes: usize) -> Message {
        let mut head = format!("{line}\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        Message { head, body: (0..body_bytes).map(|index| b'a' + (index % 26) as u8).collect() }
    }

    /// Its headers, borrowed.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.split_terminator("\r\n").skip(1).filter_map(|line| line.split_once(": "))
    }

    /// Method, target and protocol; empty where the line ends too soon.
    pub fn line(&self) -> [&str; 3] {
        let mut words = self.head.split("\r\n").next().unwrap_or_default().splitn(3, ' ');
        [(); 3].map(|()| words.next().unwrap_or_default())
    }

    /// Its body, borrowed.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Copies every part out of it.
    pub fn parse(&self) -> Request {
        let [method, target, protocol] = self.line();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameters = query.split('&').filter_map(|parameter| parameter.split_once('='));
        let mut headers = Vec::new();
        for (name, value) in self.headers() {
            // Pushed one by one: nobody tells a parser how many there will be.
            headers.push((name.to_owned(), value.to_owned()));
        }
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            protocol: protocol.to_owned(),
            headers,
            body: self.body.clone(),
        }
    }
}

fn usual_headers(count: usize) -> impl Iterator<Item = HeaderLine> {
    USUAL_HEADERS.into_iter().take(count).map(|(name, value)| (name.to_owned(), value.to_owned()))
}

impl Request {
    /// What was asked for, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Reads every byte, the body included, and depends on each.
    pub fn sum(&self) -> u64 {
        let head = [&self.method, &self.path, &self.protocol];
        let query = self.query.iter().flat_map(|(name, value)| [name, value]);
        let headers = self.headers.iter().flat_map(|(name, value)| [name, value]);
        let text = head.into_iter().chain(query).chain(headers).map(|text| sum(text.as_bytes()));
        text.fold(sum(&self.body), u64::wrapping_add)
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

    /// The bytes of an answer that echoes the body.
    fn answer(&self) -> Vec<u8> {
        let headers: Vec<HeaderLine> = vec![
            ("Content-Type".to_owned(), self.header("Content-Type").unwrap_or("text/plain").to_owned()),
            ("Content-Length".to_owned(), self.body.len().to_string()),
            ("X-Request".to_owned(), format!("{} {}", self.method, self.path)),
        ];
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(self.protocol.as_bytes());
        bytes.extend_from_slice(b" 200 OK\r\n");
        for (name, value) in &headers {
            for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Parses `message`, reads it and answers it. The result depends on every byte of both.
pub fn serve(message: &Message) -> u64 {
    let request = message.parse();
    let answer = request.answer();
    request.sum().wrapping_add(sum(black_box(&answer)))
}

/// A sum that depends on every byte. It takes words instead of bytes, so that reading costs no more than the memory does
/// and does not hide what differs.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).fold(0, u64::wrapping_add);
    rest.iter().map(|byte| u64::from(*byte)).fold(words, u64::wrapping_add)
}
