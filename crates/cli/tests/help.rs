//! What every command says about itself, kept in `snapshots`. After a wanted change:
//! `UPDATE_SNAPSHOTS=1 cargo test --release --workspace --test help`.

mod support;

use support::Workshop;

const COMMANDS: [&str; 25] = [
    "",
    "translate",
    "generate",
    "inpaint",
    "outpaint",
    "tile",
    "render",
    "serve",
    "dataset",
    "dataset make",
    "dataset check",
    "dataset stats",
    "dataset split",
    "train",
    "train tokenizer",
    "train transformer",
    "evaluate",
    "sweep",
    "model",
    "model info",
    "model export",
    "model import",
    "doctor",
    "completions",
    "man",
];

#[test]
fn help_is_as_it_was() {
    let workshop = Workshop::new();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    let mut changed = Vec::new();
    for command in COMMANDS {
        let help = workshop.run(&format!("{command} --help")).succeeded().stdout;
        let name = if command.is_empty() { "earthmapper".to_owned() } else { command.replace(' ', "-") };
        let path = folder.join(format!("{name}.txt"));
        if update {
            std::fs::write(&path, &help).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != help {
            changed.push(name);
        }
    }
    assert!(changed.is_empty(), "the help of {changed:?} changed; if that is wanted, set UPDATE_SNAPSHOTS=1");
}
