//! Each rule on both sides of its threshold.

use super::*;

/// Ground with texture: dark and light patches, green.
fn ground(side: u32, seed: u32) -> Picture {
    Picture::drawn(side, side, |x, y| {
        let patch = ((x / 9 + seed) * 7 + (y / 11) * 13 * (seed + 1)) % 5 * 25;
        let grain = (x * 31 + y * 57 + x * y) % 17;
        [20 + (patch + grain) as u8, 30 + (patch + grain) as u8, 10 + (patch / 2 + grain) as u8]
    })
}

fn map(side: u32) -> Picture {
    Picture::drawn(
        side,
        side,
        |x, y| if (x / 16 + y / 24) % 2 == 0 { [242, 239, 233] } else { [180, 170, 160] },
    )
}

fn measured(photograph: &Picture, map: &Picture) -> Measures {
    measure(
        photograph,
        map,
        &Mask::filled(photograph.width(), photograph.height(), false),
        &Filters::default(),
    )
}

fn broken(photograph: &Picture, map: &Picture) -> Vec<Rule> {
    Filters::default().broken(&measured(photograph, map)).into_iter().collect()
}

/// `share` of the rows from the top are `over`, the others of the ground.
fn partly(share: f64, over: impl Fn(u32, u32) -> [u8; 3]) -> Picture {
    let ground = ground(128, 1);
    let edge = (128.0 * share).round() as u32;
    Picture::drawn(128, 128, |x, y| if y < edge { over(x, y) } else { ground.pixel(x, y) })
}

#[test]
fn a_good_pair_is_kept() {
    assert_eq!(broken(&ground(128, 1), &map(128)), []);
}

#[test]
fn holes_are_counted_in_pixels() {
    let (photograph, map) = (ground(100, 1), map(100));
    for (rows, expected) in [(1, false), (2, true)] {
        let holes = Mask::drawn(100, 100, |_, y| y < rows);
        let measures = measure(&photograph, &map, &holes, &Filters::default());
        assert_eq!(measures.holes, f64::from(rows) / 100.0);
        assert_eq!(Filters::default().broken(&measures).contains(&Rule::Holes), expected, "{rows} rows");
        assert_eq!(measures.shift.is_none(), expected, "what is left out anyway is not registered");
    }
}

#[test]
fn fillings_are_blank() {
    for colour in [[0; 3], [255; 3], [204, 203, 204]] {
        let filled = |share| {
            partly(share, move |x, _| {
                [colour[0], colour[1], colour[2] - u8::from(colour[2] > 0 && x % 2 == 0)]
            })
        };
        assert!(!broken(&filled(0.2), &map(128)).contains(&Rule::Blank));
        assert!(broken(&filled(0.3), &map(128)).contains(&Rule::Blank), "{colour:?}");
    }
}

#[test]
fn clouds_are_bright_grey_and_soft() {
    let cloud = |x: u32, y: u32| [222 + ((x + y) % 9) as u8, 223 + ((x + y) % 9) as u8, 230];
    assert_eq!(broken(&partly(0.25, cloud), &map(128)), []);
    assert_eq!(broken(&partly(0.4, cloud), &map(128)), [Rule::Cloud]);
    // A bright field is not grey. A bright crowd of roofs is not soft, if several are in one of the squares of 4 pixels that
    // are looked at.
    assert!(
        broken(&partly(0.4, |x, y| [230, 210 + (x % 3) as u8, 150 + (y % 5) as u8]), &map(128)).is_empty()
    );
    let roofs =
        |x: u32, y: u32| if (x / 2 + y / 2).is_multiple_of(2) { [250, 250, 249] } else { [160, 160, 158] };
    assert!(broken(&partly(0.4, roofs), &map(128)).is_empty());
}

#[test]
fn haze_lifts_the_dark() {
    let ground = ground(128, 1);
    let hazy = |thickness: f64| {
        let veiled = |value: u8| (f64::from(value) * (1.0 - thickness) + 200.0 * thickness) as u8;
        Picture::drawn(128, 128, |x, y| ground.pixel(x, y).map(veiled))
    };
    assert_eq!(broken(&hazy(0.4), &map(128)), []);
    assert_eq!(broken(&hazy(0.7), &map(128)), [Rule::Haze]);
}

#[test]
fn plain_maps_have_little_deviation() {
    let two = |step: u8| Picture::drawn(128, 128, |x, _| if x < 64 { [200; 3] } else { [200 + step; 3] });
    // Half and half, the deviation is half the step.
    assert!((colour_deviation(&two(20)) - 10.0).abs() < 1e-9);
    assert_eq!(broken(&ground(128, 1), &two(20)), []);
    assert_eq!(broken(&ground(128, 1), &two(19)), [Rule::PlainMap]);
}

#[test]
fn a_shift_counts_when_it_is_sure() {
    let shifted = |pixels: f64, confidence: f64| Measures {
        map_deviation: 50.0,
        shift: Some(Shift { right: pixels, down: 0.0, confidence }),
        ..Measures::default()
    };
    let filters = Filters::default();
    assert!(filters.broken(&shifted(15.9, 20.0)).is_empty());
    assert!(filters.broken(&shifted(16.1, 20.0)).contains(&Rule::Misregistered));
    assert!(filters.broken(&shifted(16.1, 6.9)).is_empty());
    assert!(Filters::OFF.broken(&shifted(99.0, 20.0)).is_empty());
}

#[test]
fn duplicates_are_near_an_earlier_one_that_is_kept() {
    let photograph = ground(128, 1);
    let brighter =
        Picture::drawn(128, 128, |x, y| photograph.pixel(x, y).map(|value| value.saturating_add(6)));
    let coarse = photograph.resized(96, 96).resized(128, 128);
    let hash = |picture: &Picture| Some(perceptual_hash(picture));
    let hashes = [hash(&photograph), hash(&map(128)), hash(&brighter), None, hash(&coarse), None];
    assert_eq!(Filters::default().duplicates(&hashes), [false, false, true, false, true, false]);
    assert_eq!(Filters::OFF.duplicates(&hashes), [false; 6]);
    // Exactly at the threshold, and one bit beyond; the second is compared with what is kept only.
    let bits = [Some(0), Some(0b111), Some(0b1111), Some(0b11_1111)];
    assert_eq!(Filters::default().duplicates(&bits), [false, true, false, true]);
    for limit in [0.0, 1.0, 31.0, 32.0] {
        let filters = Filters { near_duplicate: Limit::At(limit), ..Filters::OFF };
        let expected = [false, false, limit >= 1.0];
        assert_eq!(filters.duplicates(&[Some(0), Some(u64::MAX), Some(1)])[..], expected, "{limit}");
    }
}

#[test]
fn limits_are_written_as_numbers_or_off() {
    let filters: Filters = toml::from_str("haze = \"off\"\nholes = 0.5\nblank = 1").unwrap();
    assert_eq!((filters.haze, filters.holes, filters.blank), (Limit::Off, Limit::At(0.5), Limit::At(1.0)));
    assert_eq!(filters.cloud, Filters::default().cloud);
    assert_eq!(toml::from_str::<Filters>(&toml::to_string(&filters).unwrap()).unwrap(), filters);
    for wrong in ["haze = \"on\"", "hase = 1.0", "cloud = true"] {
        assert!(toml::from_str::<Filters>(wrong).is_err(), "{wrong}");
    }
    let error = Filters { haze: Limit::At(f64::NAN), ..Filters::OFF }.check().unwrap_err();
    assert!(error.to_string().starts_with("filters.haze: is NaN; give"), "{error}");
}
