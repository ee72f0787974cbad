//! Rasters: every way a GeoTIFF may be laid out, what has no data, what lies where, what is written, and bad files.

use std::fs;
use std::path::{Path, PathBuf};

use earthmapper_geo::raster::{
    AffineTransform, CrsError, Epsg, GeoKeys, GeoReference, PixelIs, PixelWindow, RasterError, RasterLimits,
    RasterOptions, RasterReader, RasterWindow, RasterWriter, SampleType, Stretch, Validity,
};
use earthmapper_geo::{Mask, Picture, Provenance, WriteError};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use tiff_reader::constants::{Compression, PlanarConfiguration, Predictor};
use tiff_reader::{ByteOrder, ExtraSample, PhotometricInterpretation, Tag, TagValue};
use tiff_writer::{
    DataLayout, ImageBuilder, ImageHandle, TiffVariant, TiffWriteSample, TiffWriter, WriteOptions,
};

type Sink = TiffWriter<fs::File>;

fn create(path: &Path, byte_order: ByteOrder, variant: TiffVariant) -> Sink {
    TiffWriter::new(fs::File::create(path).unwrap(), WriteOptions { byte_order, variant }).unwrap()
}

/// Writes one picture into a TIFF; `value` gives the number of a pixel (x, y) in a band.
fn add<T: TiffWriteSample + Default>(
    sink: &mut Sink,
    builder: ImageBuilder,
    (width, height, bands): (u32, u32, usize),
    value: impl Fn(u32, u32, usize) -> T,
) -> ImageHandle {
    let planar = usize::from(builder.block_samples_per_pixel()) < bands;
    let (block_width, block_height, is_tiled) = match builder.data_layout() {
        DataLayout::Strips { rows_per_strip } => (width, rows_per_strip, false),
        DataLayout::Tiles { width, height } => (width, height, true),
    };
    let handle = sink.add_image(builder).unwrap();
    let mut index = 0;
    let planes: Vec<Vec<usize>> =
        if planar { (0..bands).map(|band| vec![band]).collect() } else { vec![(0..bands).collect()] };
    for plane in planes {
        for top in (0..height).step_by(block_height as usize) {
            for left in (0..width).step_by(block_width as usize) {
                let rows = if is_tiled { block_height } else { block_height.min(height - top) };
                let mut block = Vec::new();
                for y in top..top + rows {
                    for x in left..left + block_width {
                        let inside = x < width && y < height;
                        block.extend(
                            plane.iter().map(|band| if inside { value(x, y, *band) } else { T::default() }),
                        );
                    }
                }
                sink.write_block(&handle, index, &block).unwrap();
                index += 1;
            }
        }
    }
    handle
}

/// Writes a TIFF of one picture.
fn write<T: TiffWriteSample + Default>(
    path: &Path,
    builder: ImageBuilder,
    size: (u32, u32, usize),
    value: impl Fn(u32, u32, usize) -> T,
) {
    let mut sink = create(path, ByteOrder::LittleEndian, TiffVariant::Auto);
    add(&mut sink, builder, size, value);
    sink.finish().unwrap();
}

fn builder<T: TiffWriteSample>(width: u32, height: u32, bands: u16) -> ImageBuilder {
    let photometric =
        if bands == 3 { PhotometricInterpretation::Rgb } else { PhotometricInterpretation::MinIsBlack };
    let builder = ImageBuilder::new(width, height).sample_type::<T>().samples_per_pixel(bands);
    let extra = usize::from(bands).saturating_sub(if bands == 3 { 3 } else { 1 });
    builder.photometric(photometric).extra_samples(vec![ExtraSample::Unspecified; extra]).tiles(64, 48)
}

fn text_tag(code: u16, text: &str) -> Tag {
    Tag::new(code, TagValue::Ascii(text.to_owned()))
}

fn double_tag(code: u16, values: &[f64]) -> Tag {
    Tag::new(code, TagValue::Double(values.to_vec()))
}

fn open(path: &Path) -> RasterReader {
    RasterReader::open(path, &RasterLimits::default()).unwrap()
}

fn whole(reader: &RasterReader) -> PixelWindow {
    PixelWindow::new(0, 0, reader.width(), reader.height())
}

fn read(reader: &RasterReader, window: PixelWindow) -> RasterWindow {
    let rendering = reader.rendering(None, Stretch::Auto).unwrap();
    reader.read_window(0, window, &rendering).unwrap()
}

/// A colour that differs from pixel to pixel and is never black.
fn colour(x: u32, y: u32, band: usize) -> u8 {
    (1 + (x * 7 + y * 13 + band as u32 * 71) % 255) as u8
}

fn colours(window: PixelWindow) -> Picture {
    Picture::drawn(window.width, window.height, |x, y| {
        [0, 1, 2].map(|band| colour(window.x + x, window.y + y, band))
    })
}

fn utm() -> GeoReference {
    GeoReference::from_epsg(AffineTransform::north_up((485_900.0, 5_209_245.0), (5.0, 5.0)), Epsg(26914))
        .unwrap()
}

