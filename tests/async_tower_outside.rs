//! What a server keeps of a response is moved out of the arena: frames, trailers, headers.
#![cfg(feature = "tower")]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::buf::Chain;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use shockwave_alloc::tower::{RequestArenaLayer, ResponseBody};
use shockwave_alloc::{
    ArenaStats, RequestArena, Shockwave, current_arena_stats, outside_arena, with_request_arena,
};
use tower::{Layer, ServiceExt, service_fn};

use common::{alone, churn};

mod common;

// Which block goes where is what is tested; pretenuring would change it.
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new().with_pretenuring(false);

/// What was told of the arenas that closed.
#[derive(Clone, Default)]
struct Closed(Arc<Mutex<Vec<ArenaStats>>>);

impl Closed {
    fn layer(&self) -> RequestArenaLayer {
        let closed = self.clone();
        RequestArenaLayer::new().on_close(move |stats, _| closed.0.lock().unwrap().push(*stats))
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Blocks that have escaped from the only arena.
    fn escaped(&self) -> u64 {
        let [stats] = self.0.lock().unwrap()[..] else { panic!("not one arena was closed") };
        assert!(stats.allocations > 0, "{stats:?}");
        stats.escaped_blocks
    }
}

/// Gives what `make` makes while it is polled, until that is nothing.
struct Made<F>(F);

impl<F: FnMut() -> Option<Frame<D>> + Unpin, D: Buf> Body for Made<F> {
    type Data = D;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<D>, Infallible>>> {
        assert!(current_arena_stats().is_some(), "polled in the arena");
        Poll::Ready((self.0)().map(Ok))
    }
}

/// The response of a service in the layer that answers with `make()`, called in the arena.
fn respond<B: Body>(layer: RequestArenaLayer, make: impl FnOnce() -> Response<B>) -> Response<ResponseBody<B>>
where
    B::Data: From<Bytes>,
{
    let mut make = Some(make);
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let response = make.take().expect("called once")();
        async { Ok::<_, Infallible>(response) }
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(service.oneshot(Request::new(()))).expect("a response")
}

/// The frames of a body, which is dropped.
fn frames<B: Body<Error = Infallible>>(body: B) -> Vec<Frame<B::Data>> {
    let mut body = std::pin::pin!(body);
    let mut context = Context::from_waker(Waker::noop());
    let mut frames = Vec::with_capacity(10);
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut context) {
        frames.push(frame);
    }
    frames
}

/// The data of frames that the layer has let through, made by `make` one after the other until there is nothing.
fn sent<D: Buf + From<Bytes>>(layer: RequestArenaLayer, make: impl FnMut() -> Option<D> + Unpin) -> Vec<D> {
    let mut make = make;
    let body = Made(move || make().map(Frame::data));
    let frames = frames(respond(layer, || Response::new(body)).into_body());
    frames.into_iter().map(|frame| frame.into_data().ok().expect("data")).collect()
}

#[test]
fn frames_that_are_queued_do_not_keep_the_arena() {
    let _alone = alone();
    for size in [1, 100, 5_000, 16_000] {
        let closed = Closed::default();
        let mut left = 3u8;
        let sent = sent(closed.layer(), || {
            left = left.checked_sub(1)?;
            // With room to spare, so that the counter of the owners is a block as well.
            let mut data = BytesMut::with_capacity(size + 10);
            data.resize(size, left);
            Some(data.freeze())
        });
        assert_eq!(closed.escaped(), 0, "{size}");
        churn();
        for (data, byte) in sent.iter().zip([2, 1, 0]) {
            assert!(data.len() == size && data.iter().all(|&is| is == byte), "{size}");
        }
        assert_eq!(sent.len(), 3);
    }
}

#[test]
fn frames_too_big_for_arenas_are_not_copied_and_keep_theirs_open() {
    let _alone = alone();
    for size in [100 << 10, 2 << 20] {
        let closed = Closed::default();
        let mut address = None;
        let sent = sent(closed.layer(), || {
            if address.is_some() {
                return None;
            }
            let mut data = BytesMut::with_capacity(size + 10);
            data.resize(size, 7);
            address = Some(data.as_ptr().addr());
            Some(data.freeze())
        });
        assert_eq!(sent[0].as_ptr().addr(), address.unwrap());
        assert_eq!(closed.count(), 0, "{size}");
        churn();
        assert!(sent[0].len() == size && sent[0].iter().all(|&byte| byte == 7));
        drop(sent);
        assert_eq!(closed.escaped(), 0, "{size}");
    }
}

#[test]
fn frames_that_are_not_of_the_arena_are_sent_as_they_are() {
    let _alone = alone();
    let cached = outside_arena(|| Bytes::from(vec![5u8; 1000]));
    for data in [Bytes::from_static(b"static"), cached.clone(), Bytes::new()] {
        let mut once = Some(data.clone());
        let sent = sent(RequestArenaLayer::new(), || once.take());
        assert_eq!(sent, std::slice::from_ref(&data));
        assert_eq!(sent[0].as_ptr(), data.as_ptr());
    }
}

