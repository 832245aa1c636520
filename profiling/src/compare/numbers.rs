//! Numbers as people read them.

use profiling::Unit;

/// A number of a row.
pub fn value(unit: Unit, number: f64) -> String {
    match unit {
        Unit::Nanoseconds => digits(number),
        Unit::OverKept | Unit::KibPerRequest => format!("{number:.2}"),
        Unit::PercentReturned => format!("{number:.1}"),
        Unit::KibGrown | Unit::Kib => format!("{number:.0}"),
    }
}

/// Three digits that count, and no more than a clock can tell.
pub fn digits(number: f64) -> String {
    match number {
        ..10.0 => format!("{number:.2}"),
        10.0..1000.0 => format!("{number:.1}"),
        _ => thousands(number.round() as u64),
    }
}

/// MiB of an optional number of bytes.
pub fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / (1 << 20) as f64))
}

/// An optional number of page faults.
pub fn faults(number: Option<f64>) -> String {
    match number {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(number) => digits(number),
    }
}

/// `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([2.7512, 27.512, 275.12, 2751234.5].map(digits), ["2.75", "27.5", "275.1", "2,751,235"]);
        assert_eq!(value(Unit::PercentReturned, 2.449), "2.4");
        assert_eq!((mib(Some(3 << 19)), mib(None)), ("1.5".to_owned(), "-".to_owned()));
        assert_eq!((faults(Some(0.0)), faults(Some(2.5))), ("0".to_owned(), "2.50".to_owned()));
    }
}
