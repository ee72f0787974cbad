//! Every command on good input.

mod support;

use std::process::Command;

use earthmapper_geo::picture::{decode_with_holes, encode_with_holes};
use earthmapper_geo::raster::{
    AffineTransform, GeoReference, PixelWindow, RasterLimits, RasterOptions, RasterReader, RasterWriter,
    Stretch, Validity,
};
use earthmapper_geo::store::open_tiles;
use earthmapper_geo::{
    Mask, Picture, PictureLimits, WriteOptions, read_picture, read_provenance, write_picture,
};
use support::{SIDE, Workshop, wait_until};

impl Workshop {
    fn read(&self, name: &str) -> Picture {
        read_picture(self.path(name), &PictureLimits::default()).unwrap()
    }

    /// Checks that a picture says it is synthetic, and which model and task made it.
    #[track_caller]
    fn is_labelled(&self, name: &str, task: &str) {
        let label =
            read_provenance(self.path(name)).unwrap().unwrap_or_else(|| panic!("{name} has no label"));
        for word in ["trainedAlgorithmicMedia", "tiny", task] {
            assert!(label.contains(word), "{name}: {label} does not say {word:?}");
        }
    }
}

#[test]
fn pictures_of_every_kind_and_size_are_translated() {
    let workshop = Workshop::new();
    workshop.picture("one.png", 1, 1);
    workshop.picture("large.webp", 50, 37);
    workshop.picture("photo.jpg", 20, 9);
    let (deep, side) = (image::ImageBuffer::from_pixel(5, 7, image::Rgb([40_000u16, 9, 65_535])), SIDE);
    deep.save(workshop.path("deep.png")).unwrap();
    image::GrayImage::from_pixel(side, side, image::Luma([90])).save(workshop.path("grey.png")).unwrap();
    image::RgbaImage::from_pixel(4, 30, image::Rgba([9, 8, 7, 100]))
        .save(workshop.path("alpha.png"))
        .unwrap();
    for (input, size) in [
        ("good.png", (SIDE, SIDE)),
        ("one.png", (1, 1)),
        ("large.webp", (50, 37)),
        ("photo.jpg", (20, 9)),
        ("deep.png", (5, 7)),
        ("grey.png", (SIDE, SIDE)),
        ("alpha.png", (4, 30)),
    ] {
        for (to, ending) in [("map", "png"), ("satellite", "jpg"), ("map", "webp")] {
            let output = format!("out/{input}-{to}.{ending}");
            let finished =
                workshop.run(&format!("-q translate {input} {output} --to {to} --model model")).succeeded();
            assert_eq!(finished.stderr, "");
            let made = workshop.read(&output);
            assert_eq!((made.width(), made.height()), size, "{output}");
            workshop.is_labelled(&output, to);
        }
    }
}

#[test]
fn a_seed_makes_the_same_picture_again() {
    let workshop = Workshop::new();
    workshop.picture("large.png", 40, 20);
    let translate = |output: &str, flags: &str| {
        workshop.run(&format!("translate large.png {output} --to map --model model {flags}")).succeeded();
        workshop.read(output)
    };
    let first = translate("out/1.png", "--seed 5");
    assert_eq!(first, translate("out/2.png", "--seed 5 --batch-size 1"));
    assert_ne!(first, translate("out/3.png", "--seed 6"));
    // The first of several samples is the one that is made alone.
    workshop.run("translate large.png out/s.png --to map --model model --seed 5 --samples 3").succeeded();
    assert_eq!(first, workshop.read("out/s-1.png"));
    assert_ne!(workshop.read("out/s-2.png"), workshop.read("out/s-3.png"));
    assert_eq!(translate("out/4.png", "--greedy"), translate("out/5.png", "--greedy --seed 9"));
}

