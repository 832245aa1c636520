use shockwave_alloc::RequestArena;

fn main() {
    let arena = RequestArena::new();
    std::thread::scope(|scope| {
        scope.spawn(|| arena.alloc(1));
    });
}
