//! `serve`: tiles made on demand, and a page to look at them.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use earthmapper_server::{Config, ServedModel};
use serde_json::json;

use crate::settings::{ModelArgs, Output, check_modality, interrupt};

/// Serve translated tiles, and a page to look at them
///
/// Without a configuration, a demo of an invented town is served on this machine only. The file names sources (GeoTIFF, folders of tiles, MBTiles, PMTiles, vector data) and limits; docs/serve.md describes it.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Configuration (TOML; docs/serve.md).
    #[arg(short, long, value_name = "FILE", env = "EARTHMAPPER_CONFIG")]
    config: Option<PathBuf>,
    /// Address and port, instead of the configuration's [default: 127.0.0.1:8000]; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", env = "EARTHMAPPER_LISTEN")]
    listen: Option<SocketAddr>,
    /// What clients call the server, such as https://maps.example.org.
    #[arg(long, value_name = "URL", env = "EARTHMAPPER_PUBLIC_URL")]
    public_url: Option<String>,
    /// Folder for jobs and their results; without it they end with the program.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_DATA_FOLDER")]
    data: Option<PathBuf>,
    /// A file with the token that POST and DELETE must show; without it everybody may.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    config.listen = args.listen.unwrap_or(config.listen);
    config.public_url = args.public_url.or(config.public_url);
    config.data = args.data.or(config.data);
    config.check()?;
    let token = match &args.token_file {
        Some(path) => Some(
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?,
        ),
        None => None,
    };
    if token.is_none() && !config.listen.ip().is_loopback() {
        tracing::warn!("everybody who reaches {} may make the model work; see --token-file", config.listen);
    }
    let folder = args.model.folder()?;
    let model = args.model.load()?;
    earthmapper_geo::Modality::ALL.into_iter().try_for_each(|modality| check_modality(&model, modality))?;
    let run = format!("{} {:?}", args.model.device, args.model.precision);
    let served = ServedModel::new(model, &folder, &run);
    let interrupt = interrupt()?;
    let url = config.public_url.clone();
    earthmapper_server::run(
        config,
        served,
        token,
        |address| {
            let url = url.unwrap_or_else(|| format!("http://{address}"));
            let _ = output.result(&format!("serving at {url} (stop with Ctrl-C)"), json!({ "url": url }));
        },
        || interrupt.requested(),
    )?;
    Ok(())
}
