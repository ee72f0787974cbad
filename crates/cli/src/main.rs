//! The `earthmapper` program.

mod commands;
mod exit;
mod settings;

use std::io::Write;

use clap::{Parser, Subcommand};

// glibc gives every large tensor fresh pages, which makes attention and training about twice as slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Translates satellite pictures into maps and maps into satellite pictures, fills holes, extends borders and invents
/// pairs.
#[derive(Parser, Debug)]
#[command(name = "earthmapper", version, about, after_help = AFTER_HELP)]
struct Program {
    #[command(flatten)]
    output: settings::Output,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str =
    "Exit codes: 0 done, 1 failure, 2 usage, 3 bad input, 4 model missing, damaged or not \
fitting, 5 partly done, 130 interrupted (a training can be resumed).
Every flag can also be given as EARTHMAPPER_FLAG in the environment.";

#[derive(Subcommand, Debug)]
enum Command {
    Translate(commands::translate::Args),
    Generate(commands::generate::Args),
    Inpaint(commands::inpaint::Args),
    Outpaint(commands::outpaint::Args),
    Tile(commands::tile::Args),
    Render(commands::render::Args),
    Serve(commands::serve::Args),
    Dataset(commands::dataset::Args),
    #[command(subcommand)]
    Train(commands::train::Command),
    Evaluate(Box<commands::evaluate::Args>),
    Sweep(commands::sweep::Args),
    #[command(subcommand)]
    Model(commands::model::Command),
    Doctor(commands::doctor::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

fn main() {
    let program = Program::parse();
    program.output.start_logging();
    let output = &program.output;
    let result = match program.command {
        Command::Translate(args) => commands::translate::run(args, output),
        Command::Generate(args) => commands::generate::run(args, output),
        Command::Inpaint(args) => commands::inpaint::run(args, output),
        Command::Outpaint(args) => commands::outpaint::run(args, output),
        Command::Tile(args) => commands::tile::run(args, output),
        Command::Render(args) => commands::render::run(args, output),
        Command::Serve(args) => commands::serve::run(args, output),
        Command::Dataset(args) => commands::dataset::run(args, output),
        Command::Train(command) => commands::train::run(command, output),
        Command::Evaluate(args) => commands::evaluate::run(*args, output),
        Command::Sweep(args) => commands::sweep::run(args, output),
        Command::Model(command) => commands::model::run(command, output),
        Command::Doctor(args) => commands::doctor::run(args, output),
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
    };
    std::process::exit(match result {
        Ok(()) => 0,
        Err(error) => {
            // Where nobody listens on stderr, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {}", exit::line(&error));
            if program.output.verbose > 0 {
                let _ = writeln!(std::io::stderr(), "{error:?}");
            }
            exit::code(&error)
        }
    });
}
