//! Servers that answer the same order, as axum, hyper and tonic applications do, and handlers with what real ones do besides.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use shockwave_alloc::ArenaFutureExt;
use shockwave_alloc::tower::RequestArenaLayer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tonic::server::{Grpc, NamedService, UnaryService};
use tower::{Service, ServiceBuilder};
use tracing::Instrument;

use super::Served;

/// What a client orders, in JSON.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    customer: String,
    address: String,
    items: Vec<Item>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Item {
    name: String,
    count: u32,
    cents: u64,
}

/// What it gets back.
#[derive(Serialize)]
struct Invoice {
    customer: String,
    lines: Vec<String>,
    cents: u64,
}

/// An order of ten items: 600 B of JSON.
pub fn order(number: usize) -> Order {
    let items = (0..10).map(|item| Item {
        name: format!("article {item} of {number}"),
        count: item + 1,
        cents: 100 + u64::from(item),
    });
    Order {
        customer: format!("customer {number}"),
        address: format!("{number} Long Street, Springfield"),
        items: items.collect(),
    }
}

/// What the answer to [`order`] has to be, in JSON.
pub fn invoice(number: usize) -> String {
    serde_json::to_string(&bill(order(number))).expect("strings and numbers")
}

fn bill(order: Order) -> Invoice {
    let lines = order.items.iter().map(|item| format!("{} x {}", item.count, item.name));
    Invoice {
        lines: lines.collect(),
        cents: order.items.iter().map(|item| u64::from(item.count) * item.cents).sum(),
        customer: order.customer,
    }
}

/// The axum application: an order as such, and with a span, a timeout, a spawned task, a worker behind a channel.
pub fn app() -> Router {
    let worker = worker();
    Router::new()
        .route("/order", post(async |Json(order): Json<Order>| Json(bill(order))))
        .route(
            "/span",
            post(async |Json(order): Json<Order>| {
                let span = tracing::info_span!("order", customer = order.customer);
                async { Json(bill(order)) }.instrument(span).await
            }),
        )
        .route(
            "/timeout",
            post(async |Json(order): Json<Order>| {
                let slow = async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Json(bill(order))
                };
                tokio::time::timeout(Duration::from_secs(5), slow)
                    .await
                    .map_err(|_| StatusCode::GATEWAY_TIMEOUT)
            }),
        )
        .route(
            "/spawn",
            post(async |Json(order): Json<Order>| {
                tokio::spawn(async { Json(bill(order)) }).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
            }),
        )
        .route(
            "/channel",
            post(async move |Json(order): Json<Order>| {
                let (answer, answered) = oneshot::channel();
                worker.send((order, answer)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
                answered.await.map(IntoResponse::into_response).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
            }),
        )
        .layer(RequestArenaLayer::new())
}

/// A task that bills what it is sent, outside of arenas.
fn worker() -> mpsc::Sender<(Order, oneshot::Sender<Json<Invoice>>)> {
    let (sender, mut orders) = mpsc::channel::<(Order, oneshot::Sender<_>)>(64);
    tokio::spawn(async move {
        while let Some((order, answer)) = orders.recv().await {
            // Who asked may have gone.
            let _ = answer.send(Json(bill(order)));
        }
    });
    sender
}

/// Serves until the runtime ends: HTTP/1 and HTTP/2 on one port, or gRPC.
pub async fn serve(listener: TcpListener, server: Served) {
    if let Served::Tonic = server {
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = tonic::transport::Server::builder().layer(RequestArenaLayer::new()).add_service(Billing);
        // That it fails is seen by the client.
        let _ = server.serve_with_incoming(incoming).await;
        return;
    }
    let app = app();
    while let Ok((stream, _)) = listener.accept().await {
        // It may be gone already.
        let _ = stream.set_nodelay(true);
        let service = ServiceBuilder::new().layer(RequestArenaLayer::new()).service_fn(plain);
        match server {
            Served::Axum | Served::Tonic => drop(tokio::spawn(connection(stream, app.clone()))),
            Served::Hyper => drop(tokio::spawn(connection(stream, service))),
            // An arena of its own around those of its requests, as in `hyper_raw`.
            Served::HyperInArena => drop(tokio::spawn(connection(stream, service).in_request_arena())),
        }
    }
}

async fn connection<S, B>(stream: TcpStream, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let builder = Builder::new(TokioExecutor::new());
    // A client that has gone away is no failure.
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
}

/// The order without a framework.
async fn plain(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let answer = serde_json::from_slice(&body).and_then(|order| serde_json::to_vec(&bill(order)));
    let mut response = Response::new(Full::default());
    match answer {
        Ok(json) => {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *response.body_mut() = Full::from(json);
        }
        Err(_) => *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY,
    }
    Ok(response)
}

/// An order of tonic: its JSON as a field.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Text {
    /// The JSON.
    #[prost(string, tag = "1")]
    pub json: String,
}

/// The gRPC service.
#[derive(Clone)]
struct Billing;

impl NamedService for Billing {
    const NAME: &'static str = "billing.Billing";
}

impl UnaryService<Text> for Billing {
    type Response = Text;
    type Future = std::future::Ready<Result<tonic::Response<Text>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<Text>) -> Self::Future {
        let answer = serde_json::from_str(&request.into_inner().json)
            .and_then(|order| serde_json::to_string(&bill(order)));
        std::future::ready(match answer {
            Ok(json) => Ok(tonic::Response::new(Text { json })),
            Err(error) => Err(tonic::Status::invalid_argument(error.to_string())),
        })
    }
}

type Answered<T> = Pin<Box<dyn Future<Output = Result<T, Infallible>> + Send>>;

impl Service<Request<tonic::body::Body>> for Billing {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answered<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async {
            let codec = tonic_prost::ProstCodec::<Text, Text>::default();
            Ok(Grpc::new(codec).unary(Billing, request).await)
        })
    }
}

/// A free port of loopback.
pub async fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
