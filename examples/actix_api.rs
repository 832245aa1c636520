//! actix-web, which is not made of `tower` services: some forty lines of middleware give each request an arena.
//!
//! ```text
//! cargo run --release --example actix_api                   # on 127.0.0.1:8083, or give HOST:PORT
//! curl 'http://127.0.0.1:8083/sorted/pear,apple,fig'
//! ```

use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Bytes, Path, ReqData};
use actix_web::{App, Error, HttpMessage, HttpResponse, HttpServer};
use shockwave_alloc::{ArenaFutureExt, ArenaHandle, RequestArena, Shockwave};

#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();

/// Gives each request an arena that lives until the response's body is consumed or dropped.
async fn request_arena(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let arena = ArenaHandle::from(RequestArena::new());
    request.extensions_mut().insert(arena.clone());
    let response = next.call(request).in_arena(arena.clone()).await?;
    Ok(response.map_body(|_, body| InArena { body: arena.run(|| Some(Box::pin(body))), arena }))
}

/// A body that is polled and dropped in an arena.
struct InArena<B> {
    /// `None` while it is dropped.
    body: Option<Pin<Box<B>>>,
    arena: ArenaHandle,
}

impl<B: MessageBody> MessageBody for InArena<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.as_ref().map_or(BodySize::None, |body| body.size())
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        this.arena.run(|| body.as_mut().poll_next(context))
    }
}

impl<B> Drop for InArena<B> {
    fn drop(&mut self) {
        self.arena.run(|| self.body = None);
    }
}

async fn sorted(words: Path<String>, arena: ReqData<ArenaHandle>) -> HttpResponse {
    let mut words: Vec<String> = words.split(',').map(String::from).collect();
    words.sort();
    let allocations = arena.stats().unwrap_or_default().allocations;
    HttpResponse::Ok().insert_header(("x-allocations", allocations.to_string())).body(words.join(" "))
}

async fn reversed(body: Bytes) -> HttpResponse {
    let text = String::from_utf8_lossy(&body);
    HttpResponse::Ok().body(text.chars().rev().collect::<String>())
}

/// The server; it runs when it is awaited.
///
/// # Errors
///
/// When the listener cannot be used.
pub fn server(listener: TcpListener, workers: usize) -> std::io::Result<Server> {
    let app = || {
        App::new()
            .wrap(from_fn(request_arena))
            .route("/sorted/{words}", web::get().to(sorted))
            .route("/reversed", web::post().to(reversed))
    };
    Ok(HttpServer::new(app).workers(workers).disable_signals().listen(listener)?.run())
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8083".into());
    let listener = TcpListener::bind(&address)?;
    println!("listening on http://{}", listener.local_addr()?);
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    actix_web::rt::System::new().block_on(server(listener, workers)?)
}
