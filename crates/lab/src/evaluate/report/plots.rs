//! Plots as SVG, to be put into a page.

use std::io;

use earthmapper_geo::lonlat::LonLat;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::evaluate::evaluation::{Candidate, Section};
use crate::evaluate::score::{Better, Number};

/// What is drawn on.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Why a drawing failed; in memory there is no reason to.
pub(crate) type Failure = DrawingAreaErrorKind<io::Error>;

pub(crate) const FONT: (&str, i32) = ("sans-serif", 14);
pub(crate) const WIDTH: u32 = 760;

/// Share of the width of [`scores`] that is for the names of metrics, in units of its axis from 0 to 1.
const NAMES: f64 = 0.4;

/// Bars of a histogram.
const BARS: usize = 20;

fn colour(candidate: Candidate) -> RGBColor {
    match candidate {
        Candidate::Blank => RGBColor(150, 150, 150),
        Candidate::Nearest => RGBColor(230, 120, 0),
        Candidate::Model => RGBColor(40, 90, 200),
        Candidate::Ceiling => RGBColor(0, 140, 70),
        Candidate::Cycle => RGBColor(150, 60, 170),
    }
}

/// A drawing of this height in pixels.
pub(crate) fn svg(height: u32, draw: impl FnOnce(&Area) -> Result<(), Failure>) -> String {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)
        .and_then(|()| draw(&area))
        .and_then(|()| area.present())
        .expect("memory takes every drawing");
    drop(area);
    text
}

/// All metrics of a section that lie in [0, 1] and are better when higher: a dot per candidate, with its interval. None when
/// there are none.
pub fn scores(section: &Section) -> Option<String> {
    let is_share = |value: f64| (0.0..=1.0).contains(&value);
    let rows: Vec<_> = section
        .rows
        .iter()
        .filter(|row| row.metric.better == Better::Higher)
        .filter(|row| row.numbers.values().filter_map(|number| number.value).all(is_share))
        .collect();
    if rows.is_empty() {
        return None;
    }
    let lanes = section.candidates.len() as f64;
    // Room above the first row, so that no dot is under the legend.
    let legend = 0.4 + 0.45 * lanes;
    let draw = |area: &Area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(30)
            .build_cartesian_2d(-NAMES..1.0, 0.0..rows.len() as f64 + legend)?;
        let tick = |x: &f64| if *x < -1e-9 { String::new() } else { format!("{x:.1}") };
        chart
            .configure_mesh()
            .disable_mesh()
            .disable_y_axis()
            .x_labels(15)
            .x_label_formatter(&tick)
            .label_style(FONT)
            .draw()?;
        let grid = (0..=10).map(|tenth| {
            let x = f64::from(tenth) / 10.0;
            PathElement::new([(x, 0.0), (x, rows.len() as f64)], RGBColor(225, 225, 225))
        });
        chart.draw_series(grid)?;
        let base = |row: usize| (rows.len() - 1 - row) as f64;
        chart.draw_series(rows.iter().enumerate().map(|(row, found)| {
            Text::new(found.metric.name.clone(), (-NAMES + 0.005, base(row) + 0.65), FONT.into_font())
        }))?;
        for (lane, &candidate) in section.candidates.iter().enumerate() {
            let colour = colour(candidate);
            let numbers: Vec<(f64, Number)> = rows
                .iter()
                .enumerate()
                .filter_map(|(row, found)| {
                    let height = base(row) + 0.15 + 0.7 * (lanes - lane as f64 - 0.5) / lanes;
                    Some((height, *found.numbers.get(&candidate)?))
                })
                .collect();
            chart.draw_series(numbers.iter().filter_map(|&(y, number)| {
                let [low, high] = number.interval?;
                Some(PathElement::new([(low, y), (high, y)], colour.stroke_width(2)))
            }))?;
            let dot =
                |&(y, number): &(f64, Number)| Some(Circle::new((number.value?, y), 4, colour.filled()));
            chart
                .draw_series(numbers.iter().filter_map(dot))?
                .label(candidate.heading(section.target))
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(220, 220, 220))
            .label_font(FONT)
            .draw()
    };
    Some(svg(60 + (44.0 * (rows.len() as f64 + legend)) as u32, draw))
}

/// How often values in [0, 1] occur.
pub fn histogram(values: &[f64], label: &str) -> String {
    let mut counts = [0u32; BARS];
    for value in values {
        counts[((value.clamp(0.0, 1.0) * BARS as f64) as usize).min(BARS - 1)] += 1;
    }
    let highest = f64::from(*counts.iter().max().expect("there are bars"));
    svg(260, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(45)
            .y_label_area_size(50)
            .build_cartesian_2d(0.0..1.0, 0.0..highest.max(1.0) * 1.05)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc(label)
            .y_desc("pictures")
            .y_label_formatter(&|y: &f64| if y.fract() == 0.0 { format!("{y:.0}") } else { String::new() })
            .label_style(FONT)
            .light_line_style(TRANSPARENT)
            .draw()?;
        let bar = |(bar, &count): (usize, &u32)| {
            let side = |bar: usize| bar as f64 / BARS as f64;
            let corners = [(side(bar), 0.0), (side(bar + 1), f64::from(count))];
            Rectangle::new(corners, RGBColor(40, 90, 200).mix(0.7).filled())
        };
        chart.draw_series(counts.iter().enumerate().map(bar))?;
        Ok(())
    })
}

