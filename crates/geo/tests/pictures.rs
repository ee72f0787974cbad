//! Picture files: what is accepted, what is refused and in which words, and that nothing is left half-written.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use earthmapper_geo::picture::{decode_with_holes, encode_picture, encode_with_holes};
use earthmapper_geo::{
    Mask, Picture, PictureError, PictureLimits, Provenance, WriteError, WriteOptions, check_picture_output,
    decode_mask, decode_picture, read_mask, read_picture, read_provenance, write_grey, write_picture,
};
use image::{DynamicImage, ImageFormat};

/// Enough detail that a file cut anywhere loses some of it.
fn town(width: u32, height: u32) -> Picture {
    Picture::drawn(width, height, |x, y| {
        let noise =
            (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)).wrapping_mul(2_246_822_519) >> 24;
        [(x * 3 + y) as u8, (y * 5) as u8, noise as u8]
    })
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn as_image(picture: &Picture) -> DynamicImage {
    let (width, height) = (picture.width(), picture.height());
    image::RgbImage::from_raw(width, height, picture.rgb().to_vec()).unwrap().into()
}

fn decode(bytes: &[u8]) -> Result<Picture, PictureError> {
    decode_picture(bytes, "photo.png", &PictureLimits::default())
}

fn read(path: &Path) -> Result<Picture, PictureError> {
    read_picture(path, &PictureLimits::default())
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A PNG header that promises a size and holds almost nothing.
fn png_of_size(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[1, 2, 3]).unwrap();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

#[test]
fn the_content_decides_not_the_ending() {
    let picture = town(40, 30);
    let folder = tempfile::tempdir().unwrap();
    for (format, name) in [(ImageFormat::Png, "a.jpg"), (ImageFormat::WebP, "b.png"), (ImageFormat::Png, "c")]
    {
        let path = folder.path().join(name);
        fs::write(&path, encoded(&as_image(&picture), format)).unwrap();
        assert_eq!(read(&path).unwrap(), picture, "{name}");
    }
    let jpeg = decode(&encoded(&as_image(&picture), ImageFormat::Jpeg)).unwrap();
    assert_eq!((jpeg.width(), jpeg.height()), (40, 30));
}

#[test]
fn one_pixel_is_a_picture() {
    let pixel = Picture::filled(1, 1, [10, 20, 30]);
    assert_eq!(decode(&encoded(&as_image(&pixel), ImageFormat::Png)).unwrap(), pixel);
}

#[test]
fn other_pixel_types_become_8_bit_rgb() {
    let grey = image::GrayImage::from_fn(5, 4, |x, y| image::Luma([(x * 40 + y) as u8]));
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let picture = decode(&encoded(&grey.clone().into(), format)).unwrap();
        assert_eq!(picture.pixel(3, 2), [122; 3], "{format:?}");
    }
    let jpeg = decode(&encoded(&grey.into(), ImageFormat::Jpeg)).unwrap();
    let [red, green, blue] = jpeg.pixel(3, 2);
    assert!(red == green && green == blue && red.abs_diff(122) < 8);

    let deep: image::ImageBuffer<image::Rgb<u16>, Vec<u16>> =
        image::ImageBuffer::from_pixel(2, 2, image::Rgb([0, 0x8080, 0xFFFF]));
    let deep = encoded(&deep.into(), ImageFormat::Png);
    assert_eq!(decode(&deep).unwrap().pixel(1, 1), [0, 128, 255]);
    let deep_grey: image::ImageBuffer<image::Luma<u16>, Vec<u16>> =
        image::ImageBuffer::from_pixel(2, 2, image::Luma([0x4040]));
    assert_eq!(decode(&encoded(&deep_grey.into(), ImageFormat::Png)).unwrap().pixel(0, 0), [64; 3]);
}

