//! Where pairs lie: on the whole world, and the ground of one source.

use super::manifest::PairRecord;
use super::split::Split;
use crate::lonlat::LonLat;
use crate::picture::Picture;
use crate::tile::in_world;

/// Pixels per degree of the world.
const SCALE: u32 = 2;

/// Pixels of the longer side of a ground.
const GROUND: f64 = 560.0;

const SEA: [u8; 3] = [226, 234, 240];
const LAND: [u8; 3] = [196, 200, 190];
const LINE: [u8; 3] = [208, 218, 226];
const DOT: [u8; 3] = [200, 20, 60];

/// Degrees of latitude per row of [`LAND_ROWS`].
const ROW: usize = 5;

/// Land, roughly, for finding one's way: from the north, per five degrees of latitude, where it begins and ends (degrees
/// east).
const LAND_ROWS: [&[(i16, i16)]; 36] = [
    &[],
    &[(-90, -20)],
    &[(-120, -62), (-70, -20), (11, 25), (95, 105)],
    &[(-125, -70), (-55, -22), (52, 58), (70, 140)],
    &[(-165, -65), (-53, -33), (13, 180)],
    &[(-165, -75), (-72, -65), (-50, -42), (-23, -15), (6, 165)],
    &[(-158, -153), (-133, -92), (-78, -62), (-6, -2), (7, 9), (12, 17), (22, 138), (156, 163)],
    &[(-130, -80), (-79, -56), (-10, -6), (-4, 1), (5, 140), (156, 158)],
    &[(-124, -65), (-58, -53), (-3, 139), (142, 143)],
    &[(-124, -71), (-9, 3), (11, 16), (18, 28), (42, 48), (52, 132), (141, 145)],
    &[(-122, -76), (-9, -1), (13, 15), (21, 24), (27, 121), (126, 129), (137, 141)],
    &[(-117, -80), (-8, 24), (25, 121), (130, 132)],
    &[(-113, -98), (-82, -80), (-13, 34), (36, 49), (55, 120)],
    &[(-106, -98), (-83, -78), (-16, 37), (39, 59), (70, 114), (120, 122)],
    &[(-102, -88), (-73, -69), (-16, 38), (42, 54), (73, 83), (95, 108), (120, 122)],
    &[(-88, -83), (-17, 43), (44, 51), (75, 80), (98, 109), (122, 125)],
    &[(-82, -60), (-12, 49), (80, 82), (99, 101), (123, 126)],
    &[(-78, -50), (9, 45), (98, 104), (110, 118), (119, 121)],
    &[(-80, -44), (9, 41), (101, 106), (110, 116), (120, 123), (132, 142)],
    &[(-79, -35), (13, 39), (106, 114), (138, 147)],
    &[(-76, -38), (13, 40), (48, 50), (131, 136), (142, 144)],
    &[(-71, -39), (12, 37), (44, 49), (123, 146)],
    &[(-70, -42), (14, 35), (44, 47), (114, 150)],
    &[(-71, -49), (16, 32), (114, 153)],
    &[(-71, -53), (18, 28), (116, 152)],
    &[(-73, -58), (141, 149), (175, 177)],
    &[(-73, -64), (145, 148), (171, 173)],
    &[(-74, -67)],
    &[(-73, -69)],
    &[],
    &[],
    &[(-66, -62), (45, 160)],
    &[(-75, -62), (-15, 170)],
    &[(-150, 165)],
    &[(-180, 180)],
    &[(-180, 180)],
];

/// The colour of a split in all pictures; of none, the pairs between splits.
pub(super) fn colour(split: Option<Split>) -> [u8; 3] {
    match split {
        Some(Split::Train) => [40, 90, 200],
        Some(Split::Validation) => [230, 120, 0],
        Some(Split::Test) => [0, 140, 70],
        None => [150, 150, 150],
    }
}

