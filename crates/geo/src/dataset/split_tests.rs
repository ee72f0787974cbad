//! No two splits touch: for any tiles of any zooms, shares, blocks, buffers and seeds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn tile(text: &str) -> Tile {
    text.parse().unwrap()
}

fn options(block_zoom: u8, buffer_metres: f64) -> SplitOptions {
    SplitOptions { validation: 0.2, test: 0.2, block_zoom, buffer_metres, ..SplitOptions::default() }
}

/// Tiles of zoom `zoom`, `side × side` of them from a tile on.
fn square(first: &str, side: u32) -> Vec<BoundingBox> {
    let first = tile(first);
    let tile = |index: u32| Tile::new(first.z(), first.x() + index % side, first.y() + index / side).unwrap();
    (0..side * side).map(|index| tile(index).bounds()).collect()
}

fn count(assignment: &Assignment, split: Option<Split>) -> usize {
    assignment.splits.iter().filter(|found| **found == split).count()
}

/// Metres between two grounds, rather too few than too many; negative when they touch. Computed in degrees, unlike the
/// code under test.
fn distance(left: BoundingBox, right: BoundingBox) -> f64 {
    let gap = (left.south() - right.north()).max(right.south() - left.north());
    let beside = |from: BoundingBox, to: BoundingBox| (to.west() - from.east()).rem_euclid(360.0);
    let overlaps = (right.west() - left.west()).rem_euclid(360.0) <= left.width() + 1e-9
        || (left.west() - right.west()).rem_euclid(360.0) <= right.width() + 1e-9;
    let side = if overlaps { 0.0 } else { beside(left, right).min(beside(right, left)) };
    if gap <= 1e-9 && side <= 1e-9 {
        return -1.0;
    }
    if side <= 1e-9 {
        return gap * 110_500.0;
    }
    // Between the sides that face each other, on a sphere: near a pole the shortest way is far from straight on a map.
    let latitudes = |ground: BoundingBox| {
        (0..=16).map(move |i| ground.south() + (ground.north() - ground.south()) * f64::from(i) / 16.0)
    };
    let metres = |a: f64, b: f64| {
        let (a, b, side) = (a.to_radians(), b.to_radians(), side.min(180.0).to_radians());
        let haversine = ((a - b) / 2.0).sin().powi(2) + a.cos() * b.cos() * (side / 2.0).sin().powi(2);
        2.0 * 6_340_000.0 * haversine.sqrt().asin()
    };
    latitudes(left).flat_map(|a| latitudes(right).map(move |b| metres(a, b))).fold(f64::INFINITY, f64::min)
}

#[test]
fn shares_are_met_by_blocks() {
    let grounds = square("12/2000/1400", 40);
    let assignment = assign(&grounds, &options(10, 0.0)).unwrap();
    let all: usize = Split::ALL.into_iter().map(|split| count(&assignment, Some(split))).sum();
    assert_eq!(all + assignment.straddling + assignment.too_near, 1600);
    assert_eq!(assignment.straddling, 0, "tiles lie in one block each");
    let share = |split| count(&assignment, Some(split)) as f64 / 1600.0;
    assert!(
        (0.19..=0.21).contains(&share(Split::Test)),
        "the most precious loses nothing: {}",
        share(Split::Test)
    );
    assert!(share(Split::Validation) > 0.08 && share(Split::Train) > 0.15, "{assignment:?}");
    assert_eq!(assign(&grounds, &options(10, 0.0)).unwrap(), assignment);
    let other = assign(&grounds, &SplitOptions { seed: 1, ..options(10, 0.0) }).unwrap();
    assert_ne!(other.splits, assignment.splits);
}

#[test]
fn a_share_of_nothing_gives_nothing() {
    let grounds = square("12/2000/1400", 8);
    let all = SplitOptions { validation: 0.0, test: 0.0, ..options(11, 500.0) };
    let assignment = assign(&grounds, &all).unwrap();
    assert_eq!(count(&assignment, Some(Split::Train)), 64);
    assert_eq!(assign(&[], &all).unwrap().splits, []);
}

#[test]
fn another_zoom_of_the_same_ground_is_of_the_same_split() {
    // The pyramid over one tile: parents over blocks of different splits are of none.
    let top = tile("10/500/350");
    let mut tiles = vec![top];
    for zoom in 0..3 {
        let level: Vec<Tile> = tiles.iter().filter(|tile| tile.z() == 10 + zoom).copied().collect();
        tiles.extend(level.into_iter().flat_map(|tile| tile.children().unwrap()));
    }
    let grounds: Vec<BoundingBox> = tiles.iter().map(|tile| tile.bounds()).collect();
    let assignment = assign(&grounds, &options(12, 0.0)).unwrap();
    assert_eq!(assignment.splits[0], None);
    for (index, tile) in tiles.iter().enumerate() {
        for (other, ancestor) in
            tiles.iter().enumerate().filter(|(_, other)| tile.ancestor(other.z()) == Some(**other))
        {
            let both = assignment.splits[index].zip(assignment.splits[other]);
            assert!(both.is_none_or(|(split, above)| split == above), "{tile} in {ancestor}");
        }
    }
    assert!(Split::ALL.into_iter().all(|split| count(&assignment, Some(split)) > 0), "{assignment:?}");
}

