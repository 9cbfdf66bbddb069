//! Throughput as a picture: what was read and what was sent, over the last minutes or the last day.

use std::fmt::Display;

use plotters::prelude::*;

use crate::board::Sample;
use crate::units::Bytes;

/// Pixels, scaled to the page by the reader.
const SIZE: (u32, u32) = (900, 220);

const READ: RGBColor = RGBColor(0x4c, 0x78, 0xa8);
const SENT: RGBColor = RGBColor(0xf5, 0x85, 0x18);

/// The steps of a plot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// How long a step is.
    pub step_seconds: f64,
    /// How many there are from one end to the other.
    pub steps: usize,
    /// What the bottom says.
    pub unit: &'static str,
    /// Seconds of that.
    pub unit_seconds: f64,
}

/// An SVG; no word in it is anybody's.
pub(super) fn throughput(samples: &[Sample], axis: Axis) -> Result<String, impl Display> {
    let mut svg = String::new();
    draw(&mut svg, samples, axis).map(|()| svg)
}

fn draw(
    svg: &mut String,
    samples: &[Sample],
    axis: Axis,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>> {
    let most =
        samples.iter().map(|sample| rate(sample.read.max(sample.wire), axis)).fold(1., f64::max);
    let at =
        |place: usize| -place_of(samples.len() - place) * axis.step_seconds / axis.unit_seconds;
    let first = -place_of(axis.steps) * axis.step_seconds / axis.unit_seconds;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(84)
        .build_cartesian_2d(first..0., 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(1)
        .x_desc(axis.unit)
        .x_labels(11)
        .x_label_formatter(&|at| format!("{:.0}", at.abs()))
        .y_labels(5)
        .y_label_formatter(&|rate| shown(*rate))
        .draw()?;
    let points = |of: fn(&Sample) -> u64| {
        samples.iter().enumerate().map(move |(place, sample)| (at(place), rate(of(sample), axis)))
    };
    let read = points(|sample| sample.read);
    chart.draw_series(AreaSeries::new(read, 0., READ.mix(0.3)).border_style(READ))?;
    let sent = points(|sample| sample.wire);
    chart.draw_series(AreaSeries::new(sent, 0., SENT.mix(0.3)).border_style(SENT))?;
    area.present()
}

fn rate(bytes: u64, axis: Axis) -> f64 {
    wide(bytes) / axis.step_seconds
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a label")]
fn shown(rate: f64) -> String {
    format!("{}/s", Bytes(rate as u64))
}

fn place_of(place: usize) -> f64 {
    wide(place as u64)
}

#[expect(clippy::cast_precision_loss, reason = "a figure in a plot")]
fn wide(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXIS: Axis = Axis { step_seconds: 1., steps: 600, unit: "seconds", unit_seconds: 1. };

    #[test]
    fn each_line_has_a_point_for_each_step_and_nothing_else_is_in_the_picture() {
        for count in [0, 1, 2, 600] {
            let samples: Vec<Sample> =
                (0..count).map(|step| Sample { read: 1000 * step, wire: 500 * step }).collect();
            let svg = throughput(&samples, AXIS).map_err(|error| error.to_string()).unwrap();
            assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
            let lines: Vec<&str> = svg.split("<polyline ").collect();
            let longest = lines.iter().map(|line| {
                let points = line.split("points=\"").nth(1).and_then(|rest| rest.split('"').next());
                points.map_or(0, |points| points.split_whitespace().count())
            });
            let longest = longest.max().unwrap_or(0);
            if count > 1 {
                assert_eq!(longest, usize::try_from(count).unwrap());
            }
            // What a page forbids that has no styles of its own, and what would leave it.
            for word in ["style=", "<script", "href", "http://www.w3.org/1999"] {
                assert!(!svg.contains(word), "{word}");
            }
        }
    }
}
