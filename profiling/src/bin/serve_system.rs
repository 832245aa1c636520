//! The example server on the system allocator: the control of `profile.sh`.

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
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() -> std::process::ExitCode {
    served::main(api::routes)
}
