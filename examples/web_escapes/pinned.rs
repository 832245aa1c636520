//! Memory that requests leave pinned, over many of them.

use std::collections::VecDeque;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use shockwave_alloc::stats;
use tower::ServiceExt;

use super::client::Failure;
use super::servers::{app, invoice, order};

/// Answers that are alive at the same time, as those are that wait to be written.
const QUEUED: usize = 64;

/// Sends the plain JSON request through the axum application, without a network, and returns the pinned bytes after each of
/// these numbers of requests, which ascend.
///
/// # Errors
///
/// When an answer is wrong.
pub fn pinned(after: &[u64]) -> Result<Vec<u64>, Failure> {
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        let app = app();
        let body = Bytes::from(serde_json::to_string(&order(7))?);
        let wanted = invoice(7);
        let mut queue = VecDeque::with_capacity(QUEUED);
        let (mut sent, mut figures) = (0, Vec::new());
        for &number in after {
            while sent < number {
                let request = Request::post("/order").header("content-type", "application/json");
                let response = app.clone().oneshot(request.body(Body::from(body.clone()))?).await?;
                if queue.len() == QUEUED {
                    queue.pop_front();
                }
                queue.push_back(response.into_body().collect().await?.to_bytes());
                sent += 1;
            }
            if queue.iter().any(|answer| *answer != wanted) {
                return Err("an answer has changed while it was queued".into());
            }
            figures.push(stats().pinned_bytes);
        }
        Ok(figures)
    })
}
