//! From a base and axes to points with all their settings.

use std::path::{Path, PathBuf};

use earthmapper::model::GenerationDefaults;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::{Axis, Overrides, SweepConfig, read_text, read_toml};
use super::error::SweepError;
use super::settings::Settings;

/// The tables that keys begin with.
const ROOTS: [&str; 3] = ["evaluate", "tokenizer", "transformer"];

/// A value of an axis at a point.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Coordinate {
    /// As tables show it.
    pub label: String,
    /// Where it stands on a numeric axis.
    pub number: Option<f64>,
}

/// A point with all its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its name in tables: that of its values, or its own.
    pub label: String,
    /// A value per axis; of a point beside the grid, none.
    pub coordinates: Vec<Option<Coordinate>>,
    /// Its settings.
    pub settings: Settings,
}

/// What a value of an axis does.
struct Step<'a> {
    coordinate: Coordinate,
    set: Vec<(&'a str, &'a Value)>,
    unset: &'a [String],
}

impl SweepConfig {
    /// All points: the grid, the last axis varying fastest, then those beside it. Reads the configurations of trainings and
    /// the models' own options of generation.
    ///
    /// # Errors
    /// [`SweepError::Config`] for a key or a value that cannot be, [`SweepError::Input`] for a file that cannot be read,
    /// [`SweepError::NoModel`].
    pub fn points(&self, file: &Path) -> Result<Vec<Point>, SweepError> {
        let wrong =
            |at: &str, problem: String| SweepError::Config { file: file.into(), at: at.into(), problem };
        let training = |path: &Option<PathBuf>| -> Result<Option<Value>, SweepError> {
            path.as_deref().map(read_toml::<Value>).transpose()
        };
        let mut base = Map::new();
        base.insert("evaluate".into(), Value::Object(self.evaluate.clone()));
        for (root, path) in [("tokenizer", &self.train.tokenizer), ("transformer", &self.train.transformer)] {
            base.extend(training(path)?.map(|table| (root.to_owned(), table)));
        }
        let resolve = |label: &str, steps: &[&Step]| -> Result<Settings, SweepError> {
            let common: Vec<(&str, &Value)> = pairs(&self.set);
            let all = || common.iter().chain(steps.iter().flat_map(|step| &step.set));
            let mut tree = base.clone();
            // Which model it is decides what its options of generation are, on which other keys act.
            let model = all().rev().find(|(key, _)| *key == "evaluate.model").map(|(_, model)| *model);
            let model = model.or_else(|| self.evaluate.get("model")).and_then(Value::as_str);
            complete_generation(&mut tree, model.map(Path::new), file)?;
            for (key, value) in all() {
                set(&mut tree, key, value).map_err(|problem| wrong(label, format!("{key}: {problem}")))?;
            }
            for key in steps.iter().flat_map(|step| step.unset) {
                unset(&mut tree, key).map_err(|problem| wrong(label, format!("{key}: {problem}")))?;
            }
            let settings =
                settings(tree).map_err(|(key, problem)| wrong(label, format!("{key}: {problem}")))?;
            settings.check().map_err(|(key, problem)| wrong(label, format!("{key}: {problem}")))?;
            Ok(settings)
        };
        let mut points = Vec::new();
        let axes: Vec<Vec<Step>> = self.axes.iter().map(Axis::steps).collect();
        for steps in product(&axes) {
            let of_axis = self.axes.iter().zip(&steps);
            let parts: Vec<String> = of_axis.map(|(axis, step)| step.named(axis)).collect();
            let label = parts.join(", ");
            let settings = resolve(&label, &steps)?;
            let coordinates = steps.iter().map(|step| Some(step.coordinate.clone())).collect();
            points.push(Point { label, coordinates, settings });
        }
        for point in &self.points {
            let coordinate = Coordinate { label: point.label.clone(), number: None };
            let step = Step { coordinate, set: pairs(&point.set), unset: &point.unset };
            let settings = resolve(&format!("point {}", point.label), &[&step])?;
            points.push(Point { label: point.label.clone(), coordinates: vec![None; axes.len()], settings });
        }
        if let Some(reference) = &self.report.reference
            && !points.iter().any(|point| point.label == *reference)
        {
            let labels: Vec<&str> = points.iter().map(|point| point.label.as_str()).collect();
            let problem = format!("{reference:?} is no point; name one of {}", labels.join("; "));
            return Err(wrong("report.reference", problem));
        }
        Ok(points)
    }
}

