use shockwave_alloc::RequestArena;

fn main() {
    let text = {
        let arena = RequestArena::new();
        arena.alloc_str("gone")
    };
    println!("{text}");
}
