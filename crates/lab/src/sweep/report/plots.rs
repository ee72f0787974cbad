//! The drawings.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figures::{FrontPoint, Series};
use crate::evaluate::report::plots::{Area, FONT, Failure, WIDTH, svg};
use crate::evaluate::score::Number;

/// Height of a plot, in pixels.
const HEIGHT: u32 = 360;
/// Width of the list of lines beside a plot.
const LEGEND: u32 = 190;
/// Radius of a point, in pixels.
const RADIUS: i32 = 4;
/// How far lines stand beside each other, in widths of the plot.
const BESIDE: f64 = 0.006;

const COLOURS: [RGBColor; 8] = [
    RGBColor(40, 90, 200),
    RGBColor(230, 120, 0),
    RGBColor(0, 140, 70),
    RGBColor(200, 50, 60),
    RGBColor(150, 60, 170),
    RGBColor(120, 90, 60),
    RGBColor(0, 150, 170),
    RGBColor(210, 160, 0),
];

const GREY: RGBColor = RGBColor(110, 110, 110);

/// Positions along the horizontal axis.
pub(super) enum Ticks {
    Numbers(Vec<f64>),
    /// At 0, 1, 2 and so on.
    Names(Vec<String>),
}

impl Ticks {
    fn range(&self) -> (f64, f64) {
        match self {
            Self::Numbers(numbers) => span(numbers.iter().copied(), 0.05),
            Self::Names(names) => (-0.3, names.len() as f64 - 0.7),
        }
    }

    /// What stands at a position; nothing between names.
    fn label(&self, x: f64) -> String {
        match self {
            Self::Numbers(_) => number(x),
            Self::Names(names) => {
                let nearest = x.round();
                let is_there = (x - nearest).abs() < 1e-6 && nearest >= 0.0;
                if is_there {
                    names.get(nearest as usize).cloned().unwrap_or_default()
                } else {
                    String::new()
                }
            }
        }
    }
}

/// As few digits as it takes.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// From the lowest to the highest, with a margin.
fn span(values: impl Iterator<Item = f64>, margin: f64) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = ((high - low) * margin).max(high.abs().max(1e-3) * 0.01);
    (low - margin, high + margin)
}

/// The range that holds all points, their intervals and the lines across.
fn heights(series: &[Series], references: &[(String, f64)]) -> Vec<f64> {
    let numbers = series.iter().flat_map(|series| &series.points);
    let ends =
        numbers.flat_map(|(_, number)| number.value.into_iter().chain(number.interval.into_iter().flatten()));
    ends.chain(references.iter().map(|(_, value)| *value)).collect()
}

/// A line per series with intervals, and lines across for what is not on the axis.
pub(super) fn lines(
    series: &[Series],
    references: &[(String, f64)],
    ticks: &Ticks,
    x_label: &str,
    y_label: &str,
) -> String {
    svg(HEIGHT, |area| {
        let (left, right) = area.split_horizontally(WIDTH - LEGEND);
        let y = span(heights(series, references).into_iter(), 0.05);
        chart(&left, series, references, ticks, y, [x_label, y_label, ""])?;
        legend(&right, series, references)
    })
}