#[test]
fn every_way_of_generation_works() {
    let workshop = Workshop::new();
    for (i, flags) in [
        "--guidance off",
        "--guidance constant:1.5",
        "--guidance ramp:2",
        "--guidance 2,3,4 --complexity token-entropy",
        "--guidance 2,3,4 --complexity grey-levels",
        "--key-points index-add --tau 0.4",
        "--key-points attract --tau 0.4 --strength 2",
        "--key-points sharpen --tau 0.4 --sharpness 0.3",
        "--temperature 0.7 --top-k 5 --top-p 0.9",
        "--views 1",
        "--views 8 --seam outpaint",
        "--decode sampled",
        "--decode expected-last",
        "--decode expected",
        "--scale 0.5",
        "--lat -33.9 --lon 151.2 --metres-per-pixel 0.6",
    ]
    .iter()
    .enumerate()
    {
        workshop.run(&format!("translate good.png out/{i}.png --to map --model model {flags}")).succeeded();
        workshop.is_labelled(&format!("out/{i}.png"), "map");
    }
}

#[test]
fn uncertainty_is_a_grey_picture() {
    let workshop = Workshop::new();
    workshop.picture("large.png", 33, 21);
    workshop.run("translate large.png out/a.png --to map --model model --entropy out/e.png").succeeded();
    let entropy = workshop.read("out/e.png");
    assert_eq!((entropy.width(), entropy.height()), (33, 21));
    assert!(entropy.rgb().as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b));
}

#[test]
fn holes_and_borders_are_filled_and_the_rest_is_kept() {
    let workshop = Workshop::new();
    let source = workshop.picture("large.png", 40, 21);
    let mask = image::GrayImage::from_fn(40, 21, |x, y| image::Luma([if x > 30 && y < 9 { 255 } else { 0 }]));
    mask.save(workshop.path("mask.png")).unwrap();
    for given in ["", "--given large.png"] {
        let flags = format!("--mask mask.png --as map --model model --overwrite {given}");
        workshop.run(&format!("inpaint large.png out/i.png {flags}")).succeeded();
        let made = workshop.read("out/i.png");
        assert_eq!(made.crop(0, 0, 31, 21), source.crop(0, 0, 31, 21));
        assert_eq!(made.crop(0, 9, 40, 12), source.crop(0, 9, 40, 12));
        assert_ne!(made, source);
        workshop.is_labelled("out/i.png", "inpainted");
    }
    workshop
        .run("outpaint large.png out/o.png --as satellite --left 7 --bottom 20 --model model")
        .succeeded();
    let made = workshop.read("out/o.png");
    assert_eq!((made.width(), made.height()), (47, 41));
    assert_eq!(made.crop(7, 0, 40, 21), source);
    workshop.is_labelled("out/o.png", "outpainted");
}

#[test]
fn a_pair_is_generated() {
    let workshop = Workshop::new();
    workshop.run("-q generate out/s.png out/m.png --lat 40.7 --lon -74 --seed 3 --model model").succeeded();
    workshop.run("-q generate out/s2.png out/m2.png --lat 40.7 --lon -74 --seed 3 --model model").succeeded();
    for (name, again) in [("out/s.png", "out/s2.png"), ("out/m.png", "out/m2.png")] {
        assert_eq!(workshop.read(name), workshop.read(again));
        workshop.is_labelled(name, "generated pair");
    }
}

#[test]
fn results_are_valid_json_when_asked_for() {
    let workshop = Workshop::new();
    image::GrayImage::from_pixel(SIDE, SIDE, image::Luma([255])).save(workshop.path("mask.png")).unwrap();
    for arguments in [
        "translate good.png out/1.png --to map --samples 2",
        "generate out/2.png out/3.png",
        "inpaint good.png out/4.png --mask mask.png --as map",
        "outpaint good.png out/5.png --as map --top 2",
        "model info",
        "doctor",
    ] {
        let finished = workshop.run(&format!("{arguments} --model model --json")).succeeded();
        assert!(finished.json().is_object(), "{arguments}");
        assert_eq!(finished.stdout.lines().count(), 1, "{arguments}");
    }
    assert_eq!(workshop.run("doctor --model model --json").json()["failed"], 0);
}

#[test]
fn flags_can_come_from_the_environment_and_the_model_from_a_folder_above() {
    let workshop = Workshop::new();
    let mut command = workshop.command();
    command.env("EARTHMAPPER_MODEL", "model").env("EARTHMAPPER_TO", "map").env("EARTHMAPPER_SEED", "4");
    let finished: support::Finished =
        command.args(["translate", "good.png", "out/a.png"]).output().unwrap().into();
    finished.succeeded();
    workshop.run("translate good.png out/b.png --to map --seed 4 --model model").succeeded();
    assert_eq!(workshop.read("out/a.png"), workshop.read("out/b.png"));
}

