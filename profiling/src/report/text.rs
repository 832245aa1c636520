//! Numbers and tables as Markdown.

/// A table; the first column is text, the others are numbers.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines = vec![line(&header), line(&alignment(&header))];
    lines.extend(rows.into_iter().map(|row| line(&row)));
    lines.join("\n") + "\n"
}

/// A table of text alone.
pub fn prose_table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines = vec![line(&header), line(&[""; N].map(|_| "---"))];
    lines.extend(rows.into_iter().map(|row| line(&row)));
    lines.join("\n") + "\n"
}

fn line(cells: &[impl AsRef<str>]) -> String {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    format!("| {} |", cells.join(" | "))
}

fn alignment<'a>(header: &[&'a str]) -> Vec<&'a str> {
    let text = ["workload", "winner"];
    header.iter().map(|name| if text.contains(name) { "---" } else { "---:" }).collect()
}

/// Nanoseconds in the unit that suits them, three digits.
pub fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e3 => format!("{} ns", digits(nanoseconds)),
        1e3..1e6 => format!("{} µs", digits(nanoseconds / 1e3)),
        _ => format!("{} ms", digits(nanoseconds / 1e6)),
    }
}

/// Bytes below 10 KiB, KiB above.
pub fn bytes(bytes: f64) -> String {
    if bytes < 10240.0 { format!("{bytes:.0} B") } else { format!("{:.1} KiB", bytes / 1024.0) }
}

/// Three digits that count.
pub fn digits(number: f64) -> String {
    match number {
        ..10.0 => format!("{number:.2}"),
        10.0..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// A ratio, with two digits after the point.
pub fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// A share as whole per cent.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `a`, `a and b`, `a, b and c`.
pub fn list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.as_slice() {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let times = [9.876, 98.76, 987.6, 9876.0, 9_876_000.0].map(time);
        assert_eq!(times, ["9.88 ns", "98.8 ns", "988 ns", "9.88 µs", "9.88 ms"]);
        assert_eq!([bytes(365.4), bytes(65536.0)], ["365 B", "64.0 KiB"]);
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    }

    #[test]
    fn tables_are_markdown() {
        let text = table(["workload", "slab"], [["x".to_owned(), "1".to_owned()]]);
        assert_eq!(text, "| workload | slab |\n| --- | ---: |\n| x | 1 |\n");
    }
}
