use shockwave_alloc::RequestArena;

fn main() {
    let mut arena = RequestArena::new();
    let mut checkpoint = arena.checkpoint();
    let number = checkpoint.scope().alloc(1);
    checkpoint.reset_to();
    *number = 2;
}