#[test]
fn the_doctor_finds_nothing_wrong_with_the_processor() {
    let workshop = Workshop::new();
    let finished = workshop.run("doctor --model model").succeeded();
    for word in ["earthmapper: ", "threads: ", "back ends: cpu", "greedy tokens", "0 failed"] {
        assert!(finished.stdout.contains(word), "{word} in {}", finished.stdout);
    }
}

#[test]
fn completions_and_manual_pages_are_written() {
    let workshop = Workshop::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(workshop.run(&format!("completions {shell}")).succeeded().stdout.contains("translate"));
    }
    assert!(workshop.run("man").succeeded().stdout.contains(".TH earthmapper"));
    workshop.run("man out/man").succeeded();
    assert!(workshop.path("out/man/earthmapper-translate.1").is_file());
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let workshop = Workshop::new();
    workshop.picture("mask.png", SIDE, SIDE);
    for arguments in [
        "translate good.png out/a.png --to map --samples 2",
        "generate out/a.png out/b.png",
        "inpaint good.png out/a.png --mask mask.png --as map",
        "outpaint good.png out/a.png --as map --left 3",
    ] {
        let before = support::contents(&workshop.path("."));
        let finished = workshop.run(&format!("{arguments} --model model --dry-run --json")).succeeded();
        let json = finished.json();
        assert_eq!(json["dry_run"], true, "{arguments}");
        assert!(finished.stdout.contains("out/a"), "{arguments}: {}", finished.stdout);
        assert!(before == support::contents(&workshop.path(".")), "{arguments}: wrote something");
        // What could not be done is refused in a dry run as well.
        let refused = workshop.run(&format!("{arguments} --model absent --dry-run"));
        assert_eq!(refused.code, 4, "{arguments}: {}", refused.stderr);
    }
}

#[test]
fn published_weights_are_imported() {
    let folder = std::env::var_os("EARTHMAPPER_PARITY").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/parity"),
        Into::into,
    );
    let Ok(folder) = folder.canonicalize() else {
        println!("skipped: no folder of reference numbers; EARTHMAPPER_PARITY can name it");
        return;
    };
    let workshop = Workshop::new();
    let vae = folder.join("var_tokenizer.safetensors");
    let sides = ["--sides", "1,2,3,5,8"];
    let run = |output: &str| {
        let mut command = workshop.command();
        command.args(["model", "import", output, "--vae"]).arg(&vae).args(sides).output().unwrap()
    };
    let report = support::Finished::from(run("out/tokenizer"));
    assert!(report.succeeded().stdout.contains("the tokenizer maps exactly"));
    assert!(workshop.path("out/tokenizer/model.safetensors").is_file());
    let again = support::Finished::from(run("out/tokenizer"));
    assert_eq!(again.code, 1, "a folder that is there is not replaced");
}