impl Axis {
    fn steps(&self) -> Vec<Step<'_>> {
        let keys: Vec<&str> = self.key.iter().chain(&self.keys).map(String::as_str).collect();
        let plain = self.values.iter().map(|value| Step {
            coordinate: Coordinate { label: words(value), number: value.as_f64() },
            set: keys.iter().map(|&key| (key, value)).collect(),
            unset: &[],
        });
        let named = self.named.iter().map(|value| Step {
            coordinate: Coordinate {
                label: value.label.clone(),
                number: value.number.or_else(|| value.label.parse().ok()),
            },
            set: pairs(&value.set),
            unset: &value.unset,
        });
        plain.chain(named).collect()
    }
}

impl Step<'_> {
    /// Its part of a point's name: a number needs its axis beside it, a word speaks for itself.
    fn named(&self, axis: &Axis) -> String {
        match self.coordinate.label.starts_with(|first: char| first.is_alphabetic()) {
            true => self.coordinate.label.clone(),
            false => format!("{} {}", axis.name, self.coordinate.label),
        }
    }
}

fn pairs(overrides: &Overrides) -> Vec<(&str, &Value)> {
    overrides.iter().map(|(key, value)| (key.as_str(), value)).collect()
}

/// Every choice of one step per axis, the last axis varying fastest; none without axes.
fn product<'a>(axes: &'a [Vec<Step<'a>>]) -> Vec<Vec<&'a Step<'a>>> {
    if axes.is_empty() {
        return Vec::new();
    }
    axes.iter().fold(vec![Vec::new()], |all, axis| {
        let with = |chosen: &Vec<&'a Step<'a>>, step: &'a Step<'a>| [&chosen[..], &[step]].concat();
        all.iter().flat_map(|chosen| axis.iter().map(move |step| with(chosen, step))).collect()
    })
}

