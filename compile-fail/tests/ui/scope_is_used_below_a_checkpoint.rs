use shockwave_alloc::RequestArena;

fn main() {
    let mut arena = RequestArena::new();
    let mut scope = arena.scope();
    let mut checkpoint = scope.checkpoint();
    let number = scope.alloc(1);
    checkpoint.reset_to();
    *number = 2;
}