#[test]
fn every_layout_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let (width, height) = (200, 130);
    let mut builders = Vec::new();
    for compression in [Compression::None, Compression::Lzw, Compression::Deflate, Compression::Zstd] {
        for planar in [PlanarConfiguration::Chunky, PlanarConfiguration::Planar] {
            let plain = builder::<u8>(width, height, 3).compression(compression).planar_configuration(planar);
            builders.push((format!("{compression:?} {planar:?} tiles"), plain.clone()));
            builders.push((format!("{compression:?} {planar:?} strips"), plain.clone().strips(7)));
            builders.push((format!("{compression:?} {planar:?} one strip"), plain.strips(height)));
        }
    }
    let predicted = builder::<u8>(width, height, 3).compression(Compression::Deflate);
    builders.push(("predictor".to_owned(), predicted.predictor(Predictor::Horizontal)));
    for (name, builder) in builders {
        for (order, variant) in [
            (ByteOrder::LittleEndian, TiffVariant::Classic),
            (ByteOrder::BigEndian, TiffVariant::Classic),
            (ByteOrder::LittleEndian, TiffVariant::BigTiff),
        ] {
            let mut sink = create(&path, order, variant);
            add(&mut sink, builder.clone(), (width, height, 3), colour);
            sink.finish().unwrap();
            let reader = open(&path);
            assert_eq!((reader.band_count(), reader.sample_type()), (3, SampleType::U8));
            for window in [whole(&reader), PixelWindow::new(60, 40, 70, 60), PixelWindow::new(199, 129, 1, 1)]
            {
                let found = read(&reader, window);
                assert_eq!(found.picture, colours(window), "{name}, {variant:?}, {window}");
                assert_eq!(found.nodata.hole_count(), 0);
            }
        }
    }
}

#[test]
fn jpeg_tiles_are_read_as_colours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let smooth = |x: u32, y: u32, band: usize| (x + y / 2 + band as u32 * 40) as u8;
    let mut sink = create(&path, ByteOrder::LittleEndian, TiffVariant::Classic);
    let handle = sink.add_image(builder::<u8>(128, 96, 3).tiles(64, 64)).unwrap();
    for index in 0..4 {
        let (left, top) = (index % 2 * 64, index / 2 * 64);
        let tile = Picture::drawn(64, 64, |x, y| [0, 1, 2].map(|band| smooth(left + x, top + y, band)));
        let mut bytes = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
        encoder.write_image(tile.rgb(), 64, 64, ExtendedColorType::Rgb8).unwrap();
        sink.write_block_raw(&handle, index as usize, &bytes).unwrap();
    }
    sink.finish().unwrap();
    // The writer knows no JPEG, so the tags learn of it afterwards.
    let mut bytes = fs::read(&path).unwrap();
    for (code, value) in [(259, 7), (262, 6)] {
        let (at, _) = value_in(&bytes, position(&bytes, 4), code);
        bytes[at.expect("the tag is there")] = value;
    }
    fs::write(&path, bytes).unwrap();
    let found = read(&open(&path), PixelWindow::new(0, 0, 128, 60));
    let pixels = (0..60).flat_map(|y| (0..128).map(move |x| (x, y)));
    let far = pixels.filter(|&(x, y)| {
        let pixel = found.picture.pixel(x, y);
        (0..3).any(|band| pixel[band].abs_diff(smooth(x, y, band)) > 12)
    });
    assert_eq!(far.count(), 0);
}

#[test]
fn numbers_are_stretched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let size = (100, 100, 1);
    let grey = |found: &RasterWindow, x, y| found.picture.pixel(x, y);

    // 16 bits, as satellites send them: 0 … 9999, and outliers that percentiles pass over.
    let outlier = |x, y| if (x, y) == (0, 0) { 65_000 } else { (y * 100 + x) as u16 };
    write(&path, builder::<u16>(100, 100, 1), size, |x, y, _| outlier(x, y));
    let reader = open(&path);
    let found = read(&reader, whole(&reader));
    assert_eq!([grey(&found, 50, 1), grey(&found, 0, 0), grey(&found, 50, 99)], [[0; 3], [255; 3], [255; 3]]);
    assert!((126..=129).contains(&grey(&found, 0, 50)[0]));
    let range = reader.rendering(None, Stretch::Auto).unwrap().ranges()[0];
    assert!((range.0 - 200.0).abs() < 2.0 && (range.1 - 9800.0).abs() < 2.0, "{range:?}");
    let given = reader.rendering(None, Stretch::Range { low: 0.0, high: 5100.0 }).unwrap();
    assert_eq!(grey(&reader.read_window(0, whole(&reader), &given).unwrap(), 0, 10), [50; 3]);
    let whole_range = reader.rendering(None, Stretch::Whole).unwrap();
    assert_eq!(grey(&reader.read_window(0, whole(&reader), &whole_range).unwrap(), 0, 0), [253; 3]);

    // Heights below zero.
    write(&path, builder::<i16>(100, 100, 1), size, |x, _, _| x as i16 * 10 - 500);
    let reader = open(&path);
    let full = Stretch::Percentiles { low: 0.0, high: 100.0 };
    assert_eq!(reader.rendering(None, full).unwrap().ranges(), [(-500.0, 490.0)]);

    // Fractions, some of which are none.
    for (nodata, missing) in [("-9999", -9999.0), ("nan", f32::NAN), ("-3.4028234663852886e+38", f32::MIN)] {
        let builder = builder::<f32>(100, 100, 1).tag(text_tag(42113, nodata));
        write(&path, builder, size, |x, y, _| match (x, y) {
            (3, 4) => missing,
            (5, 6) => f32::NAN,
            (7, 8) => f32::INFINITY,
            _ => x as f32 / 100.0,
        });
        let reader = open(&path);
        let rendering = reader.rendering(None, full).unwrap();
        assert_eq!(rendering.ranges(), [(0.0, f64::from(99_f32 / 100.0))]);
        let found = reader.read_window(0, whole(&reader), &rendering).unwrap();
        assert_eq!(found.nodata, Mask::drawn(100, 100, |x, y| [(3, 4), (5, 6), (7, 8)].contains(&(x, y))));
        assert_eq!([grey(&found, 3, 4), grey(&found, 99, 4)], [[0; 3], [255; 3]]);
        assert_eq!(reader.validity(), Validity::Alpha);
    }

    // Nothing but holes.
    write(&path, builder::<f32>(100, 100, 1), size, |_, _, _| f32::NAN);
    let reader = open(&path);
    assert_eq!(read(&reader, whole(&reader)).nodata.hole_count(), 10_000);

    for stretch in
        [Stretch::Range { low: 5.0, high: 5.0 }, Stretch::Percentiles { low: f64::NAN, high: 98.0 }]
    {
        let error = reader.rendering(None, stretch).unwrap_err();
        assert!(matches!(error, RasterError::EmptyStretch { .. }), "{error}");
    }
}

