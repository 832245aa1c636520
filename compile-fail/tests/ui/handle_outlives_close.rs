use shockwave_alloc::RequestArena;

fn main() {
    let arena = RequestArena::new();
    let text = arena.alloc_str("gone");
    arena.close();
    println!("{text}");
}