#[test]
fn transparency_is_laid_over_white() {
    let mut rgba = image::RgbaImage::from_pixel(3, 1, image::Rgba([100, 0, 200, 255]));
    rgba.put_pixel(1, 0, image::Rgba([100, 0, 200, 0]));
    rgba.put_pixel(2, 0, image::Rgba([0, 0, 0, 51]));
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let picture = decode(&encoded(&rgba.clone().into(), format)).unwrap();
        assert_eq!(picture.rgb(), [100, 0, 200, 255, 255, 255, 204, 204, 204], "{format:?}");
    }
    let deep: image::ImageBuffer<image::LumaA<u16>, Vec<u16>> =
        image::ImageBuffer::from_pixel(1, 1, image::LumaA([0x1010, 0]));
    assert_eq!(decode(&encoded(&deep.into(), ImageFormat::Png)).unwrap().pixel(0, 0), [255; 3]);
}

#[test]
fn palettes_are_looked_up() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette(vec![9, 8, 7, 1, 2, 3]);
    encoder.write_header().unwrap().write_image_data(&[0b0100_0000]).unwrap();
    assert_eq!(decode(&bytes).unwrap().rgb(), [1, 2, 3, 9, 8, 7]);
}

#[test]
fn a_cameras_orientation_is_applied() {
    let picture = Picture::drawn(32, 16, |x, _| if x < 16 { [250; 3] } else { [5; 3] });
    let mut jpeg = encoded(&as_image(&picture), ImageFormat::Jpeg);
    // EXIF with one entry: orientation 6, "turn clockwise by a quarter to view".
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut segment = vec![0xFF, 0xE1];
    segment.extend_from_slice(&(exif.len() as u16 + 2).to_be_bytes());
    segment.extend_from_slice(exif);
    jpeg.splice(2..2, segment);
    let turned = decode(&jpeg).unwrap();
    assert_eq!((turned.width(), turned.height()), (16, 32));
    assert!(turned.pixel(8, 2)[0] > 200 && turned.pixel(8, 29)[0] < 50);
}

#[test]
fn masks_are_white_where_the_hole_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.png");
    write_grey(&path, 4, 1, &[0, 127, 128, 255], &WriteOptions::default()).unwrap();
    let mask = read_mask(&path, &PictureLimits::default()).unwrap();
    assert_eq!(mask, Mask::new(4, 1, vec![false, false, true, true]).unwrap());
    let mut brush = image::RgbaImage::from_pixel(2, 1, image::Rgba([255, 255, 255, 0]));
    brush.put_pixel(1, 0, image::Rgba([255, 255, 255, 255]));
    let bytes = encoded(&brush.into(), ImageFormat::Png);
    let mask = decode_mask(&bytes, "brush.png", &PictureLimits::default()).unwrap();
    assert_eq!(mask.holes(), [false, true]);
    assert!(matches!(
        read_mask(folder.path().join("none.png"), &PictureLimits::default()),
        Err(PictureError::NotFound { .. })
    ));
}

#[test]
fn unreadable_files_are_named_with_a_cure() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let check = |path: PathBuf, cure: &str| {
        let error = read(&path).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("{}: ", path.display())), "{text}");
        assert!(text.ends_with(cure), "{text}");
        assert!(error.is_bad_input());
        error
    };
    let error = check(folder.path().join("none.png"), "not found; check the name");
    assert!(matches!(error, PictureError::NotFound { .. }));
    let error = check(folder.path().to_owned(), "is a folder; name a picture inside it");
    assert!(matches!(error, PictureError::Folder { .. }));
    let error = check(file("empty.png", b""), "is empty; copy or download it again");
    assert!(matches!(error, PictureError::EmptyFile { .. }));
    for (name, bytes) in [("text.jpg", &b"hello, world"[..]), ("one.png", b"x")] {
        let error = check(file(name, bytes), "is not a picture; give a PNG, JPEG or WebP file");
        assert!(matches!(error, PictureError::NotAPicture { .. }));
    }
    let error = check(
        file("scan.png", b"II\x2a\0\x08\0\0\0"),
        "is a TIFF picture, which is not supported; convert it to PNG, JPEG or WebP",
    );
    assert!(matches!(error, PictureError::UnsupportedFormat { .. }));
    for (width, height) in [(0, 5), (5, 0)] {
        let error = check(file("zero.png", &png_of_size(width, height)), "give a picture of at least 1 × 1");
        assert!(matches!(error, PictureError::NoPixels { .. }));
    }
    let mut jpeg = encoded(&as_image(&town(8, 8)), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 7..frame + 9].fill(0);
    let error = check(file("zero.jpg", &jpeg), "give a picture of at least 1 × 1");
    assert!(matches!(error, PictureError::NoPixels { width: 0, height: 8, .. }));
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_keeps_its_cause() {
    // Reading a process's own memory from its start fails even for the superuser.
    let path = Path::new("/proc/self/mem");
    if !path.exists() {
        println!("skipped: no /proc on this system");
        return;
    }
    let error = read(path).unwrap_err();
    assert!(matches!(error, PictureError::Io { .. }), "{error}");
    assert!(!error.is_bad_input());
    assert!(error.to_string().starts_with("/proc/self/mem: cannot be read: "), "{error}");
}