#[test]
fn a_geotiff_becomes_a_geotiff_of_the_same_place() {
    let workshop = Workshop::new();
    let epsg = "EPSG:26914".parse().unwrap();
    let scene = |name: &str, pixel: f64| {
        let transform = AffineTransform::north_up((500_000.0, 5_200_000.0), (pixel, -pixel));
        let options = RasterOptions {
            validity: Validity::Nodata(0),
            georeference: Some(GeoReference::from_epsg(transform, epsg).unwrap()),
            ..RasterOptions::new(53, 37)
        };
        let mut writer = RasterWriter::create(workshop.path(name), options).unwrap();
        let picture = Picture::drawn(53, 37, |x, y| [x as u8 * 4 + 9, y as u8 * 5 + 9, 90]);
        let holes = Mask::drawn(53, 37, |x, y| x < 9 && y > 20);
        writer.write_rows(&picture, Some(&holes)).unwrap();
        writer.finish().unwrap();
    };
    // The tiny model was trained at 0.6 m.
    scene("alike.tif", 0.6);
    scene("coarse.tif", 1.5);
    scene("far.tif", 30.0);
    let translate = |scene: &str, output: &str, more: &str| {
        workshop.run(&format!("-q translate {scene}.tif {output} --to map --model model --json {more}"))
    };
    for (name, scale) in [("alike", 1.0), ("coarse", 2.5)] {
        for seam in ["blend", "outpaint", "crop"] {
            let output = format!("out/{name}-{seam}.tif");
            let made = translate(name, &output, &format!("--seam {seam}")).succeeded();
            assert!((made.json()["scale"].as_f64().unwrap() - scale).abs() < 0.01, "{}", made.stdout);
            let read =
                |path: &str| RasterReader::open(workshop.path(path), &RasterLimits::default()).unwrap();
            let (before, after) = (read(&format!("{name}.tif")), read(&output));
            assert_eq!((after.width(), after.height(), after.nodata()), (53, 37, Some(0.0)));
            let (was, is) = (before.georeference().unwrap(), after.georeference().unwrap());
            assert_eq!((is.transform(), is.epsg().unwrap()), (was.transform(), epsg));
            let rendering = after.rendering(None, Stretch::Auto).unwrap();
            let window = after.read_window(0, PixelWindow::new(0, 0, 53, 37), &rendering).unwrap();
            assert!((0..53).all(|x| (0..37).all(|y| window.nodata.is_hole(x, y) == (x < 9 && y > 20))));
        }
    }
    let far = translate("far", "out/far.tif", "");
    assert_eq!(far.code, 4, "{}", far.stderr);
    assert!(far.stderr.contains("30.0") && far.stderr.contains("--force"), "{}", far.stderr);
    assert!(!workshop.path("out/far.tif").exists());
    assert_eq!(translate("far", "out/far.tif", "--scale 1").succeeded().json()["scale"], 1.0);
    assert_eq!(translate("alike", "out/alike.png", "").code, 2);
    assert_eq!(translate("alike", "out/alike-crop.tif", "").code, 1, "nothing is replaced unasked");
    assert_eq!(translate("alike", "out/two.tif", "--bands 1,9,2").code, 3);
    std::fs::write(workshop.path("cut.tif"), &std::fs::read(workshop.path("alike.tif")).unwrap()[..300])
        .unwrap();
    assert_eq!(translate("cut", "out/cut.tif", "").code, 3);
    assert!(!workshop.path("out/cut.tif").exists());
    // Somewhere unknown: not dropped silently, and the cure works.
    let nowhere = RasterOptions::new(20, 20);
    let mut writer = RasterWriter::create(workshop.path("nowhere.tif"), nowhere).unwrap();
    writer.write_rows(&Picture::filled(20, 20, [80; 3]), None).unwrap();
    writer.finish().unwrap();
    assert_eq!(translate("nowhere", "out/nowhere.tif", "").code, 3);
    translate("nowhere", "out/nowhere.tif", "--force").succeeded();
    // Several samples, each with its uncertainty.
    translate("alike", "out/s.tif", "--samples 2 --entropy out/e.tif").succeeded();
    for name in ["out/s-1.tif", "out/s-2.tif", "out/e-1.tif", "out/e-2.tif"] {
        assert!(workshop.path(name).is_file(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_scene_stopped_half_way_goes_on() {
    let workshop = Workshop::new();
    let side = 40 * SIDE;
    let mut writer =
        RasterWriter::create(workshop.path("scene.tif"), RasterOptions::new(side, side)).unwrap();
    writer.write_rows(&Picture::drawn(side, side, |x, y| [x as u8, y as u8, (x * y) as u8]), None).unwrap();
    writer.finish().unwrap();
    let translate = |output: &str| {
        // Windows one by one, so that a stop does not change which are made together.
        format!(
            "translate scene.tif {output} --to map --model model --force --no-progress --batch-size 1 --seam outpaint"
        )
    };
    workshop.run(&format!("-q {}", translate("out/whole.tif"))).succeeded();
    assert!(!workshop.path("out/whole.tif.windows").exists(), "the journal of a whole scene is removed");

    for signal in ["-INT", "-KILL"] {
        let mut child = workshop.start(&translate("out/stopped.tif"));
        let journal = workshop.path("out/stopped.tif.windows");
        wait_until("some windows", || std::fs::metadata(&journal).is_ok_and(|facts| facts.len() > 20_000));
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let code = child.wait().unwrap().code();
        assert_eq!(code, if signal == "-INT" { Some(130) } else { None });
        assert!(!workshop.path("out/stopped.tif").exists());

        let refused = workshop.run(&translate("out/stopped.tif"));
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains("--resume"), "{}", refused.stderr);
        let other = workshop.run(&format!("{} --resume --seed 9", translate("out/stopped.tif")));
        assert!(other.code == 1 && other.stderr.contains("other options"), "{}", other.stderr);
        workshop.run(&format!("-q {} --resume", translate("out/stopped.tif"))).succeeded();
        let bytes = |name: &str| std::fs::read(workshop.path(name)).unwrap();
        assert!(bytes("out/whole.tif") == bytes("out/stopped.tif"), "as if never stopped, after {signal}");
        assert!(!journal.exists());
        std::fs::remove_file(workshop.path("out/stopped.tif")).unwrap();
    }
}

#[test]
fn transparent_parts_of_tiles_stay_transparent() {
    let workshop = Workshop::new();
    let side = 2 * SIDE;
    let half = Mask::drawn(side, side, |x, _| x < SIDE);
    let picture = Picture::drawn(side, side, |x, y| [(9 * x) as u8, (5 * y) as u8, 77]);
    std::fs::create_dir_all(workshop.path("tiles/7/5")).unwrap();
    for (name, holes) in [("7/5/3", &half), ("7/5/4", &Mask::filled(side, side, true))] {
        let png = encode_with_holes("png", &picture, holes, &WriteOptions::default()).unwrap();
        std::fs::write(workshop.path(&format!("tiles/{name}.png")), png).unwrap();
    }
    let read = |name: &str| {
        let bytes = std::fs::read(workshop.path(name)).unwrap();
        decode_with_holes(&bytes, name, &PictureLimits::default()).unwrap()
    };
    for seam in ["blend", "crop"] {
        let command = format!("-q tile tiles out/{seam} --to map --force --model model --seam {seam}");
        workshop.run(&format!("{command} --lower-zooms downsample --min-zoom 6")).succeeded();
        let (made, holes) = read(&format!("out/{seam}/7/5/3.png"));
        assert_eq!(holes, half);
        assert_ne!(made, Picture::filled(side, side, [255; 3]));
        let (_, holes) = read(&format!("out/{seam}/7/5/4.png"));
        assert_eq!(holes.hole_count(), (side * side) as usize);
        // Its lower right quarter has data, in its right half, and no other does.
        let (_, lower) = read(&format!("out/{seam}/6/2/1.png"));
        assert_eq!(lower.hole_count(), (side * side - SIDE * SIDE) as usize + (SIDE * SIDE / 2) as usize);
    }
}

#[test]
fn tiles_are_translated_and_a_run_goes_on() {
    let workshop = Workshop::new();
    for name in ["7/5/3", "7/5/4", "7/6/3", "8/10/7"] {
        let file = format!("tiles/{name}.png");
        std::fs::create_dir_all(workshop.path(&file).parent().unwrap()).unwrap();
        workshop.picture(&file, 2 * SIDE, 2 * SIDE);
    }
    let tile = |output: &str, more: &str| {
        let finished =
            workshop.run(&format!("-q tile tiles {output} --to map --force --model model --json {more}"));
        (finished.code, finished)
    };
    let (code, dry) = tile("out/dry", "--dry-run");
    assert_eq!((code, dry.json()["tiles"].as_u64()), (0, Some(4)), "{}", dry.stderr);
    assert!(!workshop.path("out/dry").exists());

    let (code, all) = tile("out/all", "");
    assert_eq!(code, 0, "{}", all.stderr);
    workshop.is_labelled("out/all/7/5/4.png", "map");
    let made = workshop.read("out/all/7/5/4.png");
    assert_eq!((made.width(), made.height()), (2 * SIDE, 2 * SIDE));
    let metadata = std::fs::read_to_string(workshop.path("out/all/tilejson.json")).unwrap();
    assert!(metadata.contains("synthetic"), "{metadata}");
    // The same place and seed, the same bytes, whatever else is made.
    let (_, one) = tile("out/one", "--min-zoom 8");
    assert_eq!(one.json()["made"], 1);
    let bytes = |name: &str| std::fs::read(workshop.path(name)).unwrap();
    assert!(bytes("out/one/8/10/7.png") == bytes("out/all/8/10/7.png"));

    std::fs::remove_file(workshop.path("out/all/7/6/3.png")).unwrap();
    for more in ["", "--dry-run"] {
        assert_eq!(tile("out/all", more).0, 1, "tiles that are there are not replaced unasked");
    }
    let (_, resumed) = tile("out/all", "--resume");
    assert_eq!((resumed.json()["tiles"].as_u64(), resumed.json()["made"].as_u64()), (Some(4), Some(1)));

    // Borders of tiles are no borders of what is made: a block made whole and in two parts is the same.
    let (_, west) = tile("out/west", "--bbox -165.8,-85,-163.3,85 --min-zoom 7 --max-zoom 7");
    assert_eq!(west.json()["made"].as_u64(), Some(2), "{}", west.stdout);
    for name in ["7/5/3.png", "7/5/4.png"] {
        assert!(bytes(&format!("out/west/{name}")) == bytes(&format!("out/all/{name}")), "{name}");
    }
    assert!(
        tile("out/apart", "--seam crop").0 == 0 && bytes("out/apart/7/5/4.png") != bytes("out/all/7/5/4.png")
    );

    // Lower zooms out of the deepest one.
    let (code, lower) = tile("out/lower.mbtiles", "--lower-zooms downsample --min-zoom 5");
    assert_eq!((code, lower.json()["made"].as_u64()), (0, Some(4)), "{} {}", lower.stdout, lower.stderr);
    let lower = open_tiles(workshop.path("out/lower.mbtiles")).unwrap();
    let names: Vec<String> = lower.tiles().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["5/1/0", "6/2/1", "7/5/3", "8/10/7"]);
    let refused = workshop.run("-q tile tiles out/none --to map --model model");
    assert_eq!((refused.code, refused.stderr.contains("--force")), (4, true), "{}", refused.stderr);

    // A tile that cannot be read does not cost the others.
    std::fs::write(workshop.path("tiles/7/5/3.png"), &bytes("tiles/7/5/3.png")[..60]).unwrap();
    let (code, partly) = tile("out/partly.mbtiles", "");
    assert_eq!((code, partly.stdout.as_str()), (5, "7/5/3\n"), "{}", partly.stderr);
    assert_eq!(tile("out/none", "--bbox 10,10,11,11").0, 3, "no tile lies there");
    assert_eq!(tile("out/none", "--min-zoom 9 --max-zoom 8").0, 2);
    assert!(!workshop.path("out/none").exists());
}

#[test]
fn a_model_trained_without_places_is_not_told_one() {
    let workshop = Workshop::new();
    let bytes = |name: &str| workshop.read(name);
    let translate = |output: &str, model: &str, place: &str| {
        workshop.run(&format!("translate good.png {output} --to map --model {model} {place}")).succeeded()
    };
    let place = "--lat -33.9 --lon 151.2";
    translate("out/a.png", "model", "");
    translate("out/b.png", "model", place);
    assert_ne!(bytes("out/a.png"), bytes("out/b.png"), "a model that knows places hears them");

    let config = workshop.path("model/config.json");
    let text = std::fs::read_to_string(&config)
        .unwrap()
        .replace("\"places_known\": true", "\"places_known\": false");
    std::fs::write(&config, text).unwrap();
    std::fs::remove_file(workshop.path("model/SHA256SUMS")).unwrap();
    let said = translate("out/c.png", "model", place).stderr;
    assert!(said.contains("the place is not used"), "{said}");
    assert_eq!(bytes("out/c.png"), bytes("out/a.png"));
}

#[test]
fn vector_data_become_a_pyramid_and_with_photographs_a_data_set() {
    let workshop = Workshop::new();
    let write = |name: &str, text: &str| std::fs::write(workshop.path(name), text).unwrap();
    // Houses on a square of 0.02°, one for each tile of zoom 16 or so.
    let house = |x: f64, y: f64| {
        let [w, s, e, n] = [x, y, x + 0.002, y + 0.001];
        format!(
            r#"{{"type": "Feature", "properties": {{}}, "geometry": {{"type": "Polygon", "coordinates":
            [[[{w}, {s}], [{e}, {s}], [{e}, {n}], [{w}, {n}], [{w}, {s}]]]}}}}"#
        )
    };
    let houses: Vec<String> =
        (0..36).map(|i| house(11.2 + 0.004 * f64::from(i % 6), 43.7 + 0.003 * f64::from(i / 6))).collect();
    write(
        "houses.geojson",
        &format!(r#"{{"type": "FeatureCollection", "features": [{}]}}"#, houses.join(",")),
    );
    let render = |output: &str, more: &str| {
        workshop.run(&format!("-q render houses.geojson {output} --class building --json {more}"))
    };
    let drawn = render("out/houses", "--min-zoom 14 --max-zoom 16 --bbox 11.2,43.7,11.22,43.715").succeeded();
    let tiles = drawn.json()["tiles"].as_u64().unwrap();
    assert!(tiles > 10 && drawn.json()["made"] == tiles, "{}", drawn.stdout);
    assert_eq!(render("out/none", "--min-zoom 9 --max-zoom 8").code, 2);
    assert_eq!(render("out/houses", "--min-zoom 14 --max-zoom 14").code, 1, "nothing is replaced unasked");
    let again = render("out/houses", "--resume --min-zoom 14 --max-zoom 16 --bbox 11.2,43.7,11.22,43.715");
    assert_eq!(again.succeeded().json()["made"], 0);
    assert_eq!(workshop.run("-q render good.png out/none --min-zoom 1 --max-zoom 1").code, 3);

    // The drawn tiles, coloured, serve as photographs.
    for tile in open_tiles(workshop.path("out/houses")).unwrap().tiles().unwrap() {
        if tile.z() == 16 {
            let name = format!("photographs/{tile}.png");
            let drawn = workshop.read(&format!("out/houses/{tile}.png"));
            let seed = tile.x() * 7 + tile.y() * 13;
            let photograph = Picture::drawn(drawn.width(), drawn.height(), |x, y| {
                let noise = ((x / 5 * 37 + y / 7 * 71 + seed * 29) % 60) as u8;
                drawn.pixel(x, y).map(|value| value / 2 + noise)
            });
            std::fs::create_dir_all(workshop.path(&name).parent().unwrap()).unwrap();
            write_picture(workshop.path(&name), &photograph, &WriteOptions::default()).unwrap();
        }
    }
    write(
        "set.toml",
        "[[sources]]\nname = \"houses\"\nimagery = { path = \"photographs\" }\n\
         map = { path = \"houses.geojson\", class = \"building\" }\n\
         [filters]\nmap_deviation = 1.0\nhaze = \"off\"\ncloud = \"off\"\nblank = \"off\"\nnear_duplicate = \"off\"\n",
    );
    let made = workshop.run("-q dataset make out/set -c set.toml --json").succeeded();
    let kept = made.json()["report"]["kept"].as_u64().unwrap();
    assert!(kept > 4, "{}", made.stdout);
    assert_eq!(
        workshop.run("-q dataset check out/set --json").succeeded().json()["problems"],
        serde_json::json!([])
    );
    let split = workshop.run("-q dataset split out/set --seed 3 --json").succeeded().json();
    let count = |name: &str| split["splits"][name].as_u64().unwrap();
    let all = count("train") + count("validation") + count("test") + split["between"].as_u64().unwrap();
    assert_eq!(all, kept);
    workshop.run("-q dataset stats out/set out/set.html").succeeded();
    let page = std::fs::read_to_string(workshop.path("out/set.html")).unwrap();
    assert!(page.contains("data:image/png;base64,") && !page.contains("<script"));
    std::fs::remove_file(workshop.path(&format!("out/set/{}", first_pair(&workshop)))).unwrap();
    let broken = workshop.run("-q dataset check out/set");
    assert_eq!(broken.code, 3, "{}", broken.stderr);
    assert!(broken.stdout.contains("houses"), "{}", broken.stdout);
    write("wrong.toml", "sauces = []\n");
    assert_eq!(workshop.run("-q dataset make out/wrong -c wrong.toml").code, 3);
    assert!(!workshop.path("out/wrong").exists());
}

/// The file of the first pair of `out/set`, inside it.
fn first_pair(workshop: &Workshop) -> String {
    let manifest = std::fs::read_to_string(workshop.path("out/set/manifest.jsonl")).unwrap();
    let pair: serde_json::Value = serde_json::from_str(manifest.lines().nth(1).unwrap()).unwrap();
    pair["file"].as_str().unwrap().to_owned()
}