/// Data in two pieces.
struct Pieces(Chain<Bytes, Bytes>);

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Pieces {
        Pieces(whole.chain(Bytes::new()))
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

#[test]
fn data_in_pieces_is_put_together() {
    let _alone = alone();
    for sizes in [(10, 20), (20_000, 30), (30, 20_000)] {
        let closed = Closed::default();
        let mut first = true;
        let mut sent = sent(closed.layer(), || {
            std::mem::take(&mut first).then(|| {
                let (one, two) = (vec![1u8; sizes.0], vec![2u8; sizes.1]);
                Pieces(Bytes::from(one).chain(Bytes::from(two)))
            })
        });
        let length = sizes.0 + sizes.1;
        let mut bytes = sent[0].0.copy_to_bytes(length);
        assert_eq!(sent[0].remaining(), 0);
        drop(sent);
        churn();
        assert!(bytes.split_to(sizes.0).iter().all(|&byte| byte == 1), "{sizes:?}");
        assert!(bytes.len() == sizes.1 && bytes.iter().all(|&byte| byte == 2), "{sizes:?}");
        drop(bytes);
        assert_eq!(closed.escaped(), 0, "{sizes:?}");
    }
}

/// Data in an arena that calls `advanced` in each piece's end, while it is copied.
struct Scoping {
    pieces: Vec<Vec<u8>>,
    advanced: fn(),
    original: bool,
}

impl From<Bytes> for Scoping {
    fn from(whole: Bytes) -> Scoping {
        Scoping { pieces: vec![whole.to_vec()], advanced: || (), original: false }
    }
}

impl Drop for Scoping {
    fn drop(&mut self) {
        assert!(!self.original || current_arena_stats().is_some(), "what was copied is dropped in the arena");
    }
}

impl Buf for Scoping {
    fn remaining(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.last().map_or(&[], Vec::as_slice)
    }

    fn advance(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        assert_eq!(self.pieces.pop().map(|piece| piece.len()), Some(count));
        (self.advanced)();
    }
}

#[test]
fn data_that_opens_scopes_while_it_is_copied_leaves_the_arena_entered() {
    let _alone = alone();
    let scope = || with_request_arena(|| drop(vec![1u8; 100]));
    let stale = || {
        // A scope that nobody ends; the arena is closed while it is entered.
        let arena = RequestArena::new();
        std::mem::forget(arena.enter());
        drop(vec![2u8; 100]);
        drop(arena);
    };
    for advanced in [|| (), scope, stale, || panic!("a mistake of the data's")] {
        let closed = Closed::default();
        let mut first = true;
        let made = move || {
            // Without the arena the second call panics.
            std::mem::take(&mut first).then(|| {
                Frame::data(Scoping {
                    pieces: vec![vec![3u8; 500], vec![4u8; 400]],
                    advanced,
                    original: true,
                })
            })
        };
        let body = respond(closed.layer(), || Response::new(Made(made))).into_body();
        let mut body = Box::pin(body);
        let mut context = Context::from_waker(Waker::noop());
        let mut polled = || {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body.as_mut().poll_frame(&mut context)))
        };
        let sent = match polled() {
            Ok(Poll::Ready(Some(Ok(frame)))) => frame.into_data().ok(),
            Err(_) => None,
            _ => panic!("no frame"),
        };
        assert!(current_arena_stats().is_none());
        assert!(matches!(polled(), Ok(Poll::Ready(None))));
        assert!(current_arena_stats().is_none());
        drop(body);
        churn();
        if let Some(mut sent) = sent {
            assert_eq!(sent.copy_to_bytes(900), [[4u8; 400].as_slice(), &[3; 500]].concat());
        }
        assert_eq!(closed.count(), 1);
    }
}

/// Headers whose values are made while this runs.
fn made_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for number in 0..20 {
        let mut value = HeaderValue::try_from(format!("value {number}")).unwrap();
        value.set_sensitive(number == 3);
        headers.append(["x-one", "x-two", "x-three"][number % 3], value);
    }
    headers.append("x-opaque", HeaderValue::from_bytes(&[0xEE; 50]).unwrap());
    headers.append("x-static", HeaderValue::from_static("static"));
    headers
}

#[test]
fn headers_and_trailers_that_are_queued_do_not_keep_the_arena() {
    let _alone = alone();
    let closed = Closed::default();
    let mut first = true;
    let response = respond(closed.layer(), || {
        let mut response = Response::new(Made(move || {
            std::mem::take(&mut first).then(|| Frame::<Bytes>::trailers(made_headers()))
        }));
        *response.headers_mut() = made_headers();
        response
    });
    let (parts, body) = response.into_parts();
    let mut trailers = frames(body);
    assert_eq!(closed.escaped(), 0);
    churn();
    let wanted = made_headers();
    assert_eq!(parts.headers, wanted);
    assert_eq!(trailers.pop().unwrap().into_trailers().ok(), Some(wanted));
    let sensitive = parts.headers.iter().filter(|(_, value)| value.is_sensitive());
    assert_eq!(sensitive.map(|(_, value)| value.to_str().unwrap()).collect::<Vec<_>>(), ["value 3"]);
}

#[test]
fn what_is_to_be_overwritten_stays_in_the_arena() {
    let _alone = alone();
    let closed = Closed::default();
    let mut once = Some(());
    let sent = sent(closed.layer().zero_freed(true), || once.take().map(|()| Bytes::from(vec![9u8; 1000])));
    assert!(closed.escaped() > 0);
    churn();
    assert!(sent[0].len() == 1000 && sent[0].iter().all(|&byte| byte == 9));
}
