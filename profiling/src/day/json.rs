//! The results as JSON, second by second.

use profiling::workloads::day::{Curve, Latency};
use serde_json::{Value, json};

use super::Course;
use super::processes::Plan;
use super::summary::memories;

/// Everything that was measured.
pub fn json(curve: &Curve, plan: &Plan, courses: &[Course]) -> Value {
    let allocators: Vec<Value> = courses
        .iter()
        .zip(memories(curve, courses))
        .map(|(course, (memory, ratio))| {
            let total = &course.total;
            let seconds: Vec<Value> = course
                .seconds
                .iter()
                .map(|second| {
                    json!({
                        "at": second.at,
                        "resident_bytes": second.resident,
                        "live_bytes": second.live,
                        "requests": second.requests,
                        "latency_ns": latency(&second.latency),
                    })
                })
                .collect();
            json!({
                "name": course.allocator.name,
                "area_mib_seconds": memory.area,
                "area_to_best_peer": ratio,
                "peak_bytes": total.peak,
                "night_bytes": memory.nights,
                "requests": total.requests,
                "latency_ns": latency(&total.latency),
                "processor_seconds": total.processor,
                "entries_compared": total.entries,
                "seconds": seconds,
            })
        })
        .collect();
    json!({ "seconds": plan.seconds, "rate": plan.rate, "allocators": allocators })
}

fn latency(latency: &Latency) -> Value {
    json!({ "p50": latency.half, "p99": latency.most, "max": latency.all })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::summary::tests::{CURVE, courses};

    #[test]
    fn json_holds_every_second() {
        let json = json(&CURVE(), &Plan { seconds: 72, rate: 100 }, &courses());
        let arena = &json["allocators"][2];
        assert_eq!((&arena["name"], &arena["area_to_best_peer"]), (&json!("arena"), &json!(3.6)));
        assert_eq!(arena["seconds"].as_array().unwrap().len(), 71);
        assert_eq!(arena["seconds"][70]["resident_bytes"], 71 << 20);
        assert_eq!(arena["latency_ns"], json!({ "p50": 20_000, "p99": 300_000, "max": 4_000_000 }));
    }
}
