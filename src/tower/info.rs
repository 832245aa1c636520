//! What is known of a request when its arena closes.

use crate::sync::{AtomicBool, AtomicU16, Ordering};
use std::sync::Arc;

use http::{Method, Request, StatusCode, Uri, Version};

use super::Options;
use crate::ArenaStats;
use crate::shared::{Closing, made_outside};

/// A request, as [`on_close`](super::RequestArenaLayer::on_close) is told about it.
#[derive(Debug)]
pub struct RequestInfo {
    method: Method,
    uri: Uri,
    version: Version,
    /// 0 before there is a response.
    status: AtomicU16,
    finished: AtomicBool,
}

impl RequestInfo {
    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The URI, as the layer got it.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The version of HTTP.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The status of the response; `None` if there was none: the handler has failed, or was dropped before it answered.
    pub fn status(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.status.load(Ordering::Relaxed)).ok()
    }

    /// Whether the response's body was consumed to its end. Bodies that nobody has to read, as that of an answer to HEAD, and
    /// those of clients that went away, are not.
    pub fn finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }
}

/// Waits for the end of a request.
pub(super) struct Watch {
    info: RequestInfo,
    options: Arc<Options>,
    #[cfg(feature = "tracing")]
    span: Option<tracing::Span>,
}

impl Watch {
    pub fn new<B>(request: &Request<B>, options: Arc<Options>) -> Arc<Watch> {
        // Outside: it outlives the arena of the request, and one that is entered around it has nothing to do with it.
        made_outside(|| {
            let info = RequestInfo {
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                status: AtomicU16::new(0),
                finished: AtomicBool::new(false),
            };
            Arc::new(Watch {
                info,
                #[cfg(feature = "tracing")]
                span: options.record_in_span.then(tracing::Span::current),
                options,
            })
        })
    }

    pub fn info(&self) -> &RequestInfo {
        &self.info
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn answered(&self, status: StatusCode) {
        self.info.status.store(status.as_u16(), Ordering::Relaxed);
    }

    pub fn finished(&self) {
        self.info.finished.store(true, Ordering::Relaxed);
    }
}

impl Closing for Watch {
    fn closed(&self, stats: &ArenaStats) {
        #[cfg(feature = "tracing")]
        if let Some(span) = &self.span {
            span.record("arena.bytes", stats.total_bytes);
            span.record("arena.allocations", stats.allocations);
            span.record("arena.escaped_blocks", stats.escaped_blocks);
            span.record("arena.over_limit", stats.over_limit);
        }
        if let Some(on_close) = &self.options.on_close {
            on_close(stats, &self.info);
        }
    }
}