#[test]
fn percentiles_come_from_an_overview() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let mut sink = create(&path, ByteOrder::LittleEndian, TiffVariant::Auto);
    add(&mut sink, builder::<u16>(600, 600, 1), (600, 600, 1), |_, _, _| 7_u16);
    add(&mut sink, builder::<u16>(300, 300, 1).overview(), (300, 300, 1), |x, _, _| x as u16);
    sink.finish().unwrap();
    let reader = open(&path);
    assert_eq!(reader.levels(), [(600, 600), (300, 300)]);
    let full = reader.rendering(None, Stretch::Percentiles { low: 0.0, high: 100.0 }).unwrap();
    assert_eq!(full.ranges(), [(0.0, 299.0)]);
    let found = reader.read_window(1, PixelWindow::new(299, 0, 1, 1), &full).unwrap();
    assert_eq!(found.picture.pixel(0, 0), [255; 3]);
}

#[test]
fn bands_are_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    // Six bands are decoded one by one, and alpha may lie between them.
    let mut extra = vec![ExtraSample::Unspecified; 5];
    extra[1] = ExtraSample::UnassociatedAlpha;
    let with_alpha = builder::<u8>(70, 50, 6).extra_samples(extra);
    write(&path, with_alpha, (70, 50, 6), |x, _, band| if band == 2 && x == 9 { 0 } else { 10 + band as u8 });
    let reader = open(&path);
    assert_eq!(reader.band_count(), 5);
    for (bands, expected) in
        [(None, [10, 11, 13]), (Some(&[5, 3, 1][..]), [15, 13, 10]), (Some(&[4][..]), [14; 3])]
    {
        let rendering = reader.rendering(bands, Stretch::Auto).unwrap();
        let found = reader.read_window(0, whole(&reader), &rendering).unwrap();
        assert_eq!(found.picture.pixel(0, 0), expected);
        assert_eq!(found.nodata, Mask::drawn(70, 50, |x, _| x == 9));
        assert_eq!(found.picture.pixel(9, 0), [0; 3]);
    }
    for bands in [&[][..], &[0], &[6], &[1, 2], &[1, 2, 3, 4]] {
        let error = reader.rendering(Some(bands), Stretch::Auto).unwrap_err();
        assert!(error.to_string().contains("of 5; give one band or three"), "{error}");
    }

    // GDAL's own word on a band is stronger than the tag's: near infrared is often tagged as alpha.
    for (role, bands) in [("Undefined", 4), ("Alpha", 3)] {
        let item = format!(r#"<Item name="COLORINTERP" sample="3" role="colorinterp">{role}</Item>"#);
        let tagged = builder::<u8>(70, 50, 4)
            .photometric(PhotometricInterpretation::Rgb)
            .extra_samples(vec![ExtraSample::UnassociatedAlpha])
            .tag(text_tag(42112, &format!("<GDALMetadata>\n  {item}\n</GDALMetadata>")));
        write(&path, tagged, (70, 50, 4), |x, _, band| if band == 3 && x == 9 { 0 } else { 20_u8 });
        let reader = open(&path);
        assert_eq!(reader.band_count(), bands);
        assert_eq!(read(&reader, whole(&reader)).nodata.hole_count(), if role == "Alpha" { 50 } else { 0 });
    }
}