/// The world, 180° west at the left, and a dot around every pair.
pub(super) fn world(pairs: &[PairRecord]) -> Picture {
    let mut picture = Picture::drawn(360 * SCALE, 180 * SCALE, |x, y| {
        let (longitude, from_north) = ((x / SCALE) as i16 - 180, (y / SCALE) as usize);
        let is_land =
            LAND_ROWS[from_north / ROW].iter().any(|(west, east)| (*west..*east).contains(&longitude));
        let is_line = x % (30 * SCALE) == 0 || y % (30 * SCALE) == 0;
        if is_land {
            LAND
        } else if is_line {
            LINE
        } else {
            SEA
        }
    });
    for pair in pairs {
        let x = (pair.place.longitude() + 180.0) * f64::from(SCALE);
        let y = (90.0 - pair.place.latitude()) * f64::from(SCALE);
        disc(&mut picture, (x, y), 3.2);
    }
    picture
}

fn disc(picture: &mut Picture, (x, y): (f64, f64), radius: f64) {
    let reach = |middle: f64, length: u32| {
        let last = f64::from(length - 1);
        (middle - radius).clamp(0.0, last) as u32..=(middle + radius).clamp(0.0, last) as u32
    };
    for row in reach(y, picture.height()) {
        for column in reach(x, picture.width()) {
            if (f64::from(column) + 0.5 - x).hypot(f64::from(row) + 0.5 - y) <= radius {
                picture.set_pixel(column, row, DOT);
            }
        }
    }
}

/// The ground of some pairs, north up: the frame of each in the colour of its split.
///
/// # Panics
///
/// Without pairs.
pub(super) fn ground(pairs: &[&PairRecord]) -> Picture {
    let first = pairs.first().expect("a source has pairs").place.longitude();
    // Relative to the first pair, so that the antimeridian is no border.
    let frame = |pair: &PairRecord| {
        let bounds = pair.bounds;
        let corner = |longitude: f64, latitude: f64| {
            let (x, y) =
                in_world(LonLat::new(longitude, latitude.clamp(-89.0, 89.0)).expect("a corner is a place"));
            let beside = (x - (first + 180.0) / 360.0 + 1.5).rem_euclid(1.0) - 0.5;
            (beside, y)
        };
        let (left, top) = corner(bounds.west(), bounds.north());
        (left, top, left + bounds.width() / 360.0, corner(bounds.west(), bounds.south()).1)
    };
    let frames: Vec<(f64, f64, f64, f64)> = pairs.iter().map(|pair| frame(pair)).collect();
    let start = (f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY);
    let (left, top, right, bottom) = frames.iter().fold(start, |whole, frame| {
        (whole.0.min(frame.0), whole.1.min(frame.1), whole.2.max(frame.2), whole.3.max(frame.3))
    });
    let scale = (GROUND - 5.0) / (right - left).max(bottom - top).max(1e-12);
    let length = |span: f64| ((span * scale) as u32 + 5).max(24);
    let mut picture = Picture::filled(length(right - left), length(bottom - top), [255; 3]);
    // Large frames first, so that small ones lie over them.
    let mut order: Vec<usize> = (0..frames.len()).collect();
    let width = |index: &usize| frames[*index].2 - frames[*index].0;
    order.sort_by(|one, other| width(other).total_cmp(&width(one)));
    for index in order {
        let at = |x: f64, y: f64| (((x - left) * scale) as u32 + 2, ((y - top) * scale) as u32 + 2);
        let (near, far) = (at(frames[index].0, frames[index].1), at(frames[index].2, frames[index].3));
        outline(&mut picture, near, far, colour(pairs[index].split));
    }
    picture
}

fn outline(picture: &mut Picture, near: (u32, u32), far: (u32, u32), colour: [u8; 3]) {
    let pale = colour.map(|value| value / 4 + 191);
    let (far_x, far_y) = (far.0.min(picture.width() - 1), far.1.min(picture.height() - 1));
    for y in near.1..=far_y {
        for x in near.0..=far_x {
            let is_border = x == near.0 || y == near.1 || x == far_x || y == far_y;
            picture.set_pixel(x, y, if is_border { colour } else { pale });
        }
    }
}
