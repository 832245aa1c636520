//! A gRPC service on tonic in which each call has an arena.
//!
//! ```text
//! cargo run --release --example tonic_echo                  # on 127.0.0.1:8082, or give HOST:PORT
//! ```
//!
//! Messages and service are written by hand, so that no protoc is needed; generated ones are used in the same way. As .proto:
//!
//! ```text
//! package echo;
//! message Words { repeated string words = 1; }
//! service Echo {
//!     rpc Reverse (Words) returns (Words);
//!     rpc Each (Words) returns (stream Words);
//! }
//! ```

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use shockwave_alloc::Shockwave;
use shockwave_alloc::tower::RequestArenaLayer;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::tokio_stream::{self, Stream};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// The only message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Words {
    /// Its words.
    #[prost(string, repeated, tag = "1")]
    pub words: Vec<String>,
}

/// The service.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "echo.Echo";
}

struct Reverse;

impl UnaryService<Words> for Reverse {
    type Response = Words;
    type Future = Ready<Result<Response<Words>, Status>>;

    fn call(&mut self, request: Request<Words>) -> Self::Future {
        let mut words = request.into_inner().words;
        if words.is_empty() {
            return ready(Err(Status::invalid_argument("no words to reverse")));
        }
        words.reverse();
        ready(Ok(Response::new(Words { words })))
    }
}

struct Each;

impl ServerStreamingService<Words> for Each {
    type Response = Words;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Words, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Words>) -> Self::Future {
        let words = request.into_inner().words.into_iter();
        // Encoded when they are sent, in the arena that lives as long as the stream.
        let messages = tokio_stream::iter(words.map(|word| Ok(Words { words: vec![word] })));
        ready(Ok(Response::new(Box::pin(messages))))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Words, Words>::default());
            Ok(match request.uri().path() {
                "/echo.Echo/Reverse" => grpc.unary(Reverse, request).await,
                "/echo.Echo/Each" => grpc.server_streaming(Each, request).await,
                _ => Status::unimplemented("Reverse and Each are").into_http(),
            })
        })
    }
}

/// Serves until the listener fails.
///
/// # Errors
///
/// When the server fails as a whole.
pub async fn serve(listener: TcpListener) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .layer(RequestArenaLayer::new())
        .add_service(Echo)
        .serve_with_incoming(TcpIncoming::from(listener))
        .await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8082".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(serve(listener).await?)
}