#[test]
fn holes_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let size = (100, 90, 3);

    // The nodata value in all bands shown, not in one only.
    let builder = || builder::<u8>(100, 90, 3);
    write(&path, builder().tag(text_tag(42113, "0 ")), size, |x, y, band| {
        if x == 70 || (x == 71 && band == 1) { 0 } else { colour(x, y, band) }
    });
    let reader = open(&path);
    assert_eq!((reader.nodata(), reader.validity()), (Some(0.0), Validity::Nodata(0)));
    let window = PixelWindow::new(60, 40, 30, 20);
    assert_eq!(read(&reader, window).nodata, Mask::drawn(30, 20, |x, _| x == 10));

    // A mask of its own, for the raster and for the overview.
    let mask = |width, height| {
        ImageBuilder::new(width, height)
            .sample_type::<u8>()
            .photometric(PhotometricInterpretation::Mask)
            .tiles(32, 32)
            .overview()
    };
    let mut sink = create(&path, ByteOrder::LittleEndian, TiffVariant::Auto);
    add(&mut sink, builder(), size, colour);
    add(&mut sink, mask(100, 90), (100, 90, 1), |x, y, _| if x > y { 255_u8 } else { 0 });
    add(&mut sink, self::builder::<u8>(50, 45, 3).overview(), (50, 45, 3), colour);
    add(&mut sink, mask(50, 45), (50, 45, 1), |x, _, _| if x == 5 { 0_u8 } else { 255 });
    sink.finish().unwrap();
    set_subfiles(&path, &[0, 4, 1, 5]);
    let reader = open(&path);
    assert_eq!((reader.levels(), reader.validity()), (vec![(100, 90), (50, 45)], Validity::Alpha));
    assert_eq!(read(&reader, window).nodata, Mask::drawn(30, 20, |x, y| x + 60 <= y + 40));
    let rendering = reader.rendering(None, Stretch::Auto).unwrap();
    let small = reader.read_window(1, PixelWindow::new(0, 0, 50, 45), &rendering).unwrap();
    assert_eq!(small.nodata, Mask::drawn(50, 45, |x, _| x == 5));

    // Tiles that were left out.
    let mut sink = create(&path, ByteOrder::LittleEndian, TiffVariant::Auto);
    let handle = sink.add_image(builder().tiles(64, 64)).unwrap();
    for index in [0, 1, 3] {
        sink.write_block(&handle, index, &[9_u8; 64 * 64 * 3]).unwrap();
    }
    sink.write_block_sparse(&handle, 2).unwrap();
    sink.finish().unwrap();
    let reader = open(&path);
    assert_eq!(read(&reader, whole(&reader)).nodata, Mask::drawn(100, 90, |x, y| x < 64 && y >= 64));
    assert_eq!(read(&reader, PixelWindow::new(63, 63, 2, 2)).nodata.holes(), [false, false, true, false]);
    assert_eq!(reader.validity(), Validity::Alpha);
}

#[test]
fn places_are_read_as_files_say_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let keys = |pixel: u16| {
        Tag::new(
            34735,
            TagValue::Short(vec![1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, pixel, 3072, 0, 1, 32614]),
        )
    };
    let origin = |tags: Vec<Tag>| {
        let builder = tags.into_iter().fold(builder::<u8>(10, 10, 3), ImageBuilder::tag);
        write(&path, builder, (10, 10, 3), colour);
        open(&path).georeference().map(|reference| (*reference.transform(), reference.pixel_is()))
    };
    let scale = || double_tag(33550, &[2.0, 3.0, 0.0]);
    let tie = || double_tag(33922, &[0.0, 0.0, 0.0, 500.0, 700.0, 0.0]);
    let expected = AffineTransform::north_up((500.0, 700.0), (2.0, 3.0));
    assert_eq!(origin(vec![scale(), tie(), keys(1)]).unwrap(), (expected, PixelIs::Area));
    // A point is the centre of its pixel, so the corner lies half a pixel up and left.
    let (transform, pixel_is) = origin(vec![scale(), tie(), keys(2)]).unwrap();
    assert_eq!((transform.origin, pixel_is), ((499.0, 701.5), PixelIs::Point));
    // A tie point anywhere.
    let elsewhere = double_tag(33922, &[4.0, 5.0, 0.0, 508.0, 685.0, 0.0]);
    assert_eq!(origin(vec![scale(), elsewhere, keys(1)]).unwrap().0, expected);
    // A matrix, rotated and with rows running north.
    let matrix = [[0.6, -0.8, 0.0, 500.0], [0.8, 0.6, 0.0, 700.0], [0.0; 4], [0.0, 0.0, 0.0, 1.0]];
    let rotated = AffineTransform { origin: (500.0, 700.0), right: (0.6, 0.8), down: (-0.8, 0.6) };
    assert_eq!(origin(vec![double_tag(34264, matrix.as_flattened()), keys(1)]).unwrap().0, rotated);

    let points =
        [[0.0, 0.0, 0.0, 1.0, 2.0, 0.0], [9.0, 0.0, 0.0, 3.0, 2.0, 0.0], [0.0, 9.0, 0.0, 1.0, 5.0, 0.0]];
    let error = origin(vec![double_tag(33922, points.as_flattened())]).unwrap_err();
    assert!(error.to_string().ends_with("warp it first: gdalwarp IN OUT.tif"), "{error}");
    for tags in [
        vec![],
        vec![double_tag(33550, &[0.0, 0.0, 0.0]), tie()],
        vec![double_tag(33550, &[f64::NAN, 1.0, 0.0]), tie()],
    ] {
        let error = origin(tags).unwrap_err();
        assert!(matches!(error, RasterError::NoGeoReference { .. }), "{error}");
        assert!(open(&path).place(0.0, 0.0).is_err());
        assert_eq!(
            read(&open(&path), PixelWindow::new(0, 0, 10, 10)).nodata.hole_count(),
            0,
            "pixels can be read"
        );
    }

    // A transform without a CRS: an error that names the cure, and the cure.
    origin(vec![scale(), double_tag(33922, &[0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0])]).unwrap();
    let error = open(&path).place(0.0, 0.0).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: has no coordinate reference system; name it with --crs EPSG:…", path.display())
    );
    let place = open(&path).with_crs(Epsg(32614)).unwrap().place(0.0, 0.0).unwrap();
    assert_eq!(place.position().longitude().round(), -99.0);
    assert!(matches!(
        open(&path).with_crs(Epsg(1)),
        Err(RasterError::Crs { cause: CrsError::Unknown(_), .. })
    ));
}

