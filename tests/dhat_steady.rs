//! A request in the steady state makes no call to the backing heap, in slab and in arena mode; dhat counts.
//!
//! One test, because dhat has one profiler per process and counts what every thread does.

mod child;

#[path = "../examples/server/api.rs"]
#[allow(dead_code, reason = "nobody asks for a copy of a snapshot")]
mod api;
#[path = "../examples/server/client.rs"]
mod client;
#[path = "../examples/server/sample.rs"]
mod sample;
#[path = "../examples/server/store.rs"]
mod store;
#[path = "../examples/server/traffic.rs"]
mod traffic;

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::Arc;

use dhat::{HeapStats, Profiler};
use serde_json::{Value, json};
use shockwave_alloc::{Mode, Shockwave, set_mode, stats, with_request_arena};
use tokio::net::TcpListener;

#[global_allocator]
static GLOBAL: Shockwave<dhat::Alloc> = Shockwave::with_backing(dhat::Alloc);

/// How many requests: first until the heaps and the chunks that they need are there, then to be counted.
#[derive(Clone, Copy)]
struct Plan {
    warm_up: usize,
    counted: usize,
}

const STEADY: Plan = Plan { warm_up: 300, counted: 1000 };
/// Few, because dhat looks at the stack for each block.
const CONTROL: Plan = Plan { warm_up: 10, counted: 100 };

#[test]
fn the_steady_state_makes_no_backing_call() {
    // Alone: in standard mode dhat would count the harness as well.
    if !child::alone("the_steady_state_makes_no_backing_call") {
        return;
    }
    let _profiler = Profiler::builder().testing().build();
    for mode in [Mode::Slab, Mode::Arena, Mode::Standard] {
        set_mode(mode);
        let plan = if mode == Mode::Standard { CONTROL } else { STEADY };
        let handled = Counted::of(plan, handle_requests);
        let served = Counted::of(plan, serve_requests);
        for (counted, least) in [(handled, 40), (served, 20)] {
            if mode == Mode::Standard {
                // The control: what these requests ask for when nobody stands between.
                let blocks = counted.blocks;
                dhat::assert!(blocks > least * plan.counted as u64, "{} blocks reach dhat", blocks);
                dhat::assert!(counted.calls > blocks);
            } else {
                dhat::assert_eq!(counted.blocks, 0, "blocks reach dhat in {} mode", mode);
                dhat::assert_eq!(counted.bytes, 0, "bytes reach dhat in {} mode", mode);
                // Frees as well, which dhat does not count.
                dhat::assert_eq!(counted.calls, 0, "calls reach the backing allocator in {} mode", mode);
                dhat::assert_eq!(counted.fallbacks, 0);
            }
        }
    }
    let stats = stats();
    dhat::assert_eq!(stats.pinned_chunks, 0, "the store is gone and with it what had escaped");
}

/// What reached the backing allocator.
struct Counted {
    blocks: u64,
    bytes: u64,
    calls: u64,
    fallbacks: u64,
}

impl Counted {
    /// Has `work` call back when it is warm, and counts from there to its end.
    fn of(plan: Plan, work: fn(Plan, &mut dyn FnMut())) -> Counted {
        let mut warm = None;
        let read = || (HeapStats::get(), stats());
        work(plan, &mut || warm = Some(read()));
        let ((heap, own), (heap_before, own_before)) = (read(), warm.expect("the work gets warm"));
        Counted {
            blocks: heap.total_blocks - heap_before.total_blocks,
            bytes: heap.total_bytes - heap_before.total_bytes,
            calls: own.backing_calls - own_before.backing_calls,
            fallbacks: own.fallbacks - own_before.fallbacks,
        }
    }
}

/// Handlers alone: each request is parsed, looked up, answered and dropped within a scope.
fn handle_requests(plan: Plan, warm: &mut dyn FnMut()) {
    let message = message();
    for number in 0..plan.warm_up + plan.counted {
        if number == plan.warm_up {
            warm();
        }
        with_request_arena(|| {
            let answer = handle(black_box(&message), number);
            assert!(black_box(answer).starts_with(b"HTTP/1.1 200 OK\r\n"));
        });
    }
}

/// A request of 12 headers and a body of JSON.
fn message() -> Vec<u8> {
    let orders: Vec<Value> = (0..20)
        .map(|id| json!({ "id": id, "article": format!("article {id}"), "tags": ["new", "small"], "price": id * 7 }))
        .collect();
    let body = json!({ "customer": "Ada Lovelace", "orders": orders }).to_string();
    let headers: String = (0..11).map(|n| format!("X-Field-{n}: value {n} of some length\r\n")).collect();
    format!(
        "POST /orders?page=2&sort=price HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The bytes of the answer. Everything in between owns its memory, as in handlers that do not care.
fn handle(message: &[u8], number: usize) -> Vec<u8> {
    let text = String::from_utf8(message.to_vec()).expect("it is text");
    let (head, body) = text.split_once("\r\n\r\n").expect("the head ends");
    let mut lines = head.lines();
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a target").to_owned();
    let query: BTreeMap<String, String> = target
        .split_once('?')
        .map_or("", |(_, query)| query)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    assert_eq!(headers["content-length"], body.len().to_string());
    let parsed: Value = serde_json::from_str(body).expect("the body is JSON");
    let orders = parsed["orders"].as_array().expect("a list");
    let sum: u64 = orders.iter().filter_map(|order| order["price"].as_u64()).sum();
    let answer = json!({
        "number": number, "customer": parsed["customer"], "sum": sum, "query": query, "headers": headers,
        "first": orders[..5],
    });
    let body = serde_json::to_string(&answer).expect("it is JSON");
    // Above what fits into an arena, and grown by pushing.
    let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    while bytes.len() < 40_000 {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

/// The example server over loopback with its own requests: axum, tokio, a store that keeps what escapes.
fn serve_requests(plan: Plan, warm: &mut dyn FnMut()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = api::router(Arc::new(store::Store::seeded()));
        tokio::spawn(axum::serve(listener, router).into_future());
        let mut script = traffic::Script::new(Arc::new(traffic::Traffic::prepare()), 0);
        let mut connection = client::Connection::open(address).await.expect("it listens");
        for number in 0..plan.warm_up + plan.counted {
            if number == plan.warm_up {
                warm();
            }
            let step = script.advance();
            let answer = connection.exchange(script.request(step)).await.expect("it answers");
            script.check(step, &answer).expect("the answer is right");
        }
    });
}
