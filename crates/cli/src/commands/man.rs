//! `man`: manual pages.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;

/// Write manual pages: one to stdout, or all into a folder
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder for one page per command.
    folder: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<()> {
    match args.folder {
        Some(folder) => {
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            clap_mangen::generate_to(crate::Program::command(), &folder)
                .with_context(|| folder.display().to_string())
        }
        None => clap_mangen::Man::new(crate::Program::command())
            .render(&mut std::io::stdout())
            .context("cannot write to stdout"),
    }
}
