//! The example server on Shockwave, in the mode that `SHOCKWAVE_MODE` says, for `load`.

#[path = "../../../examples/server/api.rs"]
mod api;
#[allow(dead_code, reason = "clients use the rest")]
#[path = "../../../examples/server/sample.rs"]
mod sample;
#[path = "../../../examples/server/store.rs"]
mod store;
mod web;

#[global_allocator]
static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();

fn main() -> std::process::ExitCode {
    web::main(api::router)
}
