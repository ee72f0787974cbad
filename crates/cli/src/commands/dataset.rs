//! `dataset`: pairs for training out of rasters, tiles and vector data.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result};
use earthmapper_geo::atomic_write;
use earthmapper_geo::dataset::{self, DatasetError, MakeOptions, SplitOptions};
use earthmapper_geo::store::Existing;
use earthmapper_lab::progress::Progress;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::exit::{BadInput, Interrupted};
use crate::settings::{Output, interrupt, print};

/// Make, check and split data sets of pairs
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Cut imagery and its map into pairs
    ///
    /// The configuration (TOML) names the sources, filters and split; its keys are described in docs/formats.md. Maps are rasters, tiles, or vector data that are drawn: GeoJSON, OpenStreetMap's .pbf, vector PMTiles.
    Make {
        /// The folder to make.
        output: PathBuf,
        /// The configuration.
        #[arg(short, long, value_name = "FILE", env = "EARTHMAPPER_CONFIG")]
        config: PathBuf,
        /// Go on where an interrupted run stopped.
        #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_RESUME")]
        resume: bool,
    },
    /// Hold a manifest against its files; exit code 3 when something is wrong
    Check {
        /// The data set.
        dataset: PathBuf,
    },
    /// Write what a data set holds as one page of HTML
    Stats {
        /// The data set.
        dataset: PathBuf,
        /// The page to write.
        output: PathBuf,
        /// Replace a page that exists.
        #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_OVERWRITE")]
        overwrite: bool,
    },
    /// Split a data set anew, by blocks of ground with a buffer between
    Split {
        /// The data set.
        dataset: PathBuf,
        /// The keys of [split] in a file (TOML) [default: a tenth each for validation and test].
        #[arg(short, long, value_name = "FILE", env = "EARTHMAPPER_CONFIG")]
        config: Option<PathBuf>,
        /// Another seed gives other blocks.
        #[arg(long, env = "EARTHMAPPER_SEED")]
        seed: Option<u64>,
    },
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    let interrupt = interrupt()?;
    let mut bar: Option<Progress> = None;
    let mut before = 0;
    let mut progress = |now: dataset::Progress| {
        let bar = bar.get_or_insert_with(|| {
            before = now.done;
            Progress::start(output.progress(), "pairs", now.done as u64, now.total as u64)
        });
        bar.update(now.done as u64, (now.done - before) as u64, None);
        before = now.done;
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match args.command {
        Command::Make { output: folder, config, resume } => {
            let options: MakeOptions = read(&config)?;
            let existing = if resume { Existing::Continue } else { Existing::Refuse };
            let report = dataset::make(&folder, &options, &dataset::drawn_maps, existing, &mut progress)
                .map_err(stopped)?;
            let rules: Vec<String> =
                report.rules.iter().map(|(rule, count)| format!("{} {count}", rule.name())).collect();
            let text = format!(
                "{}: {} of {} squares kept ({} unreadable); left out: {}",
                folder.display(),
                report.kept,
                report.candidates,
                report.unreadable,
                rules.join(", ")
            );
            output.result(&text, json!({ "outputs": [folder], "report": report }))
        }
        Command::Check { dataset } => {
            let problems = dataset::check(&dataset, &mut progress).map_err(stopped)?;
            if problems.is_empty() {
                let text = format!("{}: nothing is wrong", dataset.display());
                return output.result(&text, json!({ "problems": [] }));
            }
            match output.json {
                true => {
                    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    print(&format!("{}\n", json!({ "problems": problems })))?;
                }
                false => problems.iter().try_for_each(|problem| print(&format!("{problem}\n")))?,
            }
            let text = format!("{}: {} problems, listed on stdout", dataset.display(), problems.len());
            Err(BadInput(text).into())
        }
        Command::Stats { dataset, output: page, overwrite } => {
            earthmapper_geo::check_output(&page, overwrite)?;
            let stats = dataset::stats(&dataset, &mut progress).map_err(stopped)?;
            atomic_write(&page, stats.html().as_bytes(), overwrite)?;
            output.outputs(&[page], false, json!({}))
        }
        Command::Split { dataset, config, seed } => {
            let mut options: SplitOptions = match &config {
                Some(config) => read(config)?,
                None => SplitOptions::default(),
            };
            options.seed = seed.unwrap_or(options.seed);
            let assignment = dataset::split_dataset(&dataset, &options)?;
            let count = |split| assignment.splits.iter().filter(|found| **found == split).count();
            let counts: Vec<(&str, usize)> =
                dataset::Split::ALL.iter().map(|split| (split.name(), count(Some(*split)))).collect();
            let text: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let json = json!({
                "splits": counts.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                "between": count(None),
            });
            output.result(&format!("{}, between splits {}", text.join(", "), count(None)), json)
        }
    }
}

/// A configuration out of a TOML file.
fn read<T: DeserializeOwned>(path: &PathBuf) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()));
    let text = text.map_err(|error| BadInput(crate::exit::line(&error)))?;
    let options = toml::from_str(&text).map_err(|error| {
        let error = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        BadInput(format!("{}: {error}; see docs/formats.md", path.display()))
    })?;
    Ok(options)
}

/// An interruption is told by its own exit code.
fn stopped(error: DatasetError) -> anyhow::Error {
    match error {
        DatasetError::Interrupted { .. } => Interrupted("pairs so far are kept, go on with --resume").into(),
        error => error.into(),
    }
}