#[test]
fn decompression_bombs_are_refused_by_their_header() {
    let error = decode(&png_of_size(30_000, 30_000)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "photo.png: 30000 × 30000 is 900 million pixels, over the limit of 100 million; \
         if you trust the file, raise the limit with --max-pixels 900000000"
    );
    let error = decode(&png_of_size(i32::MAX as u32, i32::MAX as u32)).unwrap_err();
    assert!(matches!(error, PictureError::TooManyPixels { .. }), "{error}");

    // The limit itself is allowed, in every format.
    let picture = town(20, 10);
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let bytes = encoded(&as_image(&picture), format);
        let limited = |max_pixels| {
            decode_picture(&bytes, "a", &PictureLimits { max_pixels, ..PictureLimits::default() })
        };
        assert!(limited(200).is_ok(), "{format:?}");
        let error = limited(199).unwrap_err();
        assert!(error.to_string().ends_with("--max-pixels 200"), "{error}");
    }
}

#[test]
fn large_files_are_refused_without_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    write_picture(&path, &town(64, 64), &WriteOptions::default()).unwrap();
    let length = fs::metadata(&path).unwrap().len();
    let limited =
        |max_file_bytes| read_picture(&path, &PictureLimits { max_file_bytes, ..PictureLimits::default() });
    assert!(limited(length).is_ok());
    let error = limited(length - 1).unwrap_err();
    assert!(matches!(error, PictureError::FileTooBig { .. }));
    assert!(error.to_string().ends_with("crop it or save it compressed"), "{error}");
}

#[test]
fn truncated_files_are_errors_never_grey_pictures() {
    let picture = town(64, 48);
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let whole = encoded(&as_image(&picture), format);
        let expected = decode(&whole).unwrap();
        for length in (1..whole.len()).filter(|length| length % 7 == 0 || whole.len() - length < 16) {
            match decode(&whole[..length]) {
                // Behind the pixels, a PNG has nothing more to say.
                Ok(decoded) => assert_eq!(decoded, expected, "{format:?} cut at {length}"),
                Err(error) => {
                    let told =
                        matches!(error, PictureError::Damaged { .. } | PictureError::NotAPicture { .. });
                    assert!(told, "{format:?} cut at {length}: {error}");
                }
            }
        }
        let error = decode(&whole[..whole.len() / 2]).unwrap_err();
        assert!(error.to_string().starts_with("photo.png: is damaged or cut short ("), "{error}");
        assert!(error.to_string().ends_with("); copy or download it again"), "{error}");
    }
}

#[test]
fn flipped_bits_never_panic() {
    let picture = town(24, 24);
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let whole = encoded(&as_image(&picture), format);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            let _ = decode(&bytes);
        }
    }
}