/// Against PROJ 9 without grids; longitude and latitude to 7 digits.
#[test]
fn coordinates_agree_with_proj() {
    #[rustfmt::skip]
    let expected = [
        (5070, -200000.0, 2000000.0, -98.3966152, 40.9864886),
        (2263, 1000000.0, 200000.0, -73.9431851, 40.7156165),
        (3035, 4300000.0, 3200000.0, 9.6948373, 51.9097308),
        (2154, 700000.0, 6600000.0, 3.0000000, 46.5000000),
        (3413, 1000000.0, -1000000.0, 0.0000000, 76.9988155),
        (32661, 2100000.0, 1900000.0, 45.0000000, 88.7262574),
        (3006, 500000.0, 6600000.0, 15.0000000, 59.5383491),
        (25832, 500000.0, 5500000.0, 9.0000000, 49.6525429),
        (6933, 1000000.0, 3000000.0, 10.3641678, 24.2124744),
        (3395, 1000000.0, 6000000.0, 8.9831528, 47.5453096),
        (3978, 0.0, 0.0, -95.0000000, 49.0000000),
        (3857, 1000000.0, 6000000.0, 8.9831528, 47.3537047),
        (4326, 10.0, 50.0, 10.0000000, 50.0000000),
        (4269, -97.0, 47.0, -97.0000000, 47.0000000),
        (3577, 0.0, -4000000.0, 132.0000000, -36.6022958),
        (2193, 1600000.0, 5400000.0, 173.0000000, -41.5516645),
        (3347, 6000000.0, 1500000.0, -94.6405504, 49.5999778),
        (3338, 0.0, 1000000.0, -154.0000000, 58.9957342),
        (26914, 488234.0, 5207438.5, -99.1548225, 47.0203620),
    ];
    // Datums that PROJ shifts by a grid or by newer parameters: a few metres.
    #[rustfmt::skip]
    let roughly = [
        (27700, 400000.0, 300000.0, -2.0014331, 52.5977924),
        (28992, 155000.0, 463000.0, 5.3872035, 52.1551723),
        (31287, 400000.0, 400000.0, 13.3325941, 47.4994821),
        (2056, 2600000.0, 1200000.0, 7.4386324, 46.9510828),
        (21781, 600000.0, 200000.0, 7.4386324, 46.9510828),
    ];
    let all = expected.map(|row| (row, 1e-6)).into_iter().chain(roughly.map(|row| (row, 1e-4)));
    for ((epsg, x, y, longitude, latitude), tolerance) in all {
        let transform = AffineTransform::north_up((x, y), (0.001, 0.001));
        let place = GeoReference::from_epsg(transform, Epsg(epsg)).unwrap().place(0.0, 0.0).unwrap();
        let found = (place.position().longitude(), place.position().latitude());
        assert!(
            (found.0 - longitude).abs() < tolerance && (found.1 - latitude).abs() < tolerance,
            "EPSG:{epsg}: {found:?} is not {:?}",
            (longitude, latitude)
        );
    }
}

