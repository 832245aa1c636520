//! A pooled request.
#![forbid(unsafe_code)]

use core::fmt;

use super::message::Message;
use super::object::Object;

const METHOD: usize = 0;
const PATH: usize = 1;
const PROTO: usize = 2;
const BODY: usize = 3;

/// An HTTP request whose bytes are all in one block of memory.
///
/// Setters copy, getters borrow, and nothing is validated. It holds 4 GiB at most; setters panic beyond that.
///
/// ```
/// use shockwave_alloc::pool::{RequestPool, StandardPool};
///
/// static POOL: StandardPool = StandardPool::new();
///
/// let mut request = POOL.get();
/// request.set_method("GET");
/// request.set_path("/api/v1/users");
/// request.set_proto("HTTP/1.1");
/// request.add_header("Host", "example.com");
/// request.set_body(b"data");
///
/// assert_eq!(request.path(), b"/api/v1/users");
/// assert_eq!(request.header("host"), Some(&b"example.com"[..]));
/// assert_eq!(request.headers().len(), 1);
/// assert_eq!(request.content_length(), 4);
/// ```
pub struct Request {
    message: Message,
    close: bool,
}

impl Request {
    /// Sets the method.
    pub fn set_method(&mut self, method: impl AsRef<[u8]>) {
        self.message.set_field(METHOD, &[method.as_ref()]);
    }

    /// The method; empty if not set.
    pub fn method(&self) -> &[u8] {
        self.message.field(METHOD)
    }

    /// Sets the path, with its query.
    pub fn set_path(&mut self, path: impl AsRef<[u8]>) {
        self.message.set_field(PATH, &[path.as_ref()]);
    }

    /// Sets the path to a concatenation.
    #[cfg(feature = "http")]
    pub(super) fn set_path_pieces(&mut self, pieces: &[&[u8]]) {
        self.message.set_field(PATH, pieces);
    }

    /// The path, with its query; empty if not set.
    pub fn path(&self) -> &[u8] {
        self.message.field(PATH)
    }

    /// Sets the protocol, such as `HTTP/1.1`.
    pub fn set_proto(&mut self, proto: impl AsRef<[u8]>) {
        self.message.set_field(PROTO, &[proto.as_ref()]);
    }

    /// The protocol; empty if not set.
    pub fn proto(&self) -> &[u8] {
        self.message.field(PROTO)
    }

    /// Sets the body.
    pub fn set_body(&mut self, body: impl AsRef<[u8]>) {
        self.message.set_field(BODY, &[body.as_ref()]);
    }

    /// The body; empty if not set.
    pub fn body(&self) -> &[u8] {
        self.message.field(BODY)
    }

    /// Length of the body in bytes, whatever a `Content-Length` header says.
    pub fn content_length(&self) -> usize {
        self.body().len()
    }

    /// Adds a header behind those that are there.
    pub fn add_header(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.message.add_header(name.as_ref(), value.as_ref());
    }

    /// The value of the first header with this name, whatever its case.
    pub fn header(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.message.header(name.as_ref())
    }

    /// Names and values in the order in which they were added.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + DoubleEndedIterator + Clone {
        self.message.headers()
    }

    /// Sets whether the connection is to be closed after this request.
    pub fn set_close(&mut self, close: bool) {
        self.close = close;
    }

    /// Whether the connection is to be closed after this request; false if not set.
    pub fn close(&self) -> bool {
        self.close
    }

    /// Empties everything, so that the object can be used again without returning it.
    pub fn clear(&mut self) {
        self.message.clear();
        self.clear_rest();
    }
}

impl Object for Request {
    fn from_message(message: Message) -> Request {
        Request { message, close: false }
    }

    fn message(&self) -> &Message {
        &self.message
    }

    fn message_mut(&mut self) -> &mut Message {
        &mut self.message
    }

    fn clear_rest(&mut self) {
        self.close = false;
    }
}

/// Headers and body are shown by their number and length: they may be long or secret.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method().escape_ascii().to_string())
            .field("path", &self.path().escape_ascii().to_string())
            .field("headers", &self.headers().len())
            .field("content_length", &self.content_length())
            .finish_non_exhaustive()
    }
}
