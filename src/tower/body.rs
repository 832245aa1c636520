//! The response's body, which keeps the arena.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::info::Watch;
use super::{Opened, outside};
use crate::ArenaHandle;

pin_project! {
    /// The body of a response whose request has an arena.
    ///
    /// It is polled and dropped in the arena. Frames are copied out of it (see the [module](super)). It closes when the body is
    /// dropped or says that it has nothing more to give, and big frames that it has given are gone.
    pub struct ResponseBody<B> {
        // `None` when it was consumed, and if there is a substitute.
        #[pin]
        inner: Option<B>,
        // What is sent if the handler was not waited for.
        substitute: Bytes,
        // `None` if the request has none, and when the body was consumed.
        arena: Option<ArenaHandle>,
        watch: Option<Arc<Watch>>,
        // Whether frames are moved out of the arena.
        moving: bool,
    }

    impl<B> PinnedDrop for ResponseBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(arena) = this.arena {
                arena.run(|| this.inner.set(None));
            }
        }
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn new(inner: B, opened: Opened) -> Self {
        let Opened { arena, watch, moving, .. } = opened;
        ResponseBody { inner: Some(inner), substitute: Bytes::new(), arena: Some(arena), watch, moving }
    }

    pub(super) fn without_arena(inner: B) -> Self {
        ResponseBody { inner: Some(inner), substitute: Bytes::new(), arena: None, watch: None, moving: false }
    }

    pub(super) fn of_bytes(substitute: Bytes) -> Self {
        ResponseBody { inner: None, substitute, arena: None, watch: None, moving: false }
    }
}

impl<B: Body> Body for ResponseBody<B>
where
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let mut inner = this.inner;
        if inner.is_none() {
            let rest = core::mem::take(this.substitute);
            return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest.into()))));
        }
        let Some(arena) = this.arena else { return given(inner).poll_frame(context) };
        let moving = *this.moving;
        let (polled, finished, over) = arena.run(|| {
            let mut body = given(inner.as_mut());
            let polled = body.as_mut().poll_frame(context);
            // Who knows that this was the last frame, by its own count or the body's, does not ask for another one.
            let (finished, over) = match &polled {
                Poll::Ready(None) => (true, true),
                Poll::Ready(Some(Ok(_))) if body.is_end_stream() => (true, true),
                Poll::Ready(Some(Ok(frame))) => {
                    (frame.is_data() && body.size_hint().exact() == Some(0), false)
                }
                _ => (false, false),
            };
            let polled = if moving { polled.map_ok(|frame| outside::frame(frame, arena)) } else { polled };
            if over {
                // Nobody need wait for the drop.
                inner.set(None);
            }
            (polled, finished, over)
        });
        if finished && let Some(watch) = this.watch {
            watch.finished();
        }
        if over {
            *this.watch = None;
            *this.arena = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.is_end_stream(),
            None => self.substitute.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(self.substitute.remaining() as u64),
        }
    }
}

fn given<B>(inner: Pin<&mut Option<B>>) -> Pin<&mut B> {
    inner.as_pin_mut().expect("asked for only where it is there")
}

impl<B> Default for ResponseBody<B> {
    /// An empty body.
    fn default() -> Self {
        ResponseBody::of_bytes(Bytes::new())
    }
}

impl<B: fmt::Debug> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("inner", &self.inner).field("arena", &self.arena).finish()
    }
}
