//! Whether borders of windows show in what the bundled model makes of real scenes. The pictures are written into the folder
//! that `EARTHMAPPER_SHEETS` names.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use earthmapper::scene::{Seam, WindowOptions};
use earthmapper::windows::Setting;
use earthmapper::{EarthMapper, Modality, Translator};
use earthmapper_geo::raster::{PixelWindow, RasterLimits, RasterReader, Stretch};
use earthmapper_geo::{Picture, PictureLimits, read_picture};
use earthmapper_lab::metrics::seam_ratio;

/// The most that borders may stand out with the default seam.
const MOST: f64 = 1.1;

/// Real data, where they are at hand: `$EARTHMAPPER_DATA`, else `../shared/data` beside the repository.
fn data(name: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let folder = std::env::var_os("EARTHMAPPER_DATA").map_or_else(|| Path::new(beside).into(), PathBuf::from);
    let path = folder.join(name);
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}

fn bundled() -> EarthMapper {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/earthmapper-mini");
    EarthMapper::load(Path::new(folder), &Device::flex()).unwrap()
}

/// Translates a picture with each seam and prints how much borders stand out; that of the default is at most [`MOST`].
fn measure(name: &str, picture: &Picture) {
    let model = bundled();
    let translator = Translator::new(&model);
    let (columns, rows) = (translator.borders(picture.width()), translator.borders(picture.height()));
    let options = model.generation.towards(Modality::Map);
    let setting = Setting { place: None, seed: 1, options };
    let mut ratios = Vec::new();
    for seam in [Seam::Crop, Seam::Blend, Seam::Outpaint] {
        let windows = WindowOptions { seam, ..Default::default() };
        let made = translator
            .translate(picture, Modality::Map, &setting, &windows, &mut |_, _| {})
            .unwrap()
            .remove(0)
            .picture;
        // The worst of the three kinds of borders.
        let ratio = columns
            .iter()
            .zip(&rows)
            .map(|(columns, rows)| seam_ratio(&made, columns, rows).unwrap())
            .fold(0.0, f64::max);
        println!("{name}: {seam}: steps across borders over steps inside: {ratio:.3}");
        if let Some(folder) = std::env::var_os("EARTHMAPPER_SHEETS") {
            let path = Path::new(&folder).join(format!("{name}-{seam}.png"));
            earthmapper_geo::write_picture(path, &made, &Default::default()).unwrap();
        }
        ratios.push((seam, ratio));
    }
    let of = |seam| ratios.iter().find(|(other, _)| *other == seam).unwrap().1;
    assert!(of(Seam::default()) <= MOST, "borders show: {:.3}", of(Seam::default()));
    assert!(of(Seam::Crop) > of(Seam::default()), "windows that are cut apart show more");
}

#[test]
fn borders_do_not_show_in_an_aerial_photograph() {
    let Some(path) = data("naip/m_4709963_se_14_1_20200831.tif") else { return };
    let reader = RasterReader::open(path, &RasterLimits::default()).unwrap();
    let rendering = reader.rendering(None, Stretch::Auto).unwrap();
    // The whole scene: on a part of 1,000 × 1,000 pixels chance alone moves the ratio by a half, as the same borders moved by some
    // pixels show.
    let window = reader.read_window(0, PixelWindow::new(0, 0, 900, 700), &rendering).unwrap();
    // 5 m a pixel; the model was trained at 2.1 m.
    measure("naip", &window.picture.resized(2143, 1667));
}

#[test]
fn borders_do_not_show_in_a_mosaic_of_drone_tiles() {
    let Some(folder) = data("openaerialmap/zanzibar") else { return };
    // Zoom 19 covers 0.3 m a pixel; the ground is drawn larger than the model knows it, which does not matter here.
    let row = |y: u32| {
        let tile = |x: u32| folder.join(format!("OAM-{x}-{y}-19.png"));
        let tiles: Vec<Picture> =
            (319_292..319_296).map(|x| read_picture(tile(x), &PictureLimits::default()).unwrap()).collect();
        Picture::hconcat(&tiles.iter().collect::<Vec<_>>())
    };
    let rows: Vec<Picture> = (270_960..270_964).map(row).collect();
    measure("zanzibar", &Picture::vconcat(&rows.iter().collect::<Vec<_>>()));
}
