//! A pooled response.
#![forbid(unsafe_code)]

use core::fmt;

use super::message::Message;
use super::object::Object;

const PROTO: usize = 0;
const REASON: usize = 1;
const BODY: usize = 2;

/// An HTTP response whose bytes are all in one block of memory.
///
/// Setters copy, getters borrow, and nothing is validated. It holds 4 GiB at most; setters panic beyond that.
///
/// ```
/// use shockwave_alloc::pool::{RequestPool, SlabPool};
///
/// static POOL: SlabPool = SlabPool::new();
///
/// let mut response = POOL.get_response();
/// response.set_status(404);
/// response.set_reason("Not Found");
/// response.add_header("Content-Type", "text/plain");
/// response.set_body("no such user");
///
/// assert_eq!(response.status(), 404);
/// assert_eq!(response.content_length(), 12);
/// ```
pub struct Response {
    message: Message,
    status: u16,
}

/// The status of a response that has none set.
const OK: u16 = 200;

impl Response {
    /// Sets the status code.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
    }

    /// The status code; 200 if not set.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Sets the reason phrase.
    pub fn set_reason(&mut self, reason: impl AsRef<[u8]>) {
        self.message.set_field(REASON, &[reason.as_ref()]);
    }

    /// The reason phrase; empty if not set.
    pub fn reason(&self) -> &[u8] {
        self.message.field(REASON)
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

    /// Empties everything, so that the object can be used again without returning it.
    pub fn clear(&mut self) {
        self.message.clear();
        self.clear_rest();
    }
}

impl Object for Response {
    fn from_message(message: Message) -> Response {
        Response { message, status: OK }
    }

    fn message(&self) -> &Message {
        &self.message
    }

    fn message_mut(&mut self) -> &mut Message {
        &mut self.message
    }

    fn clear_rest(&mut self) {
        self.status = OK;
    }
}

/// Headers and body are shown by their number and length: they may be long or secret.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("headers", &self.headers().len())
            .field("content_length", &self.content_length())
            .finish_non_exhaustive()
    }
}
