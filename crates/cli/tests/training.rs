//! From pairs to a model, through the program.

mod support;

use std::process::Command;

use support::{Workshop, wait_until};

#[test]
fn a_model_is_trained_exported_and_used() {
    let workshop = Workshop::with_pairs(2);
    workshop.run("-q train tokenizer -c tokenizer.toml --run out/tokenizer").succeeded();
    workshop.refuses("train tokenizer -c tokenizer.toml --run out/tokenizer", 1, "pass --resume");
    workshop.run("-q train transformer -c transformer.toml --run out/transformer").succeeded();
    workshop.run("model export out/model --from-run out/transformer --storage bf16").succeeded();
    let info = workshop.run("model info --model out/model --json").succeeded().json();
    assert_eq!(info["config"]["name"], "trained");
    workshop.run("translate good.png out/map.png --to map --model out/model").succeeded();
    // A run can be started anew, and another can start from a model.
    workshop.run("-q train transformer -c transformer.toml --run out/transformer --overwrite").succeeded();
    workshop.run("-q train transformer -c transformer.toml --run out/second --from out/model").succeeded();
}

#[test]
fn a_dry_run_prints_the_whole_configuration_and_trains_nothing() {
    let workshop = Workshop::with_pairs(2);
    let finished = workshop.run("train tokenizer -c tokenizer.toml --run out/run --dry-run").succeeded();
    assert!(finished.stdout.contains("[optimiser]"), "{}", finished.stdout);
    assert!(!workshop.path("out/run").exists());
}

#[test]
fn a_run_is_resumed_with_the_shape_it_began_with() {
    let workshop = Workshop::with_pairs(2);
    workshop.run("-q train tokenizer -c tokenizer.toml --run out/run").succeeded();
    let text = std::fs::read_to_string(workshop.path("tokenizer.toml")).unwrap();
    std::fs::write(workshop.path("wider.toml"), text.replace("channels = 8", "channels = 16")).unwrap();
    workshop.refuses(
        "train tokenizer -c wider.toml --run out/run --resume",
        3,
        "out/run: was started with another tokenizer.channels",
    );
    // Other settings may change, and the run says so.
    std::fs::write(workshop.path("longer.toml"), text.replace("steps = 2", "steps = 3")).unwrap();
    let resumed = workshop.run("train tokenizer -c longer.toml --run out/run --resume").succeeded();
    assert!(resumed.stderr.contains("other settings than before: steps"), "{}", resumed.stderr);
    let kept = |name: &str| std::fs::read_to_string(workshop.path("out/run").join(name)).unwrap();
    assert!(
        kept("config.toml").contains("steps = 3") && kept("config-until-step-2.toml").contains("steps = 2")
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint_to_go_on_from() {
    let workshop = Workshop::with_pairs(400);
    let child = workshop.start("train tokenizer -c tokenizer.toml --run out/run --no-progress");
    // Something must be learned first, and not everything.
    wait_until("the first checkpoint", || {
        std::fs::read_dir(workshop.path("out/run/checkpoints"))
            .is_ok_and(|mut folders| folders.next().is_some())
    });
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let stopped = support::Finished::from(child.wait_with_output().unwrap());
    assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    assert!(stopped.stderr.contains("error: interrupted"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("--resume"), "{}", stopped.stderr);
    workshop.run("-q train tokenizer -c tokenizer.toml --run out/run --resume").succeeded();
}
