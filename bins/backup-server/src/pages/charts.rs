//! Charts as SVG. Colours are markers that the style sheet replaces, so that they suit light and
//! dark: it finds them by the attribute that the library writes.

use std::fmt::Display;
use std::ops::Range;

use askama::Template;
use askama::filters::HtmlSafe;
use plotters::prelude::{
    AreaSeries, ChartBuilder, Circle, Color as _, IntoDrawingArea as _, IntoFont as _, LineSeries,
    PathElement, RGBColor, SVGBackend,
};
use plotters::style::TRANSPARENT;

use super::show::number;
use super::words::Words;

const INK: RGBColor = RGBColor(1, 1, 1);
const RULE: RGBColor = RGBColor(2, 2, 2);
const ACCENT: RGBColor = RGBColor(3, 3, 3);
const FORECAST: RGBColor = RGBColor(4, 4, 4);

/// Small enough that letters can still be read on a phone.
const SIZE: (u32, u32) = (460, 190);
const SPARK: (u32, u32) = (120, 32);

/// A picture, and the same as a table for those who do not see it.
#[derive(Debug, Template)]
#[template(path = "chart.html")]
pub(crate) struct Chart {
    w: &'static Words,
    title: &'static str,
    /// What somebody would say of it in a sentence.
    summary: String,
    drawing: String,
    column: &'static str,
    /// Date and value, newest first.
    rows: Vec<(String, String)>,
}

impl HtmlSafe for Chart {}

/// What a chart shows: points in order, days and values.
pub(crate) struct Points<'a> {
    pub(crate) days: &'a [(f64, f64)],
    /// Where the straight line into the future begins and ends.
    pub(crate) forecast: Option<[(f64, f64); 2]>,
}

/// What is written at a chart.
pub(crate) struct Labels<'a> {
    pub(crate) title: &'static str,
    pub(crate) date: &'a dyn Fn(f64) -> String,
    pub(crate) value: &'a dyn Fn(f64) -> String,
    /// What the values are divided by, so that the marks of the axis are round.
    pub(crate) unit: (f64, &'static str),
}

/// A chart of at least two points.
pub(crate) fn chart(w: &'static Words, points: &Points<'_>, labels: &Labels<'_>) -> Option<Chart> {
    let (Some(first), Some(last)) = (points.days.first(), points.days.last()) else {
        return None;
    };
    if points.days.len() < 2 || last.0 <= first.0 {
        return None;
    }
    let say = |point: &(f64, f64)| ((labels.date)(point.0), (labels.value)(point.1));
    let (from, to) = (say(first), say(last));
    Some(Chart {
        w,
        title: labels.title,
        summary: format!("{}: {} → {}: {}", from.0, from.1, to.0, to.1),
        drawing: draw(w, points, labels)?,
        column: labels.title,
        rows: points.days.iter().rev().map(say).collect(),
    })
}

fn draw(w: &'static Words, points: &Points<'_>, labels: &Labels<'_>) -> Option<String> {
    let (divisor, unit) = labels.unit;
    let scaled = |point: &(f64, f64)| (point.0, point.1 / divisor);
    let line: Vec<_> = points.days.iter().map(scaled).collect();
    let ahead = points.forecast.map(|ends| ends.map(|end| scaled(&end)));
    let all = || line.iter().chain(ahead.iter().flatten());
    let (x, y) = (extent(all().map(|p| p.0)), extent(all().map(|p| p.1)));
    let top = if y.end > 0.0 { y.end * 1.08 } else { 1.0 };
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(6)
        .margin_right(14)
        .x_label_area_size(24)
        .y_label_area_size(74)
        .build_cartesian_2d(x, 0.0..top)
        .ok()?;
    let font = ("sans-serif", 13).into_font().color(&INK);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(4)
        .y_labels(4)
        .label_style(font)
        .axis_style(RULE)
        .bold_line_style(RULE)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|day| (labels.date)(*day))
        .y_label_formatter(&|value| format!("{} {unit}", short(w, *value)))
        .draw()
        .ok()?;
    let filled = AreaSeries::new(line.iter().copied(), 0.0, ACCENT.mix(0.12));
    chart.draw_series(filled).ok()?;
    let stroke = ACCENT.stroke_width(2);
    chart
        .draw_series(LineSeries::new(line.iter().copied(), stroke))
        .ok()?;
    if line.len() <= 40 {
        let dots = line
            .iter()
            .map(|point| Circle::new(*point, 2, ACCENT.filled()));
        chart.draw_series(dots).ok()?;
    }
    if let Some(ends) = ahead {
        let path = PathElement::new(ends.to_vec(), FORECAST.stroke_width(2));
        chart.draw_series([path]).ok()?;
    }
    area.present().ok()?;
    drop((chart, area));
    inner(&text)
}

