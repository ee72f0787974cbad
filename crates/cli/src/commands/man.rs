//! `man`: manual pages.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap::builder::BoolishValueParser;
use earthmapper_geo::files::{atomic_write, check_output};

use crate::settings::print;

/// Write manual pages: the program's own to stdout, or all into a folder
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder for one page per command.
    folder: Option<PathBuf>,
    /// Replace pages that exist.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "EARTHMAPPER_OVERWRITE")]
    overwrite: bool,
}

pub fn run(args: Args) -> Result<()> {
    let mut program = crate::Program::command();
    program.build();
    let Some(folder) = args.folder else { return print(&page(program)?) };
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut pages = Vec::new();
    collect(program, &mut pages);
    let paths: Vec<PathBuf> = pages
        .iter()
        .map(|page| folder.join(format!("{}.1", page.get_display_name().unwrap_or("earthmapper"))))
        .collect();
    paths.iter().try_for_each(|path| check_output(path, args.overwrite))?;
    for (path, command) in paths.iter().zip(pages) {
        atomic_write(path, page(command)?.as_bytes(), args.overwrite)?;
    }
    Ok(())
}

/// A command and all below it.
fn collect(command: clap::Command, pages: &mut Vec<clap::Command>) {
    for below in command.get_subcommands().filter(|below| below.get_name() != "help").cloned() {
        collect(below, pages);
    }
    pages.push(command);
}

fn page(command: clap::Command) -> Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(String::from_utf8(text)?)
}