#[test]
fn bad_files_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let refused = |path: &Path| {
        let error = RasterReader::open(path, &RasterLimits::default()).err().expect("refused");
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
        error
    };
    assert!(matches!(refused(&path("missing.tif")), RasterError::NotFound { .. }));
    assert!(matches!(refused(folder.path()), RasterError::Folder { .. }));
    fs::write(path("empty.tif"), b"").unwrap();
    assert!(matches!(refused(&path("empty.tif")), RasterError::EmptyFile { .. }));
    fs::write(path("a.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    assert!(matches!(refused(&path("a.png")), RasterError::NotATiff { .. }));
    if cfg!(unix) {
        assert!(matches!(refused(Path::new("/dev/null")), RasterError::NotATiff { .. }));
    }

    // Types that are no pictures.
    write(&path("u64.tif"), builder::<u64>(10, 10, 1), (10, 10, 1), |_, _, _| 1_u64);
    let error = refused(&path("u64.tif"));
    assert!(error.to_string().contains("64-bit samples of format 1"), "{error}");

    // Cut short anywhere: refused at once or when the pixels are read, never a panic.
    let good = path("good.tif");
    write(&good, builder::<u8>(100, 90, 3).compression(Compression::Deflate), (100, 90, 3), colour);
    let bytes = fs::read(&good).unwrap();
    let cut = path("cut.tif");
    for length in (1..bytes.len()).step_by(bytes.len() / 97) {
        fs::write(&cut, &bytes[..length]).unwrap();
        let error = RasterReader::open(&cut, &RasterLimits::default())
            .and_then(|reader| {
                let rendering = reader.rendering(None, Stretch::Auto)?;
                reader.read_window(0, whole(&reader), &rendering)
            })
            .expect_err("a file cut short");
        let text = error.to_string();
        assert!(text.starts_with(&cut.display().to_string()) && text.contains("; "), "{text}");
    }

    // Every byte of the header wrong in turn: an error or a picture, never a panic or a flood of memory.
    let table = position(&bytes, 4);
    let end = (table + 2 + 14 * 12).min(bytes.len());
    for at in (0..8).chain(table..end) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            fs::write(&cut, &wrong).unwrap();
            let _ = RasterReader::open(&cut, &RasterLimits::default()).and_then(|reader| {
                let rendering = reader.rendering(None, Stretch::Auto)?;
                reader.read_window(0, PixelWindow::new(0, 0, 10, 10), &rendering)
            });
        }
    }
}

/// The place of a tag's value in the table at `table` of a little-endian file, and the place of the next table.
fn value_in(bytes: &[u8], table: usize, code: u16) -> (Option<usize>, usize) {
    let count = usize::from(u16::from_le_bytes([bytes[table], bytes[table + 1]]));
    let entry = |index| table + 2 + index * 12;
    let found = (0..count).map(entry).find(|at| bytes[*at..*at + 2] == code.to_le_bytes());
    (found.map(|at| at + 8), position(bytes, entry(count)))
}

fn position(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Says of each picture in a file whether it is the whole (0), a smaller copy (1), a mask (4), or both of these (5).
fn set_subfiles(path: &Path, kinds: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let mut table = position(&bytes, 4);
    for kind in kinds {
        let (at, next) = value_in(&bytes, table, 254);
        // The whole need not say it.
        if *kind != 0 {
            bytes[at.expect("the tag is there")] = *kind;
        }
        table = next;
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn lies_about_sizes_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.tif");
    write(&good, builder::<u8>(100, 90, 3), (100, 90, 3), colour);
    let bytes = fs::read(&good).unwrap();
    let lie = folder.path().join("lie.tif");
    let opened = |changes: &[(u16, u32)]| {
        let mut bytes = bytes.clone();
        for (code, value) in changes {
            let (at, _) = value_in(&bytes, position(&bytes, 4), *code);
            let at = at.expect("the tag is there");
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        fs::write(&lie, bytes).unwrap();
        RasterReader::open(&lie, &RasterLimits::default()).err()
    };
    assert!(opened(&[]).is_none());
    let (width, height, tile_width, tile_height) = (256, 257, 322, 323);
    for (code, value) in [(width, 0), (height, 0)] {
        assert!(matches!(opened(&[(code, value)]), Some(RasterError::NoPixels { .. })));
    }
    let error = opened(&[(width, u32::MAX), (height, u32::MAX)]).unwrap();
    assert!(matches!(error, RasterError::Damaged { .. }), "{error}");
    let error = opened(&[(tile_width, 1 << 20), (tile_height, 1 << 20)]).unwrap();
    assert!(matches!(error, RasterError::BlockTooBig { .. }), "{error}");
    assert!(error.to_string().contains("TILED=YES"), "{error}");
    let huge =
        [(width, u32::MAX), (height, u32::MAX), (tile_width, u32::MAX - 15), (tile_height, u32::MAX - 15)];
    assert!(opened(&huge).is_some());
    assert!(opened(&[(tile_width, 0)]).is_some());
    // How many samples a pixel has.
    assert!(opened(&[(277, 0)]).is_some() && opened(&[(277, 60_000)]).is_some());
}

#[test]
fn windows_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    write(&path, builder::<u8>(100, 90, 3), (100, 90, 3), colour);
    let reader =
        RasterReader::open(&path, &RasterLimits { max_window_pixels: 5000, ..RasterLimits::default() })
            .unwrap();
    let rendering = reader.rendering(None, Stretch::Auto).unwrap();
    let refused = |window| reader.read_window(0, window, &rendering).unwrap_err();
    for window in [
        PixelWindow::new(0, 0, 0, 5),
        PixelWindow::new(96, 0, 5, 5),
        PixelWindow::new(0, 90, 1, 1),
        PixelWindow::new(u32::MAX, 0, 2, 2),
        PixelWindow::new(2, 2, u32::MAX, u32::MAX),
    ] {
        assert!(matches!(refused(window), RasterError::WindowOutside { .. }));
    }
    let error = refused(PixelWindow::new(0, 0, 100, 90));
    assert!(
        error.to_string().ends_with("a window of 100 × 90 has more than 5000 pixels; read smaller windows"),
        "{error}"
    );
    // Sampling keeps the same limit.
    assert!(reader.rendering(None, Stretch::Percentiles { low: 2.0, high: 98.0 }).is_err());
}

fn write_raster(path: &Path, picture: &Picture, nodata: Option<&Mask>, options: RasterOptions) {
    let mut writer = RasterWriter::create(path, options).unwrap();
    // Heights that fit no tile.
    let mut y = 0;
    for rows in [1, 100, 300].into_iter().cycle() {
        let rows = rows.min(picture.height() - y);
        if rows == 0 {
            break;
        }
        let part = nodata.map(|mask| mask.crop(0, y, picture.width(), rows));
        writer.write_rows(&picture.crop(0, y, picture.width(), rows), part.as_ref()).unwrap();
        y += rows;
    }
    writer.finish().unwrap();
}

#[test]
fn what_is_written_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let picture = colours(PixelWindow::new(0, 0, 700, 521));
    let mask = Mask::drawn(700, 521, |x, y| x < 300 && y < 250 || x == 699);
    for validity in [Validity::Everywhere, Validity::Alpha, Validity::Nodata(0), Validity::Nodata(255)] {
        let options = RasterOptions {
            validity,
            georeference: Some(utm()),
            overwrite: true,
            ..RasterOptions::new(700, 521)
        };
        write_raster(&path, &picture, Some(&mask), options);
        let reader = open(&path);
        assert_eq!(reader.levels(), [(700, 521), (350, 261), (175, 131)]);
        assert_eq!((reader.band_count(), reader.validity()), (3, validity));
        assert_eq!(reader.georeference().unwrap(), &utm());
        let found = read(&reader, whole(&reader));
        let holes =
            if validity == Validity::Everywhere { Mask::filled(700, 521, false) } else { mask.clone() };
        assert_eq!(found.nodata, holes, "{validity:?}");
        let expected =
            Picture::drawn(700, 521, |x, y| if holes.is_hole(x, y) { [0; 3] } else { picture.pixel(x, y) });
        assert!(found.picture == expected, "{validity:?}");

        // An overview has holes only where all was hole, and colours between those of the raster.
        let rendering = reader.rendering(None, Stretch::Auto).unwrap();
        let small = reader.read_window(1, PixelWindow::new(0, 0, 350, 261), &rendering).unwrap();
        let all_holes = |x: u32, y: u32| {
            let corners = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(right, down)| (2 * x + right, 2 * y + down));
            corners.iter().filter(|(x, y)| *x < 700 && *y < 521).all(|(x, y)| holes.is_hole(*x, *y))
        };
        assert_eq!(small.nodata, Mask::drawn(350, 261, all_holes), "{validity:?}");
        let [a, b, c, d] =
            [(200, 300), (201, 300), (200, 301), (201, 301)].map(|(x, y)| u32::from(picture.pixel(x, y)[1]));
        assert_eq!(u32::from(small.picture.pixel(100, 150)[1]), (a + b + c + d + 2) / 4);
    }
}