/// A group's name, its lines, and the lines across.
pub(super) type Panel = (&'static str, Vec<Series>, Vec<(String, f64)>);

/// The same for several groups, side by side and on one scale.
pub(super) fn panels(groups: &[Panel], ticks: &Ticks, x_label: &str, y_label: &str) -> String {
    let all = groups.iter().flat_map(|(_, series, references)| heights(series, references));
    let y = span(all, 0.05);
    svg(HEIGHT, |area| {
        let (left, right) = area.split_horizontally(WIDTH - LEGEND);
        let areas = left.split_evenly((1, groups.len()));
        for (number, ((name, series, references), area)) in groups.iter().zip(&areas).enumerate() {
            let y_label = if number == 0 { y_label } else { "" };
            chart(area, series, references, ticks, y, [x_label, y_label, name])?;
        }
        match groups.first() {
            Some((_, series, references)) => legend(&right, series, references),
            None => Ok(()),
        }
    })
}

fn chart(
    area: &Area,
    series: &[Series],
    references: &[(String, f64)],
    ticks: &Ticks,
    (bottom, top): (f64, f64),
    [x_label, y_label, caption]: [&str; 3],
) -> Result<(), Failure> {
    let (west, east) = ticks.range();
    let mut builder = ChartBuilder::on(area);
    if !caption.is_empty() {
        builder.caption(caption, FONT);
    }
    let mut chart = builder
        .margin(8)
        .x_label_area_size(42)
        .y_label_area_size(if y_label.is_empty() { 40 } else { 58 })
        .build_cartesian_2d(west..east, bottom..top)?;
    // Names stand below the points only; so many labels that one falls on each.
    let x_labels = match ticks {
        // A panel is a third as wide.
        Ticks::Numbers(_) => {
            if caption.is_empty() {
                7
            } else {
                4
            }
        }
        Ticks::Names(names) => 2 * names.len().max(1),
    };
    chart
        .configure_mesh()
        .x_desc(x_label)
        .y_desc(y_label)
        .x_labels(x_labels)
        .y_labels(7)
        .x_label_formatter(&|x| ticks.label(*x))
        .y_label_formatter(&|y| number(*y))
        .label_style(FONT)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (place, (_, value)) in references.iter().enumerate() {
        let style = colour(series.len() + place).stroke_width(1);
        let dashes = DashedLineSeries::new([(west, *value), (east, *value)], 6, 4, style);
        chart.draw_series(dashes)?;
    }
    let all = series.len() as f64;
    for (place, series) in series.iter().enumerate() {
        let colour = colour(place);
        // A little beside each other, or equal numbers would cover each other.
        let beside = (place as f64 - (all - 1.0) / 2.0) * (east - west) * BESIDE;
        chart.draw_series(series.points.iter().filter_map(|(x, number)| {
            let [low, high] = number.interval?;
            let x = x + beside;
            Some(PathElement::new([(x, low), (x, high)], colour.mix(0.35).stroke_width(2)))
        }))?;
        let at = |(x, number): &(f64, Number)| Some((*x + beside, number.value?));
        chart.draw_series(LineSeries::new(series.points.iter().filter_map(at), colour.stroke_width(2)))?;
        let dot = |point: &_| Some(Circle::new(at(point)?, RADIUS, colour.filled()));
        chart.draw_series(series.points.iter().filter_map(dot))?;
    }
    Ok(())
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

/// The names of all lines, each behind a sample of it.
fn legend(area: &Area, series: &[Series], references: &[(String, f64)]) -> Result<(), Failure> {
    let solid =
        series.iter().map(|series| (series.label.as_str(), false)).filter(|(label, _)| !label.is_empty());
    let names: Vec<(&str, bool)> =
        solid.chain(references.iter().map(|(label, _)| (label.as_str(), true))).collect();
    let unnamed = series.iter().filter(|series| series.label.is_empty()).count();
    for (row, (label, is_across)) in names.into_iter().enumerate() {
        let y = 24 + 19 * row as i32;
        let colour = colour(row + unnamed);
        let ends: &[[i32; 2]] = if is_across { &[[4, 10], [14, 20]] } else { &[[4, 20]] };
        for [from, to] in ends {
            area.draw(&PathElement::new([(*from, y), (*to, y)], colour.stroke_width(2)))?;
        }
        let style = TextStyle::from(FONT.into_font()).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(shortened(label, 24), (26, y), style))?;
    }
    Ok(())
}

fn shortened(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// All points, those of the front filled, joined and named.
pub(super) fn front(points: &[FrontPoint], x_label: &str, y_label: &str) -> String {
    let (west, east) = span(points.iter().map(|point| point.x), 0.08);
    let (bottom, top) = span(points.iter().map(|point| point.y), 0.1);
    let mut best: Vec<&FrontPoint> = points.iter().filter(|point| point.is_best).collect();
    best.sort_by(|left, right| left.x.total_cmp(&right.x));
    svg(HEIGHT + 40, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(42)
            .y_label_area_size(58)
            .build_cartesian_2d(west..east, bottom..top)?;
        chart
            .configure_mesh()
            .x_desc(x_label)
            .y_desc(y_label)
            .x_label_formatter(&|x| number(*x))
            .y_label_formatter(&|y| number(*y))
            .label_style(FONT)
            .light_line_style(TRANSPARENT)
            .draw()?;
        let at = |point: &&FrontPoint| (point.x, point.y);
        chart.draw_series(LineSeries::new(best.iter().map(at), COLOURS[0].mix(0.5).stroke_width(1)))?;
        let rest = points.iter().filter(|point| !point.is_best);
        chart.draw_series(rest.map(|point| Circle::new((point.x, point.y), RADIUS, GREY.stroke_width(1))))?;
        chart.draw_series(best.iter().map(|point| Circle::new(at(point), RADIUS, COLOURS[0].filled())))?;
        let middle = (west + east) / 2.0;
        chart.draw_series(best.iter().enumerate().map(|(number, point)| {
            // Toward the middle, and by turns above and below, so that neighbours do not cover each other.
            let (side, shift) = if point.x < middle { (HPos::Left, 7) } else { (HPos::Right, -7) };
            let up = if number % 2 == 0 { -10 } else { 10 };
            let style = TextStyle::from(("sans-serif", 12).into_font()).pos(Pos::new(side, VPos::Center));
            EmptyElement::at(at(point)) + Text::new(point.label.clone(), (shift, up), style)
        }))?;
        Ok(())
    })
}