/// A value in a few words.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(" "),
        Value::Object(table) => {
            table.iter().map(|(key, value)| format!("{key} {}", words(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// Lays the base's options of generation over those of the model, so that keys inside them can be set. An option is
/// replaced as a whole, but those of the sampler one by one.
fn complete_generation(
    tree: &mut Map<String, Value>,
    model: Option<&Path>,
    file: &Path,
) -> Result<(), SweepError> {
    let defaults = match model {
        Some(model) => own_generation(model, file)?,
        None => GenerationDefaults::default(),
    };
    // By way of text, which writes 32-bit numbers as 0.55 rather than 0.550000011920929.
    let text = serde_json::to_string(&defaults).expect("plain data");
    let mut complete: Map<String, Value> = serde_json::from_str(&text).expect("what was just written");
    let Some(Value::Object(evaluate)) = tree.get_mut("evaluate") else { return Ok(()) };
    match evaluate.remove("generation") {
        Some(Value::Object(given)) => {
            for (direction, given) in given {
                match (complete.get_mut(&direction), given) {
                    (Some(Value::Object(complete)), Value::Object(given)) => {
                        for (option, value) in given {
                            match (complete.get_mut(&option), value) {
                                (Some(Value::Object(sampler)), Value::Object(given))
                                    if option == "sampler" =>
                                {
                                    sampler.extend(given);
                                }
                                (_, value) => drop(complete.insert(option, value)),
                            }
                        }
                    }
                    // Of a wrong name or kind; reading the settings says so.
                    (_, given) => drop(complete.insert(direction, given)),
                }
            }
        }
        Some(other) => {
            evaluate.insert("generation".into(), other);
            return Ok(());
        }
        None => {}
    }
    evaluate.insert("generation".into(), Value::Object(complete));
    Ok(())
}

/// The options in a model's folder.
fn own_generation(model: &Path, file: &Path) -> Result<GenerationDefaults, SweepError> {
    if !model.join("config.json").is_file() {
        return Err(SweepError::NoModel { file: file.into(), model: model.into() });
    }
    let path = model.join("generation.json");
    if !path.is_file() {
        return Ok(GenerationDefaults::default());
    }
    serde_json::from_str(&read_text(&path)?)
        .map_err(|error| SweepError::Input { path, problem: format!("{error}; give a whole model folder") })
}

/// The table that a key's last part is in, and that part.
fn table_of<'a, 'k>(
    tree: &'a mut Map<String, Value>,
    key: &'k str,
) -> Result<(&'a mut Map<String, Value>, &'k str), String> {
    let parts: Vec<&str> = key.split('.').collect();
    let [root, inner @ .., last] = &parts[..] else {
        return Err(format!("is no key; begin it with {}", ROOTS.join(", ")));
    };
    if !ROOTS.contains(root) {
        return Err(format!("begins with {root}; keys begin with {}", ROOTS.join(", ")));
    }
    let Some(mut table) = tree.get_mut(*root).and_then(Value::as_object_mut) else {
        return Err(format!("there is no {root}; name its configuration in [train]"));
    };
    for part in inner {
        let name = match (*part, table.len()) {
            ("*", 1) => table.keys().next().expect("one").clone(),
            ("*", count) => {
                return Err(format!("* stands for the only key of a table, and this one has {count}"));
            }
            (part, _) => part.to_owned(),
        };
        let entry = table.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
        if !entry.is_object() {
            return Err(format!("{name} is {entry}, which holds no keys; set it as a whole first"));
        }
        table = entry.as_object_mut().expect("it was looked at");
    }
    Ok((table, last))
}

fn set(tree: &mut Map<String, Value>, key: &str, value: &Value) -> Result<(), String> {
    let (table, last) = table_of(tree, key)?;
    table.insert(last.to_owned(), value.clone());
    Ok(())
}

fn unset(tree: &mut Map<String, Value>, key: &str) -> Result<(), String> {
    let (table, last) = table_of(tree, key)?;
    match table.remove(last) {
        Some(_) => Ok(()),
        None => Err("is not set, so it cannot be taken away; leave it out".into()),
    }
}

/// Reads the settings, root by root, so that an error says where.
fn settings(mut tree: Map<String, Value>) -> Result<Settings, (&'static str, String)> {
    fn read<T: for<'de> Deserialize<'de>>(
        root: &'static str,
        value: Value,
    ) -> Result<T, (&'static str, String)> {
        serde_json::from_value(value).map_err(|error| (root, error.to_string()))
    }
    let evaluate = read("evaluate", tree.remove("evaluate").unwrap_or_default())?;
    let tokenizer = tree.remove("tokenizer").map(|value| read("tokenizer", value)).transpose()?;
    let transformer = tree.remove("transformer").map(|value| read("transformer", value)).transpose()?;
    Ok(Settings { evaluate, tokenizer, transformer })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tree(value: Value) -> Map<String, Value> {
        let Value::Object(tree) = value else { panic!("a table") };
        tree
    }

    #[test]
    fn keys_reach_into_tables() {
        let mut tree = tree(json!({"evaluate": {"a": {"attract": {"tau": 0.5, "strength": 1}}, "b": "off"}}));
        set(&mut tree, "evaluate.a.*.tau", &json!(0.9)).unwrap();
        set(&mut tree, "evaluate.c.d", &json!([1, 2])).unwrap();
        assert_eq!(
            Value::Object(tree.clone()),
            json!({"evaluate": {"a": {"attract": {"tau": 0.9, "strength": 1}}, "b": "off", "c": {"d": [1, 2]}}})
        );
        unset(&mut tree, "evaluate.c.d").unwrap();
        for (key, words) in [
            ("evaluate.b.tau", "b is \"off\", which holds no keys"),
            ("evaluate.a.attract.*.tau", "this one has 2"),
            ("tokenizer.steps", "there is no tokenizer; name its configuration in [train]"),
            ("steps", "begin it with evaluate, tokenizer, transformer"),
            ("evaluation.steps", "begins with evaluation"),
        ] {
            let problem = set(&mut tree, key, &json!(1)).unwrap_err();
            assert!(problem.contains(words), "{key}: {problem}");
        }
        assert!(unset(&mut tree, "evaluate.c.d").unwrap_err().contains("leave it out"));
    }

    #[test]
    fn values_are_said_in_words() {
        assert_eq!(words(&json!([1, 4, 16])), "1 4 16");
        assert_eq!(words(&json!({"ramp": 2.0})), "ramp 2.0");
        assert_eq!(words(&json!("off")), "off");
    }
}
