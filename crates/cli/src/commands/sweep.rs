//! `sweep`: many points of one question, each computed once, with tables and plots.

use std::path::PathBuf;

use anyhow::Result;
use clap::builder::BoolishValueParser;
use earthmapper_lab::sweep::{Basis, Estimate, Plan, SweepConfig, SweepError, SweepOptions};
use serde_json::{Value, json};

use crate::exit::Usage;
use crate::settings::{Output, interrupt};

/// Train and measure many variants, compare them in tables and plots
///
/// The file names a base and axes (docs/formats.md); configs/sweeps has some. Every point is kept by what it depends on: the same
/// command goes on where it was stopped, and computes only what is new after a change.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The sweep, a TOML file.
    #[arg(short, long, value_name = "FILE", env = "EARTHMAPPER_CONFIG")]
    config: PathBuf,
    /// Folder for tables, plots, points and trainings; those that are there are taken up.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_OUT")]
    out: PathBuf,
    /// Override a setting of every point, such as evaluate.pairs.limit=8; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", env = "EARTHMAPPER_SET")]
    set: Vec<String>,
    /// cpu, cuda, cuda:N, vulkan, metal or auto.
    #[arg(long, default_value = "cpu", env = "EARTHMAPPER_DEVICE")]
    device: String,
    /// List the points, which of them are done, and how long the others may take; keep nothing.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "EARTHMAPPER_DRY_RUN")]
    dry_run: bool,
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    let mut config = SweepConfig::read(&args.config)?;
    for text in &args.set {
        let (key, value) = assignment(text)?;
        config.set.insert(key, value);
    }
    let options = SweepOptions {
        out: args.out,
        device: earthmapper::device::device(&args.device)?,
        device_name: args.device,
        progress: output.progress(),
        interrupt: if args.dry_run { Default::default() } else { interrupt()? },
    };
    let plan = Plan::new(config, &args.config, &options)?;
    if args.dry_run {
        return list(&plan, &options, output);
    }
    let results = plan.run(&options)?;
    // By way of the text, which writes 32-bit options as 0.55 rather than 0.550000011920929.
    output.result(results.markdown().trim_end(), serde_json::from_str(&results.json())?)?;
    let done = results.rows.iter().filter(|row| row.record.is_some()).count();
    match results.failure() {
        None => Ok(()),
        Some(failure) if done > 0 => Err(failure.into()),
        // Nothing came out, so nothing is partly done.
        Some(failure) => Err(anyhow::anyhow!("{failure}")),
    }
}

/// A key and its value: TOML, or text where that is none.
fn assignment(text: &str) -> Result<(String, Value)> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(Usage(format!("--set {text}: write KEY=VALUE, such as evaluate.pairs.limit=8")).into());
    };
    let parsed: Option<toml::Table> = format!("value = {value}").parse().ok();
    let value = match parsed.and_then(|mut table| table.remove("value")) {
        Some(value) => serde_json::to_value(value)?,
        None => Value::String(value.to_owned()),
    };
    Ok((key.trim().to_owned(), value))
}

/// What a run would do.
fn list(plan: &Plan, options: &SweepOptions, output: &Output) -> Result<()> {
    let mut estimate = plan.estimate(options);
    if let Err(error) = plan.try_a_pair(&mut estimate, options) {
        tracing::warn!("a pair cannot be measured, so the time is unknown: {error}");
    }
    let mut text = String::new();
    for planned in &plan.points {
        let state = if planned.record.is_some() { "done" } else { "to do" };
        text += &format!("{state:5}  {}\n", planned.point.label);
    }
    let left = plan.points.len() - plan.done();
    text += &format!("{} points, {} done, {left} to do; {}", plan.points.len(), plan.done(), time(&estimate));
    let points: Vec<Value> = plan
        .points
        .iter()
        .map(|planned| {
            let folder = options.point(&planned.keys);
            json!({ "label": planned.point.label, "done": planned.record.is_some(), "folder": folder })
        })
        .collect();
    let seconds = json!({
        "evaluations": estimate.evaluations, "judged_by": estimate.basis.as_ref().map(basis),
        "trainings": estimate.trainings, "training": estimate.training,
    });
    output.result(&text, json!({ "points": points, "done": plan.done(), "seconds": seconds }))
}

fn time(estimate: &Estimate) -> String {
    let minutes = |seconds: Option<f64>, what: &str| match seconds {
        Some(seconds) if seconds < 90.0 => format!("about {seconds:.0} s"),
        Some(seconds) => format!("about {:.0} min", seconds / 60.0),
        None => format!("unknown until a {what} is done"),
    };
    let mut text = format!("time to measure: {}", minutes(estimate.evaluations, "point"));
    if let Some(found) = &estimate.basis {
        text += &format!(", judged by {}", basis(found));
    }
    if estimate.trainings > 0 {
        let training = minutes(estimate.training, "training");
        text += &format!("; for {} trainings: {training}", estimate.trainings);
    }
    text
}

/// What an estimate rests on, in words.
fn basis(found: &Basis) -> String {
    match found {
        Basis::Points(1) => "one point that is done".into(),
        Basis::Points(count) => format!("{count} points that are done"),
        Basis::Pair { point, seconds } => format!("one pair of {point}, measured now in {seconds:.1} s"),
    }
}

/// The exit code of a sweep that failed.
pub fn code(error: &SweepError) -> Option<i32> {
    use crate::exit;
    match error {
        SweepError::Config { .. } | SweepError::Input { .. } | SweepError::Weights(_) => {
            Some(exit::BAD_INPUT)
        }
        SweepError::NoModel { .. } => Some(exit::MODEL),
        SweepError::Pairs(error) => Some(exit::pairs(error)),
        SweepError::Interrupted { .. } => Some(exit::INTERRUPTED),
        SweepError::SomeFailed { .. } | SweepError::Baselines { .. } => Some(exit::PARTLY),
        SweepError::Foreign { .. } | SweepError::Run(_) | SweepError::Write(_) => Some(exit::FAILURE),
    }
}
