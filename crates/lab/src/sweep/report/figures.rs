//! Which plots a sweep has: every number against every numeric axis with a line per value of the others, the same by urban
//! density, and fronts.

use earthmapper::Modality;

use super::plots::{self, Ticks};
use super::{Results, Row};
use crate::evaluate::Candidate;
use crate::evaluate::score::{Better, Number};
use crate::sweep::columns::{BITS, Column};
use crate::sweep::config::Front;

/// A plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it shows against what.
    pub title: String,
    /// How it is read.
    pub about: String,
    /// The drawing.
    pub svg: String,
}

impl Figure {
    /// Its title as the name of a file.
    pub fn file_name(&self) -> String {
        // Greek letters are the usual names of parameters; files are called by what they are called.
        let spelled = |letter: char| match letter {
            'α' => "alpha".into(),
            'β' => "beta".into(),
            'γ' => "gamma".into(),
            'σ' => "sigma".into(),
            'τ' => "tau".into(),
            letter if letter.is_ascii_alphanumeric() => letter.to_string(),
            letter if letter.is_alphanumeric() => format!("u{:x}", u32::from(letter)),
            _ => " ".into(),
        };
        let plain: String = self.title.to_lowercase().chars().map(spelled).collect();
        let words: Vec<&str> = plain.split_whitespace().collect();
        format!("{}.svg", words.join("-"))
    }
}

/// A point beside a front.
#[derive(Clone, Debug, PartialEq)]
pub struct FrontPoint {
    /// Name of the point.
    pub label: String,
    /// Where it stands.
    pub x: f64,
    /// Where it stands.
    pub y: f64,
    /// Whether no other point is better in one number and as good in the other.
    pub is_best: bool,
}

/// A line of a plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Series {
    pub label: String,
    /// From left to right.
    pub points: Vec<(f64, Number)>,
}