#[test]
fn lossless_formats_come_back_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let picture = town(61, 37);
    for name in ["a.png", "a.webp", "A.PNG"] {
        let path = folder.path().join(name);
        write_picture(&path, &picture, &WriteOptions { overwrite: true, ..WriteOptions::default() }).unwrap();
        assert_eq!(read(&path).unwrap(), picture, "{name}");
    }
    let path = folder.path().join("a.jpeg");
    let soft = Picture::drawn(64, 64, |x, y| [(x * 2) as u8, (y * 2) as u8, 90]);
    write_picture(&path, &soft, &WriteOptions::default()).unwrap();
    let decoded = read(&path).unwrap();
    let error = soft.rgb().iter().zip(decoded.rgb()).map(|(left, right)| left.abs_diff(*right)).max();
    assert!(error.unwrap() < 24, "{error:?}");
    let size = |quality| {
        let options = WriteOptions { overwrite: true, quality, ..WriteOptions::default() };
        write_picture(&path, &picture, &options).unwrap();
        fs::metadata(&path).unwrap().len()
    };
    assert!(size(20) < size(95));
}

#[test]
fn grey_pictures_are_written_grey() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..=255).collect();
    for name in ["a.png", "a.webp"] {
        let path = folder.path().join(name);
        let options = WriteOptions { provenance: Some(Provenance::new("m", "t")), ..WriteOptions::default() };
        write_grey(&path, 16, 16, &values, &options).unwrap();
        let picture = read(&path).unwrap();
        assert!(picture.rgb().chunks(3).zip(&values).all(|(pixel, value)| pixel == [*value; 3]), "{name}");
    }
    let png = image::open(folder.path().join("a.png")).unwrap();
    assert_eq!(png.color(), image::ColorType::L8);
    write_grey(folder.path().join("a.jpg"), 16, 16, &values, &WriteOptions::default()).unwrap();
}

#[test]
fn provenance_is_inside_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let picture = town(33, 21);
    let mut provenance = Provenance::new("earthmapper-mini", "map → satellite");
    provenance.seed = Some(42);
    provenance.source = Some("town & <country>.png".to_owned());
    provenance.extra.insert("guidance".to_owned(), "1.5".to_owned());
    let options = WriteOptions { provenance: Some(provenance.clone()), ..WriteOptions::default() };
    for name in ["a.png", "a.jpg", "a.webp"] {
        let path = folder.path().join(name);
        write_picture(&path, &picture, &options).unwrap();
        assert_eq!(read_provenance(&path).unwrap(), Some(provenance.xmp()), "{name}");
        let decoded = read(&path).unwrap();
        if name == "a.jpg" {
            assert_eq!((decoded.width(), decoded.height()), (33, 21));
        } else {
            assert_eq!(decoded, picture, "{name}");
        }
        // Found without decoding, as search engines do.
        let bytes = fs::read(&path).unwrap();
        let term = b"digitalsourcetype/trainedAlgorithmicMedia";
        assert!(bytes.windows(term.len()).any(|window| window == term), "{name}");
    }

    let reader = png::Decoder::new(Cursor::new(fs::read(folder.path().join("a.png")).unwrap())).read_info();
    let info = reader.unwrap().info().clone();
    let software = &info.uncompressed_latin1_text[0];
    assert_eq!((software.keyword.as_str(), &software.text), ("Software", &provenance.software));
    let description = &info.utf8_text[0];
    assert_eq!(description.keyword, "Description");
    assert_eq!(description.get_text().unwrap(), provenance.description());

    // The JFIF header stays in front, and the extended WebP header announces the chunk.
    let jpeg = fs::read(folder.path().join("a.jpg")).unwrap();
    assert_eq!(jpeg[2..4], [0xFF, 0xE0]);
    let webp = fs::read(folder.path().join("a.webp")).unwrap();
    assert_eq!((&webp[12..16], webp[20], &webp[24..30]), (&b"VP8X"[..], 4, &[32, 0, 0, 20, 0, 0][..]));
    assert_eq!(u32::from_le_bytes(webp[4..8].try_into().unwrap()) as usize, webp.len() - 8);

    let plain = folder.path().join("plain.png");
    write_picture(&plain, &picture, &WriteOptions::default()).unwrap();
    assert_eq!(read_provenance(&plain).unwrap(), None);
    assert!(matches!(read_provenance(folder.path().join("none.png")), Err(PictureError::NotFound { .. })));
}

