//! The rows about memory, on the system allocator. One test in a process of its own, since the resident memory is
//! that of the whole process.

use std::time::Duration;

use profiling::{Clock, Effort, NoScope, Row};

#[test]
fn numbers_about_memory_are_what_the_system_allocator_must_take() {
    let effort = Effort { clock: Clock::new(Duration::from_millis(1)), idle: Duration::ZERO };
    let measured = |row: Row| row.measure::<NoScope>(&effort).unwrap();
    // From the smallest peak to the largest. Nothing takes less than it asks for.
    let each = measured(Row::InFlight).value;
    assert!((2.0..3.0).contains(&each), "{each} KiB for each request of 2 KiB");
    let escape = measured(Row::Escape).value;
    assert!((1.0..2.0).contains(&escape), "{escape} times the kept bytes");
    let night = measured(Row::AgedNight).value;
    assert!((1.0..4.0).contains(&night), "{night} times the bytes of the cache");
    let all = measured(Row::BurstNoSurvivors).value;
    assert!((10.0..=100.0).contains(&all), "{all} % returned where nothing is live");
    // 19 of 20 bytes are free, so no more than that can go back.
    let some = measured(Row::Burst).value;
    assert!((0.0..=95.5).contains(&some), "{some} % returned with survivors everywhere");

    // A Vec of 32 MB is a mapping of its own: thousands of pages that were not there before, some of 2 MiB at best.
    let faults = measured(Row::VecGrow).faults.unwrap();
    assert!(faults > 8.0 * 1000.0, "{faults} faults per 1000 operations");
    assert_eq!(measured(Row::Pair).faults.unwrap().round(), 0.0);
}
