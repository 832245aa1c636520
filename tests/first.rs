//! Smoke.
use shockwave_alloc::*;
#[global_allocator]
static GLOBAL: Shockwave = Shockwave::new();
#[test]
fn smoke() {
    let mut kept = vec![];
    for round in 0..2000usize {
        let s = with_request_arena(|| {
            let v: Vec<String> = (0..50).map(|n| format!("{n}-{round}")).collect();
            v.join(",")
        });
        assert!(s.starts_with("0-"));
        if round % 3 == 0 {
            kept.push(s);
        }
    }
    let mut v = Vec::new();
    for i in 0..4_000_000u64 {
        v.push(i);
    }
    assert_eq!(v.iter().sum::<u64>(), 3_999_999 * 2_000_000);
    let t = std::thread::spawn(move || {
        drop(kept);
        vec![7u8; 40000]
    })
    .join()
    .unwrap();
    assert_eq!(t[39999], 7);
    println!("{}", stats());
}