#[test]
fn a_refused_output_leaves_the_folder_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let picture = town(8, 8);
    let path = folder.path().join("a.png");
    fs::write(&path, b"theirs").unwrap();
    let refused = |path: &Path, picture: &Picture, options: &WriteOptions| {
        let error = write_picture(path, picture, options).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}: ", path.display())), "{error}");
        assert!(!error.is_bad_input());
        assert_eq!(names_in(folder.path()), ["a.png"], "{error}");
        error
    };
    let options = WriteOptions::default();

    let error = refused(&path, &picture, &options);
    assert!(matches!(error, PictureError::Write(WriteError::Exists { .. })));
    assert!(error.to_string().ends_with("already exists; pass --overwrite to replace it"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"theirs");

    for name in ["b.tiff", "b", ".png"] {
        let error = refused(&folder.path().join(name), &picture, &options);
        assert!(matches!(error, PictureError::UnsupportedExtension { .. }));
        assert!(error.to_string().ends_with("use .png, .jpg or .webp"), "{error}");
    }

    let error = refused(&folder.path().join("missing/b.png"), &picture, &options);
    assert!(matches!(error, PictureError::Write(WriteError::NoFolder { .. })));

    let error = refused(&folder.path().join("b.webp"), &Picture::filled(16_384, 1, [0; 3]), &options);
    assert!(error.to_string().ends_with("16384 × 1 is too large for WebP (16383 pixels a side); use .png"));
    let error = refused(&folder.path().join("b.jpg"), &Picture::filled(1, 65_536, [0; 3]), &options);
    assert!(matches!(error, PictureError::TooLargeForFormat { .. }));

    let mut provenance = Provenance::new("m", "t");
    provenance.extra.insert("prompt".to_owned(), "x".repeat(70_000));
    let options = WriteOptions { provenance: Some(provenance), ..options };
    let error = refused(&folder.path().join("b.jpg"), &picture, &options);
    assert!(matches!(error, PictureError::Encoding { .. }), "{error}");

    assert!(check_picture_output(folder.path().join("b.jpg"), false).is_ok());
    assert!(check_picture_output(&path, false).is_err());
    assert!(check_picture_output(&path, true).is_ok());
    write_picture(&path, &picture, &WriteOptions { overwrite: true, ..WriteOptions::default() }).unwrap();
    assert_eq!(read(&path).unwrap(), picture);
    assert_eq!(names_in(folder.path()), ["a.png"]);
}

#[test]
fn holes_are_transparent() {
    let picture = Picture::drawn(9, 5, |x, y| [10 * x as u8, 20 * y as u8, 99]);
    let holes = Mask::drawn(9, 5, |x, y| x > 5 && y != 2);
    let options = WriteOptions { provenance: Some(Provenance::new("model", "task")), ..Default::default() };
    for ending in ["png", "webp"] {
        let bytes = encode_with_holes(ending, &picture, &holes, &options).unwrap();
        let (found, mask) = decode_with_holes(&bytes, "a", &PictureLimits::default()).unwrap();
        assert_eq!(mask, holes);
        for (x, y) in (0..5).flat_map(|y| (0..9).map(move |x| (x, y))) {
            let expected = if holes.is_hole(x, y) { [255; 3] } else { picture.pixel(x, y) };
            assert_eq!(found.pixel(x, y), expected, "transparent parts are shown over white");
        }
        let whole = encode_with_holes(ending, &picture, &Mask::filled(9, 5, false), &options).unwrap();
        assert_eq!(whole, encode_picture(ending, &picture, &options).unwrap());
    }
    assert!(encode_with_holes("jpg", &picture, &holes, &options).is_err());
}