#[test]
fn places_are_written_verbatim() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    // A CRS of the file's own, which nobody else understands.
    let directory = vec![
        1, 1, 0, 5, 1024, 0, 1, 1, 1025, 0, 1, 2, 1026, 34737, 9, 0, 3072, 0, 1, 32767, 3078, 34736, 1, 1,
    ];
    let own = GeoKeys::new(directory, vec![6_378_137.0, 29.5], "My plane|".to_owned()).unwrap();
    let rotated = AffineTransform { origin: (1e5, 2e5), right: (3.0, 4.0), down: (4.0, -3.0) };
    let south_up =
        AffineTransform { down: (0.0, 2.0), ..AffineTransform::north_up((-97.25, 46.5), (2.0, 2.0)) };
    for transform in [rotated, south_up, AffineTransform::north_up((1.0 / 3.0, 2.0), (0.1, 0.25))] {
        for keys in [Some(own.clone()), utm().keys().cloned(), None] {
            let reference = GeoReference::new(transform, keys);
            let options = RasterOptions {
                georeference: Some(reference.clone()),
                overwrite: true,
                ..RasterOptions::new(5, 4)
            };
            write_raster(&path, &Picture::filled(5, 4, [1, 2, 3]), None, options);
            let reader = open(&path);
            let found = reader.georeference().unwrap();
            assert_eq!((found.keys(), found.pixel_is()), (reference.keys(), reference.pixel_is()));
            let near = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).abs() < 1e-9 && (a.1 - b.1).abs() < 1e-9;
            assert!(near(found.transform().origin, transform.origin));
            assert_eq!((found.transform().right, found.transform().down), (transform.right, transform.down));
        }
    }
    let options = RasterOptions {
        georeference: Some(GeoReference::new(rotated, Some(own))),
        overwrite: true,
        ..RasterOptions::new(5, 4)
    };
    write_raster(&path, &Picture::filled(5, 4, [1, 2, 3]), None, options);
    let error = open(&path).place(0.0, 0.0).unwrap_err();
    assert!(
        error.to_string().ends_with("without an EPSG number (My plane); name it with --crs EPSG:…"),
        "{error}"
    );
    write_raster(
        &path,
        &Picture::filled(5, 4, [1, 2, 3]),
        None,
        RasterOptions { overwrite: true, ..RasterOptions::new(5, 4) },
    );
    assert!(matches!(open(&path).georeference(), Err(RasterError::NoGeoReference { .. })));
}

