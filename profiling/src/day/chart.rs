//! Memory over time as a picture.

use plotters::prelude::*;
use profiling::workloads::day::{Curve, Second};

use super::Course;
use crate::compare::allocator::Kind;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (1200, 640);

/// More points than these a line does not have: some one to a pixel.
const POINTS: usize = 1000;

/// Hours between two marks of the time of day.
const HOURS: f64 = 3.0;

/// Colours of peers, one after the other.
const PEERS: [RGBColor; 7] = [
    RGBColor(60, 60, 60),
    RGBColor(31, 119, 180),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(23, 160, 180),
    RGBColor(160, 130, 60),
    RGBColor(227, 119, 194),
];

/// Colours of Shockwave's modes.
const MODES: [RGBColor; 3] = [RGBColor(240, 180, 60), RGBColor(255, 110, 20), RGBColor(214, 20, 40)];

/// The picture, as SVG: a line for each allocator, those of Shockwave thicker, and one for what is live.
pub fn svg(curve: &Curve, courses: &[Course]) -> Result<String, String> {
    let mut text = String::new();
    draw(&mut text, curve, courses).map_err(|error| format!("--svg: cannot draw: {error}"))?;
    Ok(text)
}

fn draw(
    text: &mut String,
    curve: &Curve,
    courses: &[Course],
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let resident = |second: &Second| second.resident;
    let most = courses.iter().flat_map(|course| &course.seconds).map(resident).max().unwrap_or(0);
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let hour = curve.day() / 24.0;
    let marks = (0..).map(|mark| f64::from(mark) * HOURS * hour).take_while(|at| *at <= curve.seconds());
    let marks: Vec<i64> = marks.map(milliseconds).collect();
    let mut chart = ChartBuilder::on(&area)
        .caption("Resident memory over two days", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (0..milliseconds(curve.seconds())).with_key_points(marks),
            0.0..(mib(most) * 1.05).max(1.0),
        )?;
    chart
        .configure_mesh()
        .x_desc("time of day")
        .y_desc("MiB")
        .x_label_formatter(&|at| time_of_day(curve, *at as f64 / 1000.0))
        .y_label_formatter(&|mib| format!("{mib:.0}"))
        .light_line_style(WHITE)
        .draw()?;

    let (mut peers, mut modes) = (PEERS.iter().cycle(), MODES.iter().cycle());
    for course in courses {
        let (color, width) = match course.allocator.kind {
            Kind::Shockwave => (modes.next(), 2),
            _ => (peers.next(), 1),
        };
        let style = color.expect("a cycle does not end").stroke_width(width);
        chart
            .draw_series(LineSeries::new(points(&course.seconds, resident), style))?
            .label(course.allocator.title)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
    }
    if let Some(course) = courses.first() {
        let style = RGBColor(170, 170, 170).stroke_width(1);
        chart
            .draw_series(LineSeries::new(points(&course.seconds, |second| second.live), style))?
            .label("live")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()
}

/// Milliseconds and MiB; where there are more than fit, the highest of some that follow each other.
fn points(seconds: &[Second], bytes: impl Fn(&Second) -> u64) -> Vec<(i64, f64)> {
    let some = seconds.chunks(seconds.len().div_ceil(POINTS).max(1));
    let point = |second: &Second| (milliseconds(second.at), mib(bytes(second)));
    some.filter_map(|some| some.iter().map(point).reduce(higher)).collect()
}

fn higher(one: (i64, f64), other: (i64, f64)) -> (i64, f64) {
    if other.1 > one.1 { other } else { one }
}

/// What times are on the axis: the crate places marks freely among integers only.
fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// `18:00`.
fn time_of_day(curve: &Curve, at: f64) -> String {
    let minutes = (curve.hour(at) * 60.0).round() as u32;
    format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::summary::tests::{CURVE, courses};

    #[test]
    fn a_line_and_a_name_for_each_allocator() {
        let svg = |courses: &[Course]| svg(&CURVE(), courses).unwrap();
        let all = svg(&courses());
        for title in ["system", "mimalloc 3", "shockwave arena", "live"] {
            let lines = all.lines().filter(|line| line.trim() == title);
            assert_eq!(lines.count(), 1, "{title}");
        }
        // Of each that is left out, its line and its piece of the legend.
        let lines = |text: &str| text.matches("<polyline").count();
        assert_eq!(lines(&all) - lines(&svg(&courses()[1..])), 2);
        assert!(all.contains("time of day") && all.contains("MiB"));
        assert_eq!(["06:00", "18:00", "00:00"].map(|time| all.matches(time).count()), [3, 2, 2]);
    }

    #[test]
    fn long_runs_keep_their_peaks() {
        let second = courses()[0].seconds[0];
        let mut seconds = vec![second; 5000];
        seconds[3333].resident = 400 << 20;
        let points = points(&seconds, |second| second.resident);
        assert!(points.len() <= POINTS && points.contains(&(1000, 400.0)));
    }

    #[test]
    fn time_of_day_is_that_of_a_clock() {
        let times = [0.0, 4.5, 27.0, 71.999].map(|at| time_of_day(&CURVE(), at));
        assert_eq!(times, ["06:00", "09:00", "00:00", "06:00"]);
    }
}
