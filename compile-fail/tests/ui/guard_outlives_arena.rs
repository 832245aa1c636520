use shockwave_alloc::RequestArena;

fn main() {
    let guard = {
        let arena = RequestArena::new();
        arena.enter()
    };
    drop(guard);
}
