//! The example server on jemalloc, for `load`.

#[path = "../../../examples/server/api.rs"]
mod api;
#[allow(dead_code, reason = "clients use the rest")]
#[path = "../../../examples/server/sample.rs"]
mod sample;
#[path = "../../../examples/server/store.rs"]
mod store;
mod web;

#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    web::main(api::routes)
}