#[test]
fn regions_are_held_out() {
    let grounds = square("12/2000/1400", 10);
    let region = BoundingBox::of_tiles(tile("12/2000/1400"), tile("12/2002/1409"));
    let hold_out = vec![HoldOut { region, split: Split::Test }];
    let all = SplitOptions { validation: 0.0, test: 0.0, buffer_metres: 0.0, hold_out, ..options(12, 0.0) };
    let assignment = assign(&grounds, &all).unwrap();
    assert_eq!(count(&assignment, Some(Split::Test)), 30);
    assert_eq!(count(&assignment, Some(Split::Train)), 60, "the column beside the region gives way");
    // Half a tile to the east, one column lies over the edge.
    let [west, south, east, north] = region.into();
    let wider = BoundingBox::new(west, south, east + 0.04, north).unwrap();
    let hold_out = vec![HoldOut { region: wider, split: Split::Validation }];
    let assignment = assign(&grounds, &SplitOptions { hold_out, ..all }).unwrap();
    assert_eq!((assignment.straddling, assignment.too_near), (10, 0));
    assert_eq!(count(&assignment, Some(Split::Validation)), 30);
}

#[test]
fn the_antimeridian_is_no_border() {
    let grounds = vec![tile("8/255/100").bounds(), tile("8/0/100").bounds(), tile("8/1/100").bounds()];
    for seed in 0..40 {
        let half =
            SplitOptions { seed, validation: 0.0, test: 0.5, block_zoom: 8, ..SplitOptions::default() };
        let splits = assign(&grounds, &half).unwrap().splits;
        assert!(splits[0].is_none() || splits[1].is_none() || splits[0] == splits[1], "{splits:?}");
    }
    assert_eq!(overlaps(&grounds, &[Some(Split::Train), Some(Split::Test), None], 0.0), [(0, 1)]);
    assert_eq!(overlaps(&grounds, &[Some(Split::Train), None, Some(Split::Test)], 1000.0), []);
}

#[test]
fn options_are_checked() {
    for (wrong, start) in [
        (
            SplitOptions { validation: 0.6, test: 0.5, ..SplitOptions::default() },
            "split: validation 0.6 and test 0.5",
        ),
        (SplitOptions { test: f64::NAN, ..SplitOptions::default() }, "split: validation 0.1 and test NaN"),
        (SplitOptions { block_zoom: 31, ..SplitOptions::default() }, "split.block_zoom: 31"),
        (SplitOptions { buffer_metres: -1.0, ..SplitOptions::default() }, "split.buffer_metres: -1"),
    ] {
        let error = assign(&[], &wrong).unwrap_err().to_string();
        assert!(error.starts_with(start) && error.contains(';'), "{error}");
    }
    assert_eq!("test".parse(), Ok(Split::Test));
    assert!("training".parse::<Split>().is_err());
}

/// Tiles of several zooms over the same ground, anywhere, also at the edges of the world.
fn tiles() -> impl Strategy<Value = Vec<Tile>> {
    let corner = prop_oneof![Just(0), Just(u32::MAX), any::<u32>()];
    (6..=22_u8, corner.clone(), corner, 1..=6_u32).prop_flat_map(|(zoom, x, y, spread)| {
        let one = (0..=3_u8, 0..1_u32 << spread, 0..1_u32 << spread);
        proptest::collection::vec(one, 1..120).prop_map(move |tiles| {
            let near = tiles.into_iter().map(|(up, right, down)| {
                let side = 1_u64 << zoom;
                let index = |start: u32, step: u32| ((u64::from(start) + u64::from(step)) % side) as u32;
                let deep = Tile::new(zoom, index(x, right), index(y, down)).unwrap();
                deep.ancestor(zoom - up).unwrap()
            });
            near.collect::<BTreeSet<_>>().into_iter().collect()
        })
    })
}

proptest! {
    #[test]
    fn no_two_splits_come_within_the_buffer(
        tiles in tiles(), seed: u64, validation in 0.0..0.5_f64, test in 0.0..0.5_f64, up in 0..6_u8, down in 0..3_u8,
        buffer in 0.0..3.0_f64, region: bool,
    ) {
        let deepest = tiles.iter().map(|tile| tile.z()).max().unwrap();
        let grounds: Vec<BoundingBox> = tiles.iter().map(|tile| tile.bounds()).collect();
        // From nothing to three tiles of the deepest zoom.
        let buffer_metres = (buffer * tiles[0].metres_per_pixel(256) * 256.0 * 0.7).min(1e6);
        let hold_out = if region { vec![HoldOut { region: grounds[0], split: Split::Test }] } else { vec![] };
        let block_zoom = (deepest + down).saturating_sub(up).min(30);
        let options = SplitOptions { seed, validation, test, block_zoom, buffer_metres, hold_out };
        let assignment = assign(&grounds, &options).unwrap();
        prop_assert_eq!(&assign(&grounds, &options).unwrap(), &assignment);

        for (index, left) in grounds.iter().enumerate() {
            for (other, right) in grounds.iter().enumerate().skip(index + 1) {
                if let Some((split, beside)) = assignment.splits[index].zip(assignment.splits[other])
                    && split != beside
                {
                    let metres = distance(*left, *right);
                    prop_assert!(
                        metres >= 0.0 && metres >= buffer_metres * 0.98,
                        "{} and {} are {metres} m apart, not {buffer_metres}", tiles[index], tiles[other]
                    );
                }
            }
        }
        prop_assert_eq!(overlaps(&grounds, &assignment.splits, buffer_metres), vec![]);
        let taken_out = assignment.splits.iter().filter(|split| split.is_none()).count();
        prop_assert_eq!(taken_out, assignment.straddling + assignment.too_near);
    }
}