impl Results {
    /// All plots.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (front, points) in self.fronts() {
            let better = |column| match self.better(column) {
                Better::Lower => "lower is better",
                _ => "higher is better",
            };
            figures.push(Figure {
                title: format!("{} against {}", front.y.heading(), front.x.heading()),
                about: format!(
                    "The front is filled: no other point is better in one number and as good in the other. {}: {}; {}: {}.",
                    front.y.heading(),
                    better(&front.y),
                    front.x.heading(),
                    better(&front.x),
                ),
                svg: plots::front(&points, front.x.heading(), front.y.heading()),
            });
        }
        for axis in self.plotted_axes() {
            let name = &self.config.axes[axis].name;
            let ticks = self.ticks(axis);
            for column in &self.columns {
                let series = self.series(axis, &|row| row.number(column));
                if series.iter().all(|series| series.points.is_empty()) {
                    continue;
                }
                let references = self.references(&|row| row.number(column));
                figures.push(Figure {
                    title: format!("{} by {name}", column.heading()),
                    about: String::new(),
                    svg: plots::lines(&series, &references, &ticks, name, column.heading()),
                });
            }
            let Some(groups) = &self.groups else { continue };
            for column in self.grouped_columns() {
                let panels: Vec<_> = groups
                    .iter()
                    .map(|group| {
                        let number = |row: &Row| {
                            row.record
                                .as_ref()
                                .map_or_else(Number::default, |record| record.number_of_group(column, group))
                        };
                        (group.name, self.series(axis, &number), self.references(&number))
                    })
                    .collect();
                figures.push(Figure {
                    title: format!("{} by {name} and urban density", column.heading()),
                    about: String::new(),
                    svg: plots::panels(&panels, &ticks, name, column.heading()),
                });
            }
        }
        figures
    }

    /// The axes that are drawn along: the numeric ones with several values, else the first one with several.
    fn plotted_axes(&self) -> Vec<usize> {
        let several: Vec<usize> = (0..self.config.axes.len())
            .filter(|&axis| {
                let count = self.config.axes[axis].values.len().max(self.config.axes[axis].named.len());
                count > 1
            })
            .collect();
        let is_numeric = |axis: &usize| {
            self.rows.iter().filter_map(|row| row.coordinates[*axis].as_ref()).all(|c| c.number.is_some())
        };
        let numeric: Vec<usize> = several.iter().copied().filter(is_numeric).collect();
        match numeric.is_empty() {
            true => several.into_iter().take(1).collect(),
            false => numeric,
        }
    }

    /// Positions along an axis: numbers, or one after another in the order of the file.
    fn ticks(&self, axis: usize) -> Ticks {
        let values = self.rows.iter().filter_map(|row| row.coordinates[axis].as_ref());
        let mut named: Vec<(Option<f64>, String)> = Vec::new();
        for value in values {
            if !named.iter().any(|(_, label)| *label == value.label) {
                named.push((value.number, value.label.clone()));
            }
        }
        let numbers: Option<Vec<f64>> = named.iter().map(|(number, _)| *number).collect();
        match numbers {
            Some(numbers) => Ticks::Numbers(numbers),
            None => Ticks::Names(named.into_iter().map(|(_, label)| label).collect()),
        }
    }

    /// The lines along an axis: one per combination of the others.
    fn series(&self, axis: usize, number: &dyn Fn(&Row) -> Number) -> Vec<Series> {
        let ticks = self.ticks(axis);
        let mut all: Vec<Series> = Vec::new();
        for row in &self.rows {
            let Some(coordinate) = &row.coordinates[axis] else { continue };
            let x = match &ticks {
                Ticks::Numbers(_) => coordinate.number,
                Ticks::Names(names) => {
                    names.iter().position(|name| *name == coordinate.label).map(|place| place as f64)
                }
            };
            let others = row.coordinates.iter().enumerate().filter(|(other, _)| *other != axis);
            let parts: Vec<String> = others
                .filter_map(|(other, coordinate)| {
                    let label = &coordinate.as_ref()?.label;
                    let is_word = label.starts_with(|first: char| first.is_alphabetic());
                    let name = &self.config.axes[other].name;
                    Some(if is_word { label.clone() } else { format!("{name} {label}") })
                })
                .collect();
            let label = parts.join(", ");
            let found = number(row);
            let position = all.iter().position(|series| series.label == label).unwrap_or_else(|| {
                all.push(Series { label, points: Vec::new() });
                all.len() - 1
            });
            if let (Some(x), Some(_)) = (x, found.value) {
                all[position].points.push((x, found));
            }
        }
        all.iter_mut().for_each(|series| series.points.sort_by(|left, right| left.0.total_cmp(&right.0)));
        all
    }

    /// Points beside the grid: lines across the plot.
    fn references(&self, number: &dyn Fn(&Row) -> Number) -> Vec<(String, f64)> {
        let beside = self.rows.iter().filter(|row| row.coordinates.iter().all(Option::is_none));
        beside.filter_map(|row| Some((row.label.clone(), number(row).value?))).collect()
    }

    /// The fronts, and where all points stand beside them.
    pub fn fronts(&self) -> Vec<(Front, Vec<FrontPoint>)> {
        let wanted = match self.config.report.fronts.is_empty() {
            true => self.usual_fronts(),
            false => self.config.report.fronts.clone(),
        };
        let with_points = |front: Front| {
            let point = |row: &Row| {
                let (x, y) = (row.number(&front.x).value?, row.number(&front.y).value?);
                Some(FrontPoint { label: row.label.clone(), x, y, is_best: false })
            };
            let mut points: Vec<FrontPoint> = self.rows.iter().filter_map(point).collect();
            mark_front(&mut points, self.better(&front.x), self.better(&front.y));
            (points.len() > 1).then_some((front, points))
        };
        wanted.into_iter().filter_map(with_points).collect()
    }

    /// Fidelity against diversity for each direction; reconstruction against bits for tokenizers of different size.
    fn usual_fronts(&self) -> Vec<Front> {
        let mut fronts = Vec::new();
        for x in self.columns.iter().filter(|column| column.metric.starts_with("diversity")) {
            let of = x.of;
            let is_fidelity = |column: &&Column| match of {
                Some(Modality::Satellite) => column.candidate == Candidate::Cycle || column.of == of,
                _ => column.of == of && column.candidate == Candidate::Model,
            };
            fronts
                .extend(self.columns.iter().find(is_fidelity).map(|y| Front { x: x.clone(), y: y.clone() }));
        }
        if let Some(bits) = self.columns.iter().find(|column| column.of.is_none() && column.metric == BITS) {
            let reconstruction = self.columns.iter().filter(|column| column.metric.starts_with("PSNR"));
            fronts.extend(reconstruction.map(|y| Front { x: bits.clone(), y: y.clone() }));
        }
        fronts
    }
}

/// Marks the points that no other one dominates.
fn mark_front(points: &mut [FrontPoint], x: Better, y: Better) {
    let gain = |value: f64, better: Better| if better == Better::Lower { -value } else { value };
    let place = |point: &FrontPoint| (gain(point.x, x), gain(point.y, y));
    let places: Vec<(f64, f64)> = points.iter().map(place).collect();
    for (point, own) in points.iter_mut().zip(&places) {
        let dominates = |other: &(f64, f64)| other.0 >= own.0 && other.1 >= own.1 && other != own;
        point.is_best = !places.iter().any(dominates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_holds_what_nothing_dominates() {
        let point = |x, y| FrontPoint { label: String::new(), x, y, is_best: false };
        let mut points =
            [point(1.0, 5.0), point(2.0, 4.0), point(2.0, 3.0), point(0.5, 5.0), point(3.0, 1.0)];
        mark_front(&mut points, Better::Higher, Better::Higher);
        assert_eq!(points.each_ref().map(|point| point.is_best), [true, true, false, false, true]);
        // The fewer the better along x: only the point with the fewest of the highest y, and what is left of it.
        mark_front(&mut points, Better::Lower, Better::Higher);
        assert_eq!(points.each_ref().map(|point| point.is_best), [false, false, false, true, false]);
    }

    #[test]
    fn titles_become_names_of_files() {
        let title = "road F1, 2 px by τ and urban density".into();
        let figure = Figure { title, about: String::new(), svg: String::new() };
        assert_eq!(figure.file_name(), "road-f1-2-px-by-tau-and-urban-density.svg");
    }
}
