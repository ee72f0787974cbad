//! `sweep` from the outside: what it prints and writes, how it ends, what it refuses.

mod support;

use support::{Workshop, wait_until};

const BAD_INPUT: i32 = 3;
const MODEL: i32 = 4;
const PARTLY: i32 = 5;

const AXIS: &str =
    "[[axis]]\nname = \"top-k\"\nkey = \"evaluate.generation.to_map.sampler.top_k\"\nvalues = [1, 5]\n";

/// A workshop with `sweep.toml`: two points of a tiny model.
fn workshop() -> Workshop {
    let workshop = Workshop::with_pairs(3);
    write(&workshop, AXIS);
    workshop
}

fn write(workshop: &Workshop, axes: &str) {
    let text = format!(
        "title = \"A sweep\"\n[evaluate]\nmodel = \"model\"\nto = \"map\"\ndiversity_pictures = 2\n\
         data = {{ layout = \"side-by-side\", folder = \"pairs\" }}\n{axes}"
    );
    std::fs::write(workshop.path("sweep.toml"), text).unwrap();
}

const SWEEP: &str = "sweep -c sweep.toml --out out/swept";

#[test]
fn points_are_listed_computed_and_kept() {
    let workshop = workshop();
    let listed = workshop.run(&format!("{SWEEP} --dry-run")).succeeded();
    assert!(listed.stdout.contains("to do  top-k 1\n"), "{}", listed.stdout);
    assert!(
        listed.stdout.contains("2 points, 0 done, 2 to do; time to measure: about "),
        "{}",
        listed.stdout
    );
    assert!(listed.stdout.contains(", judged by one pair of top-k 1, measured now in "), "{}", listed.stdout);
    assert!(!workshop.path("out/swept").exists());

    let swept = workshop.run(SWEEP).succeeded();
    assert!(swept.stdout.starts_with("# A sweep\n\n| top-k "), "{}", swept.stdout);
    assert!(swept.stderr.contains("point 2 of 2: top-k 5"), "{}", swept.stderr);
    for name in ["sweep.toml", "sweep.md", "sweep.csv", "sweep.json", "sweep.html", "ssim-by-top-k.svg"] {
        assert!(workshop.path("out/swept").join(name).is_file(), "{name}");
    }
    let again = workshop.run(&format!("{SWEEP} --json")).succeeded();
    assert!(!again.stderr.contains("point "), "{}", again.stderr);
    assert_eq!(again.json()["points"].as_array().unwrap().len(), 2);
    let listed = workshop.run(&format!("{SWEEP} --dry-run --json")).succeeded().json();
    assert_eq!((&listed["done"], &listed["seconds"]["evaluations"]), (&2.into(), &0.0.into()));
    // Another setting makes other points.
    let fewer = format!("{SWEEP} --dry-run --set evaluate.pairs.limit=2 --set evaluate.to=satellite");
    assert!(workshop.run(&fewer).succeeded().stdout.contains("0 done, 2 to do; time to measure: about"));
}

#[test]
fn what_has_to_be_trained_takes_an_unknown_time() {
    let workshop = Workshop::with_pairs(3);
    let text = "title = \"Depths\"\n[train]\ntokenizer = \"tokenizer.toml\"\n\
                [evaluate]\ndata = { layout = \"side-by-side\", folder = \"pairs\" }\n\
                [[axis]]\nname = \"D\"\nkey = \"tokenizer.tokenizer.quantizer_depth\"\nvalues = [1, 2]\n";
    std::fs::write(workshop.path("sweep.toml"), text).unwrap();
    let listed = workshop.run(&format!("{SWEEP} --dry-run")).succeeded();
    let words =
        "time to measure: unknown until a point is done; for 2 trainings: unknown until a training is done";
    assert!(listed.stdout.contains(words), "{}", listed.stdout);
}

