//! The example server on Shockwave, in the mode that `SHOCKWAVE_MODE` names: what `profile.sh` looks at.

#[path = "../../../examples/server/api.rs"]
mod api;
#[path = "../../../examples/server/client.rs"]
mod client;
#[path = "../../../examples/server/sample.rs"]
mod sample;
mod served;
#[path = "../../../examples/server/store.rs"]
mod store;
#[path = "../../../examples/server/traffic.rs"]
mod traffic;

#[global_allocator]
static GLOBAL: shockwave_alloc::Shockwave = shockwave_alloc::Shockwave::new();

fn main() -> std::process::ExitCode {
    served::main(api::router)
}
