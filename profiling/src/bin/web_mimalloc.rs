//! The example server on mimalloc, for `load`.

#[path = "../../../examples/server/api.rs"]
mod api;
#[allow(dead_code, reason = "clients use the rest")]
#[path = "../../../examples/server/sample.rs"]
mod sample;
#[path = "../../../examples/server/store.rs"]
mod store;
mod web;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    web::main(api::routes)
}