/// A line as high as a word, without anything else; what it shows is said beside it.
pub(crate) fn spark(values: &[u64]) -> Option<Spark> {
    let line = values.iter().enumerate();
    let line: Vec<_> = line
        .map(|(at, value)| (number(at as u64), number(*value)))
        .collect();
    if line.len() < 2 {
        return None;
    }
    let (x, y) = (
        extent(line.iter().map(|p| p.0)),
        extent(line.iter().map(|p| p.1)),
    );
    let top = if y.end > 0.0 { y.end * 1.1 } else { 1.0 };
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SPARK).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(2)
        .build_cartesian_2d(x, 0.0..top)
        .ok()?;
    let filled = AreaSeries::new(line.iter().copied(), 0.0, ACCENT.mix(0.12));
    chart.draw_series(filled).ok()?;
    let stroke = ACCENT.stroke_width(2);
    chart.draw_series(LineSeries::new(line, stroke)).ok()?;
    area.present().ok()?;
    drop((chart, area));
    inner(&text).map(|drawing| Spark { drawing })
}

/// A small trend line.
#[derive(Debug, Template)]
#[template(
    source = r#"<svg class="spark" viewBox="0 0 120 32" aria-hidden="true" focusable="false">{{ drawing|safe }}</svg>"#,
    ext = "html"
)]
pub(crate) struct Spark {
    drawing: String,
}

impl HtmlSafe for Spark {}

/// What is inside of the `svg` that the library wrote; it is given a frame of our own.
fn inner(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("<svg")?;
    let (_, rest) = rest.split_once('>')?;
    let (drawing, _) = rest.rsplit_once("</svg>")?;
    Some(drawing.to_owned())
}

fn extent(values: impl Iterator<Item = f64>) -> Range<f64> {
    let start = f64::INFINITY..f64::NEG_INFINITY;
    values.fold(start, |range, value| {
        range.start.min(value)..range.end.max(value)
    })
}

/// As short as a mark of an axis can be.
fn short(w: &Words, value: f64) -> impl Display {
    let digits = if value >= 10.0 || value.fract().abs() < 1e-9 {
        0
    } else {
        usize::from(value < 1.0) + 1
    };
    w.decimal(value, digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels<'static> {
        Labels {
            title: "Size",
            date: &|day| format!("day {day}"),
            value: &|value| format!("{value} bytes"),
            unit: (1024.0, "KiB"),
        }
    }

    fn drawn(days: &[(f64, f64)]) -> Option<String> {
        let points = Points {
            days,
            forecast: Some([(3.0, 9000.0), (5.0, 20_000.0)]),
        };
        chart(Words::all()[0], &points, &labels()).map(|chart| chart.to_string())
    }

    #[test]
    fn a_chart_says_in_words_and_a_table_what_it_draws() {
        let html = drawn(&[(1.0, 2048.0), (2.0, 4096.0), (3.0, 9000.0)]).unwrap();
        for part in [
            "role=\"img\"",
            "<title>Size</title>",
            "day 1: 2048 bytes → day 3: 9000 bytes",
            "<td>day 2</td>",
            "<td class=\"number\">4096 bytes</td>",
            // What the style sheet looks for.
            "stroke=\"#030303\"",
            "fill=\"#030303\"",
            "fill=\"#010101\"",
            "stroke=\"#020202\"",
            "stroke=\"#040404\"",
            "10 KiB",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        // The policy of the pages allows no style beside the sheet.
        assert!(!html.contains("style="), "{html}");
    }

    #[test]
    fn what_is_no_line_is_not_drawn() {
        assert!(drawn(&[]).is_none());
        assert!(drawn(&[(1.0, 5.0)]).is_none());
        assert!(drawn(&[(1.0, 5.0), (1.0, 6.0)]).is_none());
        assert!(drawn(&[(1.0, 0.0), (2.0, 0.0)]).is_some());
        assert!(spark(&[1]).is_none());
        let spark = spark(&[1, 2, 0]).unwrap().to_string();
        assert!(spark.contains("stroke=\"#030303\""), "{spark}");
    }
}
