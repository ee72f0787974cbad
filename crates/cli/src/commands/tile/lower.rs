//! Lower zooms out of higher ones: each tile from the four below it.

use std::collections::HashMap;

use earthmapper::pyramid::TilePicture;
use earthmapper_geo::{Mask, Picture, Tile};

/// Tiles of lower zooms that wait for the tiles below them.
pub struct LowerZooms {
    /// The lowest zoom wanted.
    lowest: u8,
    waiting: HashMap<Tile, Waiting>,
    /// How many tiles below a tile will come.
    expected: HashMap<Tile, usize>,
}

struct Waiting {
    quarters: Vec<(Tile, TilePicture)>,
    /// Tiles that came, with a picture or without.
    came: usize,
}

impl LowerZooms {
    /// Down to zoom `lowest`, out of these tiles.
    pub fn new(tiles: &[Tile], lowest: u8) -> Self {
        let mut expected = HashMap::new();
        let mut level: Vec<Tile> = tiles.to_vec();
        loop {
            level.retain(|tile| tile.z() > lowest);
            let mut parents = Vec::new();
            for parent in level.iter().filter_map(|tile| tile.parent()) {
                let count = expected.entry(parent).or_insert(0);
                *count += 1;
                if *count == 1 {
                    parents.push(parent);
                }
            }
            if parents.is_empty() {
                break;
            }
            level = parents;
        }
        Self { lowest, waiting: HashMap::new(), expected }
    }

    /// How many tiles there will be.
    pub fn count(&self) -> usize {
        self.expected.len()
    }

    /// The tiles that there will be, unless all below one fail.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> {
        self.expected.keys().copied()
    }

    /// Takes a tile, or word that there will be none; gives the tiles above it that are complete now, from the nearest
    /// on, those that came out empty left out.
    pub fn add(&mut self, tile: Tile, picture: Option<&TilePicture>) -> Vec<(Tile, TilePicture)> {
        let mut done = Vec::new();
        let mut next = Some((tile, picture.cloned()));
        while let Some((tile, tile_picture)) = next.take() {
            let Some(parent) = tile.parent().filter(|parent| parent.z() >= self.lowest) else { break };
            let waiting =
                self.waiting.entry(parent).or_insert_with(|| Waiting { quarters: Vec::new(), came: 0 });
            waiting.came += 1;
            if let Some(tile_picture) = tile_picture {
                let half = |length: u32| length.div_ceil(2);
                // Filled, so that what lies under the holes does not bleed out of them.
                let picture = tile_picture.filled();
                let picture = picture.resized(half(picture.width()), half(picture.height()));
                let holes = halved(&tile_picture.holes);
                waiting.quarters.push((tile, TilePicture { picture, holes }));
            }
            if waiting.came < self.expected.get(&parent).copied().unwrap_or(0) {
                break;
            }
            let waiting = self.waiting.remove(&parent).expect("it was there just now");
            let tile_picture = joined(&waiting.quarters);
            done.extend(tile_picture.clone().map(|tile_picture| (parent, tile_picture)));
            next = Some((parent, tile_picture));
        }
        done
    }
}

/// A mask at half the size, with holes where at least half of four pixels are holes.
fn halved(holes: &Mask) -> Mask {
    let last = (holes.width() - 1, holes.height() - 1);
    let is_hole = |x: u32, y: u32| u32::from(holes.is_hole(x.min(last.0), y.min(last.1)));
    Mask::drawn(holes.width().div_ceil(2), holes.height().div_ceil(2), |x, y| {
        let (x, y) = (2 * x, 2 * y);
        is_hole(x, y) + is_hole(x + 1, y) + is_hole(x, y + 1) + is_hole(x + 1, y + 1) >= 2
    })
}

/// Four quarters as one tile, which has a hole where one is missing.
fn joined(quarters: &[(Tile, TilePicture)]) -> Option<TilePicture> {
    let (_, first) = quarters.first()?;
    let (width, height) = (first.picture.width(), first.picture.height());
    let mut picture = Picture::filled(2 * width, 2 * height, [0; 3]);
    let mut masks: [Option<Mask>; 4] = Default::default();
    for (tile, tile_picture) in quarters {
        let (column, row) = (tile.x() % 2, tile.y() % 2);
        picture.paste(&tile_picture.picture.resized(width, height), column * width, row * height);
        masks[(2 * row + column) as usize] = Some(tile_picture.holes.resized(width, height));
    }
    let holes = Mask::drawn(2 * width, 2 * height, |x, y| {
        let mask = &masks[(2 * (y / height) + x / width) as usize];
        mask.as_ref().is_none_or(|mask| mask.is_hole(x % width, y % height))
    });
    Some(TilePicture { picture, holes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_waits_for_those_below_it() {
        let tile = |z, x, y| Tile::new(z, x, y).unwrap();
        let tiles = [tile(3, 2, 2), tile(3, 3, 2), tile(3, 2, 3), tile(3, 3, 3), tile(3, 4, 2)];
        let mut lower = LowerZooms::new(&tiles, 1);
        assert_eq!(lower.count(), 4, "two of zoom 2, two of zoom 1");
        let grey = |value| TilePicture {
            picture: Picture::filled(8, 8, [value; 3]),
            holes: Mask::drawn(8, 8, |x, _| value == 30 && x > 3),
        };
        assert!(lower.add(tiles[0], Some(&grey(10))).is_empty());
        assert!(lower.add(tiles[1], Some(&grey(20))).is_empty());
        assert!(lower.add(tiles[2], None).is_empty());
        let done = lower.add(tiles[3], Some(&grey(30)));
        assert_eq!(done.iter().map(|(tile, _)| *tile).collect::<Vec<_>>(), [tile(2, 1, 1), tile(1, 0, 0)]);
        let TilePicture { picture: whole, holes } = &done[0].1;
        assert_eq!(
            (whole.width(), whole.pixel(1, 1)[0], whole.pixel(7, 1)[0], whole.pixel(7, 7)[0]),
            (8, 10, 20, 30)
        );
        assert!(
            holes.is_hole(1, 7) && holes.is_hole(7, 7),
            "a tile is missing, another is transparent at its right"
        );
        assert_eq!(holes.hole_count(), 16 + 8);
        assert_eq!(done[1].1.picture.pixel(5, 5)[0], 10);
        assert!(done[1].1.holes.is_hole(1, 1), "the other three tiles of the zoom below are missing");
        // A tile with nothing below it is none.
        assert!(lower.add(tiles[4], None).is_empty());
    }
}
