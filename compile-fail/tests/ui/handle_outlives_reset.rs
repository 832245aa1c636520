use shockwave_alloc::RequestArena;

fn main() {
    let mut arena = RequestArena::new();
    let number = arena.alloc(1);
    arena.reset();
    *number = 2;
}