#[test]
fn a_point_that_fails_is_named_and_the_others_are_written() {
    let workshop = Workshop::with_pairs(3);
    let text = "title = \"Depths\"\n[train]\ntokenizer = \"tokenizer.toml\"\n\
                [evaluate]\ndata = { layout = \"side-by-side\", folder = \"pairs\" }\n\
                [[axis]]\nname = \"D\"\nkey = \"tokenizer.tokenizer.quantizer_depth\"\nvalues = [1, 0]\n";
    std::fs::write(workshop.path("sweep.toml"), text).unwrap();
    let swept = workshop.run(&format!("-q {SWEEP} --json"));
    assert_eq!(swept.code, PARTLY, "{}", swept.stderr);
    let words = "error: 1 of 2 points failed, the others are written; the same command tries these again: D 0: tokenizer:";
    assert!(swept.stderr.contains(words), "{}", swept.stderr);
    assert!(swept.json()["points"][1]["failure"].is_string());
    assert!(swept.json()["points"][0]["numbers"][0]["number"]["value"].is_number());
    assert!(workshop.path("out/swept/sweep.html").is_file());
}

#[test]
fn what_cannot_be_swept_is_refused() {
    let workshop = workshop();
    workshop.refuses("sweep -c nowhere.toml --out out/swept", BAD_INPUT, "nowhere.toml: ");
    let sweep = |axes: &str| write(&workshop, axes);
    for (axes, words) in [
        ("", "sweep.toml: axis: there are no points"),
        ("[[axis]]\nname = \"a\"\nkey = \"evaluate.seed\"\nvalues = []", "sweep.toml: axis a: has no values"),
        (
            "[[axis]]\nname = \"a\"\nkey = \"evaluate.sead\"\nvalues = [1]",
            "a 1: evaluate: unknown field `sead`",
        ),
        (
            "[[axis]]\nname = \"a\"\nkey = \"evaluate.seed\"\nvalues = [1]\ncolour = 2",
            "unknown field `colour`",
        ),
    ] {
        sweep(axes);
        workshop.refuses(SWEEP, BAD_INPUT, words);
    }
    sweep(AXIS);
    let nowhere = format!("{SWEEP} --set evaluate.model=nowhere");
    workshop.refuses(&nowhere, MODEL, "sweep.toml: evaluate.model: nowhere: holds no model");
    workshop.refuses(
        &format!("{SWEEP} --set evaluate.data.folder=nowhere"),
        BAD_INPUT,
        "nowhere: is not a folder",
    );
    workshop.refuses(&format!("{SWEEP} --set limit"), 2, "--set limit: write KEY=VALUE");
    workshop.refuses("sweep -c sweep.toml --out pairs", 1, "pairs: holds other files");
}

#[cfg(unix)]
#[test]
fn a_stopped_sweep_goes_on() {
    let workshop = workshop();
    let values = (1..=40).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    write(&workshop, &AXIS.replace("1, 5", &values));
    let child = workshop.start(SWEEP);
    let points = workshop.path("out/swept/points");
    wait_until("a point", || {
        let folders = std::fs::read_dir(&points).into_iter().flatten().flatten();
        folders.filter(|folder| folder.path().join("result.json").is_file()).count() > 0
    });
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let stopped = support::Finished::from(child.wait_with_output().unwrap());
    assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    assert!(
        stopped.stderr.contains("of 40 points, which are written; the same command goes on"),
        "{}",
        stopped.stderr
    );
    for name in ["sweep.md", "sweep.csv", "sweep.json", "sweep.html"] {
        let text = std::fs::read_to_string(workshop.path("out/swept").join(name)).unwrap();
        assert!(name == "sweep.json" || text.contains("not done"), "{name}: {text}");
    }
    let swept = workshop.run(&format!("{SWEEP} --json")).succeeded();
    assert!(!swept.stderr.contains("point 1 of 40"), "{}", swept.stderr);
    assert_eq!(swept.json()["points"].as_array().unwrap().len(), 40);
}
