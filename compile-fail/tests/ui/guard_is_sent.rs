use shockwave_alloc::RequestArena;

fn main() {
    let arena = Box::leak(Box::new(RequestArena::new()));
    let guard = arena.enter();
    std::thread::spawn(move || drop(guard));
}
