//! `train`: the tokenizer, then the transformer.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use earthmapper_lab::session::{Outcome, Session, Start};
use earthmapper_lab::train::TransformerTraining;
use earthmapper_lab::train_tokenizer::TokenizerTraining;

use crate::exit::{BadInput, Interrupted};
use crate::settings::{Output, interrupt, print, say};

/// Train on pairs of your own
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Train the tokenizer
    Tokenizer(Args),
    /// Train the transformer on a trained tokenizer
    Transformer(TransformerArgs),
}

/// Where a training runs.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The configuration, a TOML file.
    #[arg(short, long, value_name = "FILE", env = "EARTHMAPPER_CONFIG")]
    config: PathBuf,
    /// The run folder.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_RUN")]
    run: PathBuf,
    /// Go on from the last checkpoint.
    #[arg(long, conflicts_with = "overwrite", value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_RESUME")]
    resume: bool,
    /// Replace a run that is there.
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_OVERWRITE")]
    overwrite: bool,
    /// cpu, cuda, cuda:N, vulkan, metal or auto.
    #[arg(long, default_value = "cpu", env = "EARTHMAPPER_DEVICE")]
    device: String,
    /// Check the configuration and print it with all its defaults; train nothing.
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_DRY_RUN")]
    dry_run: bool,
}

/// The same, and where the weights start.
#[derive(clap::Args, Debug)]
pub struct TransformerArgs {
    #[command(flatten)]
    args: Args,
    /// Start from the weights of a model.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_FROM")]
    from: Option<PathBuf>,
}

pub fn run(command: Command, output: &Output) -> Result<()> {
    let outcome = match command {
        Command::Tokenizer(args) => {
            let config: TokenizerTraining = read_config(&args.config)?;
            if args.dry_run {
                return show(&config, output);
            }
            earthmapper_lab::train_tokenizer::train(&config, &args.session(output)?)?
        }
        Command::Transformer(TransformerArgs { args, from }) => {
            let mut config: TransformerTraining = read_config(&args.config)?;
            config.from = from.or(config.from);
            if args.dry_run {
                return show(&config, output);
            }
            earthmapper_lab::train::train(&config, &args.session(output)?)?
        }
    };
    match outcome {
        Outcome::Finished => Ok(()),
        Outcome::Interrupted => Err(Interrupted("a checkpoint is written, go on with --resume").into()),
    }
}

impl Args {
    fn session(&self, output: &Output) -> Result<Session> {
        let device = earthmapper::device::device(&self.device)?;
        Ok(Session {
            folder: self.run.clone(),
            device,
            device_name: self.device.clone(),
            start: match (self.resume, self.overwrite) {
                (true, _) => Start::Resume,
                (false, true) => Start::Overwrite,
                (false, false) => Start::Fresh,
            },
            progress: output.progress(),
            interrupt: interrupt()?,
        })
    }
}

fn read_config<T: for<'de> serde::Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        BadInput(format!("{}: {error}; name a configuration with -c FILE", path.display()))
    })?;
    toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(String::new(), |span| {
            format!(":{}", text[..span.start.min(text.len())].matches('\n').count() + 1)
        });
        BadInput(format!("{}{at}: {}", path.display(), error.message())).into()
    })
}

fn show<T: serde::Serialize>(config: &T, output: &Output) -> Result<()> {
    match output.json {
        true => say(&serde_json::to_string(config)?),
        false => print(&toml::to_string_pretty(config).context("a plain configuration")?),
    }
}