#[test]
fn outputs_are_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let names = || fs::read_dir(folder.path()).unwrap().count();
    let rows = |rows| Picture::filled(300, rows, [1, 2, 3]);

    let mut writer = RasterWriter::create(&path, RasterOptions::new(300, 300)).unwrap();
    writer.write_rows(&rows(299), None).unwrap();
    for (picture, mask) in [
        (rows(2), None),
        (Picture::filled(299, 1, [0; 3]), None),
        (rows(1), Some(Mask::filled(299, 1, true))),
        (rows(1), Some(Mask::filled(300, 2, true))),
    ] {
        let error = writer.write_rows(&picture, mask.as_ref()).unwrap_err();
        assert!(matches!(error, RasterError::RowsDoNotFit { at: 299, .. }), "{error}");
    }
    assert_eq!((writer.rows(), names()), (299, 0));
    let error = writer.finish().unwrap_err();
    assert!(
        error.to_string().ends_with("has 299 of 300 rows only; hand over the others before finishing"),
        "{error}"
    );
    assert_eq!(names(), 0);

    fs::write(&path, b"theirs").unwrap();
    let refused = RasterWriter::create(&path, RasterOptions::new(3, 3)).err().unwrap();
    assert!(matches!(refused, RasterError::Write(WriteError::Exists { .. })), "{refused}");
    assert!(matches!(
        RasterWriter::create(folder.path().join("b.tif"), RasterOptions::new(0, 3)).err(),
        Some(RasterError::NoPixels { .. })
    ));
    assert!(RasterWriter::create(folder.path().join("missing/b.tif"), RasterOptions::new(3, 3)).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"theirs");

    // The label stands in the file.
    let provenance = Some(Provenance::new("earthmapper-mini", "map → satellite"));
    let options = RasterOptions { provenance, overwrite: true, ..RasterOptions::new(300, 2) };
    write_raster(&path, &rows(2), None, options);
    let bytes = fs::read(&path).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("trainedAlgorithmicMedia") && holds("Synthetic picture, not a record of the ground"));
    assert_eq!(read(&open(&path), PixelWindow::new(0, 0, 300, 2)).picture, rows(2));
}

/// Two aerial photographs (USDA NAIP, 5 m) of the same ground: `$EARTHMAPPER_DATA/naip`.
fn aerial() -> Option<PathBuf> {
    let data = std::env::var_os("EARTHMAPPER_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let file = data.join("naip/m_4709963_se_14_1_20200831.tif");
    if !file.is_file() {
        println!("skipped: {} is not there; set EARTHMAPPER_DATA to read real rasters", file.display());
        return None;
    }
    Some(file)
}

#[test]
fn aerial_photographs_are_read_and_written_again() {
    let Some(file) = aerial() else { return };
    let reader = open(&file);
    assert_eq!(reader.levels(), [(934, 723), (467, 362)]);
    assert_eq!(
        (reader.band_count(), reader.nodata(), reader.validity()),
        (4, Some(0.0), Validity::Nodata(0))
    );
    let reference = reader.georeference().unwrap();
    assert_eq!((reference.epsg(), reference.pixel_is()), (Ok(Epsg(26914)), PixelIs::Area));
    assert_eq!(reference.transform(), &AffineTransform::north_up((485_899.0, 5_209_246.0), (5.0, 5.0)));
    // As PROJ says.
    let place = reader.place(467.0, 361.5).unwrap();
    assert!((place.position().longitude() + 99.154_822_549).abs() < 1e-7);
    assert!((place.position().latitude() - 47.020_362_006).abs() < 1e-7);
    assert!((place.metres_per_pixel().unwrap() - 5.002).abs() < 0.001);
    // As GDAL says, across the corner of four tiles.
    let corner = read(&reader, PixelWindow::new(511, 511, 2, 2));
    assert_eq!(corner.picture.rgb(), [79, 112, 90, 75, 108, 85, 80, 112, 91, 82, 112, 91]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.tif");
    let rendering = reader.rendering(None, Stretch::Auto).unwrap();
    let options = RasterOptions {
        validity: reader.validity(),
        georeference: Some(reference.clone()),
        provenance: Some(Provenance::new("none", "copy")),
        overwrite: true,
        ..RasterOptions::new(reader.width(), reader.height())
    };
    let mut writer = RasterWriter::create(&path, options).unwrap();
    for y in (0..reader.height()).step_by(256) {
        let rows = 256.min(reader.height() - y);
        let window = reader.read_window(0, PixelWindow::new(0, y, reader.width(), rows), &rendering).unwrap();
        writer.write_rows(&window.picture, Some(&window.nodata)).unwrap();
    }
    writer.finish().unwrap();
    let copy = open(&path);
    assert_eq!(copy.georeference().unwrap(), reference);
    assert!(read(&copy, whole(&copy)) == read(&reader, whole(&reader)));
}
