//! What a server keeps of a response after its body is gone: it is moved out of the arena.
//!
//! Servers take a response apart and queue the parts. hyper drops a body as soon as it has given its last frame, so the frame is
//! written after the arena has closed, and so are the headers and trailers of HTTP/2; for HTTP/1 it keeps the tables of the header
//! map for the connection's next request. Each of these blocks would keep a chunk for that long.
//!
//! The functions here are called with the arena entered, so that what they replace is freed in it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use crate::ArenaHandle;
use crate::header::Kind;
use crate::shared::made_outside;
use crate::space;

/// Moves a frame: data that is in an arena is copied. Data that was too big for arenas stays where it is, and keeps its arena open,
/// in which the counter of its owners may be.
pub(super) fn frame<D: Buf + From<Bytes>>(frame: Frame<D>, arena: &ArenaHandle) -> Frame<D> {
    match frame.into_data() {
        Ok(data) => Frame::data(self::data(data, arena)),
        Err(frame) => match frame.into_trailers() {
            Ok(mut trailers) => {
                headers(&mut trailers, true);
                Frame::trailers(trailers)
            }
            // No other kind is known yet.
            Err(frame) => frame,
        },
    }
}

fn data<D: Buf + From<Bytes>>(mut data: D, arena: &ArenaHandle) -> D {
    let (chunk, remaining) = (data.chunk(), data.remaining());
    match kind(chunk) {
        Some(Kind::Chunk) if chunk.len() == remaining => {
            let copy = made_outside(|| Bytes::copy_from_slice(chunk));
            copy.into()
        }
        Some(Kind::Chunk) => made_outside(|| {
            let mut copy = BytesMut::with_capacity(remaining);
            copy.put(&mut data);
            copy.freeze().into()
        }),
        Some(Kind::Mid | Kind::Large) => made_outside(|| {
            // `Bytes` give themselves.
            let bytes = data.copy_to_bytes(remaining);
            Bytes::from_owner(Kept { bytes, arena: arena.clone() }).into()
        }),
        _ => data,
    }
}

/// Bytes that are dropped before their arena closes.
struct Kept {
    bytes: Bytes,
    #[expect(dead_code, reason = "it is there to be dropped, after the bytes")]
    arena: ArenaHandle,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Moves the tables of a map and, if asked for, those names and values that are in an arena.
pub(super) fn headers(map: &mut HeaderMap, contents: bool) {
    if map.is_empty() {
        *map = HeaderMap::new();
        return;
    }
    let inside = |text: &[u8]| kind(text) == Some(Kind::Chunk);
    let inside = map.iter().any(|(name, value)| inside(value.as_bytes()) || inside(name.as_str().as_bytes()));
    if !inside {
        // Contents are shared or static: the copy has new tables, without a hash of each name.
        *map = made_outside(|| map.clone());
        return;
    }
    let count = map.len();
    let mut fields = core::mem::take(map).into_iter();
    *map = made_outside(|| {
        let mut moved = HeaderMap::with_capacity(count);
        if contents {
            moved.extend(fields.by_ref().map(|(name, value)| (name.map(self::name), self::value(value))));
        } else {
            moved.extend(fields.by_ref());
        }
        moved
    });
}

fn name(name: HeaderName) -> HeaderName {
    if kind(name.as_str().as_bytes()) != Some(Kind::Chunk) {
        return name;
    }
    // What has been a name once is one again.
    HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or(name)
}

fn value(value: HeaderValue) -> HeaderValue {
    if kind(value.as_bytes()) != Some(Kind::Chunk) {
        return value;
    }
    let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) else { return value };
    copy.set_sensitive(value.is_sensitive());
    copy
}

/// What the page is used for that holds these bytes; `None` for empty ones and those that are not in the reservation. In the middle of
/// a run it may be outdated, which costs a copy that is not needed.
fn kind(bytes: &[u8]) -> Option<Kind> {
    if bytes.is_empty() { None } else { space::header_of(bytes.as_ptr()).map(|page| page.kind()) }
}
