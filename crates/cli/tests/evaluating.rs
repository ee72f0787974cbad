//! `evaluate` from the outside: what it writes, how it goes on, what it refuses.

mod support;

use support::{SIDE, Workshop, contents};

use earthmapper_geo::{Picture, PictureLimits, WriteOptions, read_picture, write_picture};

const BAD_INPUT: i32 = 3;

/// Pairs `0` … `3` in `pairs`, and their maps alone in `maps`.
fn workshop() -> Workshop {
    let workshop = Workshop::with_pairs(1);
    std::fs::create_dir(workshop.path("maps")).unwrap();
    std::fs::create_dir(workshop.path("photographs")).unwrap();
    for name in 0..4 {
        let pair =
            read_picture(workshop.path(&format!("pairs/{name}.png")), &PictureLimits::default()).unwrap();
        for (folder, x) in [("photographs", 0), ("maps", SIDE)] {
            let path = workshop.path(&format!("{folder}/{name}.png"));
            write_picture(path, &pair.crop(x, 0, SIDE, SIDE), &WriteOptions::default()).unwrap();
        }
    }
    workshop
}

fn number(json: &serde_json::Value, target: &str, candidate: &str, metric: &str) -> f64 {
    let sections = json["sections"].as_array().unwrap();
    let section = sections.iter().find(|section| section["target"] == target).unwrap();
    let rows = section["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["metric"]["name"] == metric).unwrap();
    row["numbers"][candidate]["value"].as_f64().unwrap()
}

#[test]
fn a_model_is_measured_and_the_measuring_goes_on() {
    let workshop = workshop();
    let evaluate = "evaluate --data pairs --model model --out out/measured";
    let json = workshop.run(&format!("{evaluate} --limit 2 --top-p 0.55 --json")).succeeded();
    assert!(json.stdout.contains("0.55,") || json.stdout.contains("0.55}"), "{}", json.stdout);
    assert!(!json.stdout.contains("0.5500"), "{}", json.stdout);
    let json = json.json();
    assert_eq!((&json["format"], &json["pairs"]), (&2.into(), &2.into()));
    assert!(number(&json, "map", "model", "SSIM").is_finite());
    assert!(number(&json, "satellite", "ceiling", "RMSE").is_finite());
    for name in [
        "evaluation.json",
        "table.md",
        "pictures.csv",
        "report.html",
        "map-best.png",
        "satellite-worst.png",
        "predictions/key.json",
        "predictions/map/0.png",
        "predictions/map-cycle/1.png",
    ] {
        assert!(workshop.path("out/measured").join(name).is_file(), "{name}");
    }
    assert!(!workshop.path("out/measured/predictions/map/2.png").exists());
    let before = contents(&workshop.path("out/measured"));

    // Reports are not replaced unasked, predictions of other seeds never.
    workshop.refuses(&format!("{evaluate} --limit 2 --top-p 0.55"), 1, "already exists");
    workshop.refuses(
        &format!("{evaluate} --limit 2 --top-p 0.55 --seed 3 --overwrite"),
        1,
        "out/measured/predictions: holds predictions made with the seed 0, not 3; give another folder with --out",
    );
    assert!(before == contents(&workshop.path("out/measured")));
    // The same again gives the same files, but for the time that nothing took.
    let again = workshop.run(&format!("{evaluate} --limit 2 --top-p 0.55 --overwrite")).succeeded();
    assert!(
        again.stdout.contains("### Maps") && again.stdout.contains("nearest training pair"),
        "{}",
        again.stdout
    );
    assert!(again.stdout.contains("not computed; give the pairs that were learned from by --training DIR"));
    let timed = ["table.md", "evaluation.json", "report.html"];
    for (path, bytes) in contents(&workshop.path("out/measured")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(timed.contains(&name) || before[&path] == bytes, "{name} changed");
    }
    // More pairs take up what is there.
    let more =
        workshop.run(&format!("{evaluate} --top-p 0.55 --overwrite --json --training pairs")).succeeded();
    assert_eq!(more.json()["pairs"], 4);
    assert!(number(&more.json(), "map", "nearest", "RMSE") > 0.0);
    let kept = "predictions/map/0.png";
    assert_eq!(
        std::fs::read(workshop.path("out/measured").join(kept)).unwrap(),
        *before[&workshop.path("out/measured").join(kept)].as_ref().unwrap()
    );
}

#[test]
fn one_direction_two_folders_and_a_palette() {
    let workshop = workshop();
    let evaluate = "evaluate --data photographs --maps maps --model model --limit 1";
    let maps = workshop.run(&format!("{evaluate} --to map --out out/maps --json")).succeeded().json();
    assert_eq!(maps["sections"].as_array().unwrap().len(), 1);
    assert!(!workshop.path("out/maps/satellite-best.png").exists());
    let palette =
        r#"[{"name":"ink","colours":[[0,0,0]],"is_road":true},{"name":"paper","colours":[[255,255,255]]}]"#;
    std::fs::write(workshop.path("palette.json"), palette).unwrap();
    let back = format!("{evaluate} --to satellite --palette palette.json --out out/back --json");
    let back = workshop.run(&back).succeeded().json();
    assert!(number(&back, "map", "cycle", "class accuracy").is_finite());
    assert!(number(&back, "map", "blank", "IoU paper").is_finite());
    // A pair of both halves in one file is the same pair.
    let side = workshop.run("evaluate --data pairs --model model --limit 1 --to map --out out/side --json");
    assert_eq!(side.succeeded().json()["sections"], maps["sections"]);
}

#[test]
fn pictures_made_elsewhere_are_measured() {
    let workshop = workshop();
    let given = "evaluate --data pairs --predictions maps --to map";
    let json = workshop.run(&format!("{given} --out out/given --json")).succeeded().json();
    assert_eq!(number(&json, "map", "model", "PSNR (dB)"), 100.0);
    assert_eq!(number(&json, "map", "model", "class accuracy"), 1.0);
    assert_eq!(json["subject"]["predictions"]["name"], "maps");
    assert!(
        workshop.path("out/given/report.html").is_file() && !workshop.path("out/given/predictions").exists()
    );
    let json =
        workshop.run("evaluate --data pairs --predictions photographs --to satellite --out out/sat --json");
    assert_eq!(number(&json.succeeded().json(), "satellite", "model", "RMSE"), 0.0);

    workshop.refuses(&format!("{given} --out out/given"), 1, "already exists");
    workshop.refuses(
        "evaluate --data pairs --predictions out/sat --to map --out out/new",
        BAD_INPUT,
        "out/sat: holds no prediction of any of the 4 pairs",
    );
    workshop.refuses(
        "evaluate --data pairs --predictions nowhere --to map --out out/new",
        BAD_INPUT,
        "nowhere: is not a folder",
    );
    std::fs::remove_file(workshop.path("maps/3.png")).unwrap();
    workshop.refuses(&format!("{given} --out out/new"), BAD_INPUT, "1 of 4 pairs have no prediction (3)");
    workshop.run(&format!("{given} --out out/three --limit 3")).succeeded();
    let small = Picture::filled(8, 8, [0; 3]);
    write_picture(workshop.path("maps/3.png"), &small, &WriteOptions::default()).unwrap();
    workshop.refuses(&format!("{given} --out out/new"), BAD_INPUT, "maps/3.png: is 8 × 8 pixels");
}

#[test]
fn an_imported_network_is_a_metric() {
    let workshop = workshop();
    // A small VGG-16 with heads, and beside them pictures that are none of its business.
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/tests/nets_lpips.safetensors");
    std::fs::copy(source, workshop.path("classifier.safetensors")).unwrap();
    let import = "model import out/lpips.safetensors --lpips classifier.safetensors";
    let made = workshop.run(import).succeeded();
    assert!(made.stdout.contains("LPIPS, vgg: 31 tensors"), "{}", made.stdout);
    workshop.refuses(import, 1, "out/lpips.safetensors: already exists");

    let measured = "evaluate --data pairs --limit 2 --to map --lpips out/lpips.safetensors --json";
    let lpips = |from: &str| {
        let json = workshop.run(&format!("{measured} {from}")).succeeded().json();
        number(&json, "map", "model", "LPIPS, vgg")
    };
    assert!(lpips("--model model --out out/made") > 0.0);
    assert_eq!(lpips("--predictions maps --out out/true"), 0.0);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let workshop = workshop();
    let evaluate = "evaluate --data pairs --model model --out out/new";
    workshop.refuses(&format!("{evaluate} --training nowhere"), BAD_INPUT, "nowhere: is not a folder");
    workshop.refuses(&format!("{evaluate} --split test"), BAD_INPUT, "pairs: knows no splits");
    workshop.refuses(&format!("{evaluate} --palette good.png"), BAD_INPUT, "good.png");
    std::fs::write(workshop.path("palette.json"), r#"[{"name":"ink","colours":[]}]"#).unwrap();
    workshop.refuses(&format!("{evaluate} --palette palette.json"), BAD_INPUT, "class ink has no colour");
    for flags in ["--predictions maps", "--training-pairs 1..2", "--split spring", "--to moon"] {
        let finished = workshop.run(&format!("{evaluate} {flags}"));
        assert_eq!(finished.code, 2, "{flags}: {}", finished.stderr);
    }
    // Predictions that nobody knows the origin of are not taken for ours.
    std::fs::create_dir_all(workshop.path("out/new/predictions")).unwrap();
    workshop.picture("out/new/predictions/0.png", 4, 4);
    workshop.refuses(evaluate, 1, "out/new/predictions: holds files but no key.json");
}
