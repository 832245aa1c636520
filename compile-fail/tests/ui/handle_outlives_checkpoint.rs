use shockwave_alloc::RequestArena;

fn main() {
    let mut arena = RequestArena::new();
    let mut scope = arena.scope();
    let number = {
        let mut checkpoint = scope.checkpoint();
        checkpoint.scope().alloc(1)
    };
    *number = 2;
}
