//! Points as tables: Markdown, CSV, JSON.

use serde_json::{Value, json};

use super::{Results, Row, WithoutNearest};
use crate::evaluate::Candidate;
use crate::evaluate::report::table::markdown;
use crate::evaluate::score::Number;
use crate::sweep::Coordinate;
use crate::sweep::columns::Column;
use crate::sweep::groups::Group;
use crate::sweep::record::Record;

/// What a difference's interval is.
pub(super) const ABOUT_DIFFERENCES: &str =
    "Pair by pair: the interval is that of the difference, both being drawn together.";

/// What any point must be seen beside.
const BASELINES: [(Candidate, &str); 3] = [
    (Candidate::Blank, "(blank picture)"),
    (Candidate::Nearest, "(nearest training pair)"),
    (Candidate::Ceiling, "(tokenizer's ceiling)"),
];

/// A baseline: whose numbers, its name, and the numbers that are the same for all points.
type Baseline = (Candidate, &'static str, Vec<Option<Number>>);

/// The number of another candidate in a column; none in a column of facts.
fn instead(candidate: Candidate, column: &Column) -> Option<Column> {
    column.of.is_some().then(|| Column { candidate, ..column.clone() })
}

impl Results {
    /// The cells that say which point it is: a value per axis, or a name.
    fn names(&self, row: &Row) -> Vec<String> {
        if self.config.axes.is_empty() {
            return vec![row.label.clone()];
        }
        let cell = |(axis, coordinate): (usize, &Option<_>)| match coordinate {
            Some(Coordinate { label, .. }) => label.clone(),
            None if axis == 0 => row.label.clone(),
            None => "–".into(),
        };
        row.coordinates.iter().enumerate().map(cell).collect()
    }

    fn name_headings(&self) -> Vec<String> {
        match self.config.axes.is_empty() {
            true => vec!["point".into()],
            false => self.config.axes.iter().map(|axis| axis.name.clone()).collect(),
        }
    }

    /// The cells of the table over all pairs, head first.
    pub(super) fn cells(&self) -> Vec<Vec<String>> {
        let mut head = self.name_headings();
        head.extend(self.columns.iter().map(|column| column.heading().to_owned()));
        let mut cells = vec![head];
        for row in &self.rows {
            let mut line = self.names(row);
            match &row.failure {
                Some(failure) => line.push(format!("failed: {failure}")),
                None if row.is_left() => line.push("not done".into()),
                None => {
                    line.extend(self.columns.iter().map(|column| row.number(column).text(column.digits())))
                }
            }
            line.resize(cells[0].len(), String::new());
            cells.push(line);
        }
        let digits: Vec<usize> = self.columns.iter().map(Column::digits).collect();
        cells.extend(self.baseline_lines(&self.baselines(), &digits));
        cells
    }

    /// The baselines of the table over all pairs.
    fn baselines(&self) -> Vec<Baseline> {
        self.baselines_of(self.columns.len(), &|record, candidate, place| {
            instead(candidate, &self.columns[place])
                .map_or_else(Number::default, |column| record.number(&column))
        })
    }

    /// The baselines with a number at some of `count` places. Only numbers that are the same for all points, as they are for
    /// the same pairs and the same tokenizer.
    fn baselines_of(
        &self,
        count: usize,
        number: &dyn Fn(&Record, Candidate, usize) -> Number,
    ) -> Vec<Baseline> {
        let same = |candidate: Candidate, place: usize| {
            let records = self.rows.iter().filter_map(|row| row.record.as_ref());
            let mut all = records.map(|record| number(record, candidate, place));
            let first = all.next()?;
            all.all(|other| other == first).then_some(first).filter(|number| number.value.is_some())
        };
        BASELINES
            .into_iter()
            .filter(|(candidate, _)| !self.is_measured(*candidate))
            .map(|(candidate, name)| {
                (candidate, name, (0..count).map(|place| same(candidate, place)).collect())
            })
            .filter(|(_, _, numbers): &Baseline| numbers.iter().any(Option::is_some))
            .collect()
    }

    /// Whether the points themselves are about a candidate, which then is no baseline of theirs.
    fn is_measured(&self, candidate: Candidate) -> bool {
        self.columns.iter().any(|column| column.candidate == candidate)
    }

    /// Baselines as lines of a table.
    fn baseline_lines(&self, baselines: &[Baseline], digits: &[usize]) -> Vec<Vec<String>> {
        let line = |(_, name, numbers): &Baseline| {
            let mut line = vec![(*name).to_owned()];
            line.resize(self.name_headings().len(), "–".into());
            let text = |(number, digits): (&Option<Number>, &usize)| {
                number.map_or_else(String::new, |number| number.text(*digits))
            };
            line.extend(numbers.iter().zip(digits).map(text));
            line
        };
        baselines.iter().map(line).collect()
    }

    /// The cells of the table of differences from the point of reference, if there is one.
    pub(super) fn cells_of_differences(&self) -> Option<(&str, Vec<Vec<String>>)> {
        let label = self.config.report.reference.as_deref()?;
        let reference = self.rows.iter().find(|row| row.label == label)?.record.as_ref()?;
        let columns: Vec<&Column> = self
            .columns
            .iter()
            .filter(|column| reference.difference(reference, column).value.is_some())
            .collect();
        let mut head = self.name_headings();
        head.extend(columns.iter().map(|column| column.heading().to_owned()));
        let mut cells = vec![head];
        for row in self.rows.iter().filter(|row| row.label != label) {
            let Some(record) = &row.record else { continue };
            let mut line = self.names(row);
            let text = |column: &&Column| record.difference(reference, column).text(column.digits());
            line.extend(columns.iter().map(text));
            cells.push(line);
        }
        let baselines = self.baselines_of(columns.len(), &|record, candidate, place| {
            let own = instead(candidate, columns[place]);
            own.map_or_else(Number::default, |own| record.difference_of(&own, reference, columns[place]))
        });
        let digits: Vec<usize> = columns.iter().map(|column| column.digits()).collect();
        cells.extend(self.baseline_lines(&baselines, &digits));
        Some((label, cells))
    }

    /// The columns that have a value of every picture, which groups need.
    pub(super) fn grouped_columns(&self) -> Vec<&Column> {
        let Some(groups) = &self.groups else { return Vec::new() };
        let has = |column: &&Column| {
            let mut records = self.rows.iter().filter_map(|row| row.record.as_ref());
            records.any(|record| {
                groups.iter().any(|group| record.number_of_group(column, group).value.is_some())
            })
        };
        self.columns.iter().filter(has).collect()
    }

    /// The cells of the table of a column by urban density.
    pub(super) fn cells_by_density(&self, column: &Column, groups: &[Group]) -> Vec<Vec<String>> {
        let mut head = self.name_headings();
        head.extend(groups.iter().map(|group| group.name.to_owned()));
        let mut cells = vec![head];
        for row in &self.rows {
            let Some(record) = &row.record else { continue };
            let mut line = self.names(row);
            let number = |group| record.number_of_group(column, group).text(column.digits());
            line.extend(groups.iter().map(number));
            cells.push(line);
        }
        let baselines = self.baselines_of(groups.len(), &|record, candidate, place| {
            let column = instead(candidate, column);
            column.map_or_else(Number::default, |column| record.number_of_group(&column, &groups[place]))
        });
        cells.extend(self.baseline_lines(&baselines, &vec![column.digits(); groups.len()]));
        cells
    }

    /// What was measured on, and what is missing: a line each.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let left = self.rows.iter().filter(|row| row.is_left()).count();
        if left > 0 {
            notes
                .push(format!("{left} of {} points are not done; the same command goes on", self.rows.len()));
        }
        let records = || self.rows.iter().filter_map(|row| row.record.as_ref());
        if let Some(record) = records().next() {
            let [first, last] = &record.evaluation.names;
            let same = records().all(|other| other.measured.names == record.measured.names);
            notes.push(match same {
                true => format!("{} pairs, {first} to {last}, per point", record.evaluation.pairs),
                false => "the points are about different pairs".into(),
            });
            let sampled = record.settings.evaluate.diversity_pictures.min(record.evaluation.pairs);
            if sampled > 0 && self.columns.iter().any(|column| column.metric.starts_with("diversity")) {
                notes.push(format!(
                    "diversity: mean difference between three more samples of {sampled} pairs"
                ));
            }
        }
        notes.push("in brackets: 95 % bootstrap intervals over pictures".into());
        let mut missing: Vec<String> = Vec::new();
        for found in records().flat_map(|record| &record.evaluation.sections).flat_map(|s| &s.not_computed) {
            // The cures name flags of `evaluate`; here they are keys of the same names.
            let cure = found.cure.replace("by --lpips FILE", "as evaluate.lpips");
            let cure = cure.replace("by --inception FILE", "as evaluate.inception");
            let note = format!("{}: not computed; {cure}", found.what);
            // Of the nearest training pair see below.
            if !missing.contains(&note) && !found.cure.contains("--training") {
                missing.push(note);
            }
        }
        notes.extend(missing);
        let cure = match &self.without_nearest {
            None => None,
            Some(WithoutNearest::NotNamed) => {
                Some("not computed; give evaluate.training, the pairs that were learned from".to_owned())
            }
            Some(WithoutNearest::Failed(problem)) => Some(format!("not computed; {problem}")),
            Some(WithoutNearest::NotDone) => Some("not computed yet; the same command goes on".to_owned()),
        };
        notes.extend(cure.map(|cure| format!("nearest training pair: {cure}")));
        let shown = self.baselines();
        for (candidate, name) in BASELINES.into_iter().filter(|(candidate, _)| !self.is_measured(*candidate))
        {
            let is_there = |record: &Record| {
                let mut columns = self.columns.iter().filter_map(|column| instead(candidate, column));
                columns.any(|column| record.number(&column).value.is_some())
            };
            if !shown.iter().any(|(found, ..)| *found == candidate) && records().any(is_there) {
                let name = name.trim_matches(['(', ')']);
                notes.push(format!("{name}: not the same for all points; sweep.csv has it of each"));
            }
        }
        for column in &self.columns {
            if self.rows.iter().any(|row| row.record.is_some())
                && self.rows.iter().all(|row| row.number(column).value.is_none())
            {
                notes.push(format!("{}: no point has this number", column.heading()));
            }
        }
        notes
    }

    /// What the groups are.
    pub(super) fn about_groups(groups: &[Group]) -> String {
        let range = |group: &Group| {
            let [low, high] = group.range.map(|share| 100.0 * share);
            format!("{} {low:.1} % to {high:.1} % ({} pairs)", group.name, group.names.len())
        };
        let ranges: Vec<String> = groups.iter().map(range).collect();
        format!("Terciles of the share of urban pixels in the true map: {}.", ranges.join(", "))
    }

    /// The tables as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n", self.config.title);
        if !self.config.about.is_empty() {
            text += &format!("{}\n\n", self.config.about.trim());
        }
        text += &markdown(&self.cells());
        text += "\n";
        self.notes().iter().for_each(|note| text += &format!("- {note}\n"));
        if let Some((label, cells)) = self.cells_of_differences() {
            text += &format!("\n## Difference from: {label}\n\n{ABOUT_DIFFERENCES}\n\n{}", markdown(&cells));
        }
        if let Some(groups) = &self.groups {
            text += &format!("\n## By urban density\n\n{}\n", Self::about_groups(groups));
            for column in self.grouped_columns() {
                let cells = self.cells_by_density(column, groups);
                text += &format!("\n### {}\n\n{}", column.heading(), markdown(&cells));
            }
        }
        let fronts = self.fronts();
        if !fronts.is_empty() {
            text += "\n## Fronts\n\n";
            for (front, points) in fronts {
                let on: Vec<&str> =
                    points.iter().filter(|point| point.is_best).map(|point| point.label.as_str()).collect();
                text +=
                    &format!("- {} against {}: {}\n", front.y.heading(), front.x.heading(), on.join("; "));
            }
        }
        text
    }

    /// Every metric of every candidate, a line per number.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut write = |record: Vec<String>| writer.write_record(record).expect("memory takes every record");
        let mut head = vec!["point".to_owned()];
        head.extend(self.config.axes.iter().map(|axis| axis.name.clone()));
        head.extend(["target", "candidate", "metric", "pairs", "value", "low", "high"].map(String::from));
        write(head);
        let text = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
        for row in &self.rows {
            let mut start = vec![row.label.clone()];
            let label = |c: &Option<Coordinate>| c.as_ref().map_or_else(String::new, |c| c.label.clone());
            start.extend(row.coordinates.iter().map(label));
            let mut line = |of: [&str; 4], number: Number| {
                let [low, high] = number.interval.map_or([None; 2], |ends| ends.map(Some));
                let numbers = [text(number.value), text(low), text(high)];
                write(start.iter().cloned().chain(of.map(String::from)).chain(numbers).collect());
            };
            let Some(record) = &row.record else {
                let state = if row.is_left() { "not done" } else { "failed" };
                line(["", "", state, ""], Number::default());
                continue;
            };
            for section in &record.evaluation.sections {
                let target = section.target.to_string();
                for found in &section.rows {
                    for (candidate, number) in &found.numbers {
                        let candidate_name = candidate.to_string();
                        let of = [target.as_str(), &candidate_name, &found.metric.name];
                        line([of[0], of[1], of[2], "all"], *number);
                        let column = Column::new(section.target, *candidate, &found.metric.name, "");
                        for group in self.groups.iter().flatten() {
                            let number = record.number_of_group(&column, group);
                            if number.value.is_some() {
                                line([of[0], of[1], of[2], group.name], number);
                            }
                        }
                    }
                }
            }
            for (name, &value) in &record.facts {
                let number = Number { value: Some(value), ..Default::default() };
                line(["", "", name, "all"], number);
            }
        }
        String::from_utf8(writer.into_inner().expect("memory takes every record")).expect("texts")
    }

    /// Every point with the numbers of the tables.
    pub fn json(&self) -> String {
        let groups = self.groups.as_deref().unwrap_or_default();
        let numbers = |row: &Row| -> Vec<Value> {
            let Some(record) = &row.record else { return Vec::new() };
            self.columns
                .iter()
                .map(|column| {
                    let by_density: serde_json::Map<String, Value> = groups
                        .iter()
                        .map(|group| (group.name.to_owned(), json!(record.number_of_group(column, group))))
                        .collect();
                    json!({ "column": column.heading(), "number": row.number(column), "by_density": by_density })
                })
                .collect()
        };
        let point = |row: &Row| {
            json!({
                "label": row.label,
                "coordinates": row.coordinates,
                "key": row.key,
                "done": row.record.is_some(),
                "failure": row.failure,
                "seconds": row.record.as_ref().map(|record| record.seconds),
                "numbers": numbers(row),
            })
        };
        let baseline = |(candidate, _, numbers): Baseline| {
            let number = |(column, number): (&Column, Option<Number>)| json!({ "column": column.heading(), "number": number.unwrap_or_default() });
            let numbers: Vec<Value> = self.columns.iter().zip(numbers).map(number).collect();
            json!({ "candidate": candidate, "numbers": numbers })
        };
        let group = |group: &Group| json!({ "name": group.name, "range": group.range, "pairs": group.names });
        let value = json!({
            "format": 1,
            "title": self.config.title,
            "axes": self.config.axes.iter().map(|axis| &axis.name).collect::<Vec<_>>(),
            "columns": self.columns,
            "points": self.rows.iter().map(point).collect::<Vec<_>>(),
            "baselines": self.baselines().into_iter().map(baseline).collect::<Vec<_>>(),
            "density": groups.iter().map(group).collect::<Vec<_>>(),
            "notes": self.notes(),
        });
        serde_json::to_string_pretty(&value).expect("plain data") + "\n"
    }
}
