//! The metrics on real maps: what a blank map and a blurred truth score fixes the definitions.
//!
//! Looks for `new-york/train` under `$EARTHMAPPER_DATA`, then under `../shared/data` beside the workspace.

use std::path::{Path, PathBuf};

use earthmapper_geo::picture::{Picture, PictureLimits, read_picture};
use image::{RgbImage, imageops};

use super::*;

fn training_folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let roots = std::env::var_os("EARTHMAPPER_DATA").map(PathBuf::from).into_iter().chain([beside]);
    let found = roots.map(|root| root.join("new-york/train")).find(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("skipped: no new-york/train under $EARTHMAPPER_DATA or ../shared/data");
    }
    found
}

/// The map of a pair, its right half, at 256 pixels (bicubic, as in the definition of the reference numbers).
fn map(folder: &Path, number: u32) -> Picture {
    let pair = read_picture(folder.join(format!("{number}.jpg")), &PictureLimits::default()).unwrap();
    let half = pair.width() / 2;
    bicubic(&pair.crop(half, 0, half, pair.height()), 256)
}

fn bicubic(picture: &Picture, side: u32) -> Picture {
    let image = RgbImage::from_raw(picture.width(), picture.height(), picture.rgb().to_vec()).unwrap();
    Picture::new(side, side, imageops::resize(&image, side, side, imageops::CatmullRom).into_raw()).unwrap()
}

/// The picture at a quarter of its size, enlarged again: what a model that only knows 64 pixels could tell at best.
fn blurred(picture: &Picture) -> Picture {
    bicubic(&bicubic(picture, picture.width() / 4), picture.width())
}

fn within(value: f64, expected: f64, tolerance: f64) {
    assert!((value - expected).abs() <= tolerance, "{value} is not {expected} ± {tolerance}");
}

#[test]
fn a_blank_map_and_a_blurred_truth_score_as_documented() {
    let Some(folder) = training_folder() else { return };
    let mut blank = MapScores::new(Palette::new_york());
    let mut blur = MapScores::new(Palette::new_york());
    for number in (1001..=1096).step_by(4) {
        let truth = map(&folder, number);
        // The median colour of the maps of pairs 1 … 1000, see the ignored test below.
        blank.add(&blank_map(256, 256, [232, 228, 224]), &truth).unwrap();
        blur.add(&blurred(&truth), &truth).unwrap();
    }
    let (blank, blur) = (blank.summary().unwrap(), blur.summary().unwrap());
    println!("{}", comparison_table(&[("blank map", &blank), ("truth, downsampled 4×", &blur)]));

    within(blank.psnr.mean, 21.3, 0.3);
    within(blank.ssim.mean, 0.69, 0.02);
    for name in ["water", "park", "highway", "road"] {
        assert_eq!(blank.class(name).unwrap().intersection_over_union, Some(0.0), "{name}");
    }
    assert_eq!(blank.roads.f1, Some(0.0));

    within(blur.class("road").unwrap().intersection_over_union.unwrap(), 0.26, 0.03);
    within(blur.roads.f1.unwrap(), 0.88, 0.03);
    assert!(blur.class("water").unwrap().intersection_over_union.unwrap() > 0.97);
}

#[test]
#[ignore = "reads a thousand pairs: half a minute"]
fn the_training_maps_have_the_documented_colours() {
    let Some(folder) = training_folder() else { return };
    let maps: Vec<Picture> = (1..=1000).map(|number| map(&folder, number)).collect();
    println!("median colour {:?}", median_colour(maps.iter().cloned()));
    let palette = Palette::measure(maps.iter().cloned()).unwrap();
    println!("{palette:#?}");
    assert_eq!(palette, Palette::new_york());
    assert_eq!(median_colour(maps), Some([232, 228, 224]));
}

#[test]
#[ignore = "reads all validation pairs: prints the table of the whole set"]
fn the_whole_validation_set() {
    let Some(folder) = training_folder() else { return };
    let mut blank = MapScores::new(Palette::new_york());
    let mut blur = MapScores::new(Palette::new_york());
    for number in 1001..=1096 {
        let truth = map(&folder, number);
        blank.add(&blank_map(256, 256, [232, 228, 224]), &truth).unwrap();
        blur.add(&blurred(&truth), &truth).unwrap();
    }
    let (blank, blur) = (blank.summary().unwrap(), blur.summary().unwrap());
    println!("{}", comparison_table(&[("blank map", &blank), ("truth, downsampled 4×", &blur)]));
    within(blank.psnr.mean, 21.9, 0.1);
    within(blank.ssim.mean, 0.69, 0.01);
}
