//! The crate's pools, as the workloads use them.

use std::hint::black_box;

use shockwave_alloc::pool::{PooledRequest, RequestPool};

use super::bench::{Message, Pool, sum};

impl<P: RequestPool + Default + Send + 'static> Pool for P {
    type Object<'pool> = PooledRequest<'pool>;

    fn new() -> P {
        P::default()
    }

    fn fill(&self, message: &Message) -> PooledRequest<'_> {
        let mut request = self.get();
        let [method, target, protocol] = message.line();
        request.set_method(method);
        request.set_path(target);
        request.set_proto(protocol);
        for (name, value) in message.headers() {
            request.add_header(name, value);
        }
        request.set_body(message.body());
        request
    }

    fn sum(request: &PooledRequest<'_>) -> u64 {
        let parts = [request.method(), request.path(), request.proto(), black_box(request.body())];
        let parts = parts.into_iter().chain(request.headers().flat_map(|(name, value)| [name, value]));
        parts.map(sum).fold(0, u64::wrapping_add)
    }
}
