//! `completions`: for the shells.

use anyhow::Result;
use clap::CommandFactory;

use crate::settings::print;

/// Print completions for a shell
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub fn run(args: Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Program::command(), "earthmapper", &mut script);
    print(&String::from_utf8(script)?)
}