/// A dot per picture: how undecided the model was against what its picture is worth.
pub fn scatter(points: &[(f64, f64)], x_label: &str, y_label: &str) -> String {
    let span = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let margin = ((high - low) * 0.05).max(0.01);
        low - margin..high + margin
    };
    svg(340, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(45)
            .y_label_area_size(60)
            .build_cartesian_2d(
                span(&mut points.iter().map(|point| point.0)),
                span(&mut points.iter().map(|point| point.1)),
            )?;
        chart
            .configure_mesh()
            .x_desc(x_label)
            .y_desc(y_label)
            .label_style(FONT)
            .light_line_style(TRANSPARENT)
            .draw()?;
        let dot = |&point: &(f64, f64)| Circle::new(point, 3, RGBColor(40, 90, 200).mix(0.6).filled());
        chart.draw_series(points.iter().map(dot))?;
        Ok(())
    })
}

/// Where pictures are good and where they are bad: a dot at each place, red at the lowest worth, blue at the highest. None
/// when no place is known.
pub fn error_map(positions: &[Option<LonLat>], worth: &[f64]) -> Option<String> {
    let known: Vec<(LonLat, f64)> =
        positions.iter().zip(worth).filter_map(|(position, &worth)| Some(((*position)?, worth))).collect();
    let first = known.first()?.0;
    // Relative to the first place, so that the antimeridian is no border.
    let beside = |position: LonLat| {
        first.longitude() + (position.longitude() - first.longitude() + 540.0).rem_euclid(360.0) - 180.0
    };
    let points: Vec<(f64, f64, f64)> =
        known.iter().map(|&(position, worth)| (beside(position), position.latitude(), worth)).collect();
    let range = |of: fn(&(f64, f64, f64)) -> f64| {
        let values = points.iter().map(of);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let ((west, east), (south, north), (low, high)) = (range(|p| p.0), range(|p| p.1), range(|p| p.2));
    // One scale along both axes, on the ground.
    let stretch = first.latitude().to_radians().cos().max(0.05);
    let side = ((east - west) * stretch).max(north - south).max(1e-4) * 0.55;
    let (x, y) = ((west + east) / 2.0, (south + north) / 2.0);
    let shade = |worth: f64| {
        let share = if high > low { (worth - low) / (high - low) } else { 0.5 };
        let mix = |bad: f64, good: f64| (bad + (good - bad) * share) as u8;
        RGBColor(mix(215.0, 40.0), mix(40.0, 90.0), mix(40.0, 200.0))
    };
    Some(svg(WIDTH, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(45)
            .y_label_area_size(80)
            .build_cartesian_2d(x - side / stretch..x + side / stretch, y - side..y + side)?;
        chart
            .configure_mesh()
            .x_desc("longitude")
            .y_desc("latitude")
            .x_labels(6)
            .x_label_formatter(&|x: &f64| format!("{x:.4}"))
            .y_label_formatter(&|y: &f64| format!("{y:.4}"))
            .label_style(FONT)
            .light_line_style(TRANSPARENT)
            .draw()?;
        chart.draw_series(
            points.iter().map(|&(x, y, worth)| Circle::new((x, y), 5, shade(worth).mix(0.85).filled())),
        )?;
        for (name, worth) in [("lowest", low), ("highest", high)] {
            let colour = shade(worth);
            chart
                .draw_series(std::iter::empty::<Circle<(f64, f64), i32>>())?
                .label(format!("{name}: {worth:.2}"))
                .legend(move |(x, y)| Circle::new((x + 8, y), 5, colour.filled()));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(220, 220, 220))
            .label_font(FONT)
            .draw()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_drawn() {
        let bars = histogram(&[0.1, 0.12, 0.9, 1.0, -3.0], "worth");
        assert!(bars.starts_with("<svg") && bars.trim_end().ends_with("</svg>"), "{bars}");
        let dots = scatter(&[(0.1, 0.5), (0.2, 0.5)], "entropy", "worth");
        assert_eq!(dots.matches("<circle").count(), 2);
        assert_eq!(error_map(&[None, None], &[0.1, 0.2]), None);
        let place = |longitude| Some(LonLat::new(longitude, 43.0).unwrap());
        // Across the antimeridian: a map of a degree, not of the world.
        let map = error_map(&[place(179.5), None, place(-179.5)], &[0.1, 0.5, 0.9]).unwrap();
        assert_eq!(map.matches("<circle").count(), 2 + 2);
        assert!(map.contains("180.") && map.contains("highest: 0.90"), "{map}");
    }
}
