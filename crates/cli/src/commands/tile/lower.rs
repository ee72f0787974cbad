//! Lower zooms out of higher ones: each tile from the four below it.

use std::collections::HashMap;

use earthmapper_geo::{Picture, Tile};

/// Tiles of lower zooms that wait for the tiles below them.
pub struct LowerZooms {
    /// The lowest zoom wanted.
    lowest: u8,
    waiting: HashMap<Tile, Waiting>,
    /// How many tiles below a tile will come.
    expected: HashMap<Tile, usize>,
}

struct Waiting {
    quarters: Vec<(Tile, Picture)>,
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
    pub fn add(&mut self, tile: Tile, picture: Option<&Picture>) -> Vec<(Tile, Picture)> {
        let mut done = Vec::new();
        let mut next = Some((tile, picture.cloned()));
        while let Some((tile, picture)) = next.take() {
            let Some(parent) = tile.parent().filter(|parent| parent.z() >= self.lowest) else { break };
            let waiting =
                self.waiting.entry(parent).or_insert_with(|| Waiting { quarters: Vec::new(), came: 0 });
            waiting.came += 1;
            if let Some(picture) = picture {
                let half = |length: u32| length.div_ceil(2);
                let quarter = picture.resized(half(picture.width()), half(picture.height()));
                waiting.quarters.push((tile, quarter));
            }
            if waiting.came < self.expected.get(&parent).copied().unwrap_or(0) {
                break;
            }
            let waiting = self.waiting.remove(&parent).expect("it was there just now");
            let picture = joined(&waiting.quarters);
            done.extend(picture.clone().map(|picture| (parent, picture)));
            next = Some((parent, picture));
        }
        done
    }
}

/// Four quarters as one picture; the mean colour where one is missing.
fn joined(quarters: &[(Tile, Picture)]) -> Option<Picture> {
    let (_, first) = quarters.first()?;
    let (width, height) = (first.width(), first.height());
    let pixels: Vec<&[u8; 3]> =
        quarters.iter().flat_map(|(_, picture)| picture.rgb().as_chunks::<3>().0).collect();
    let mean = |channel: usize| {
        (pixels.iter().map(|pixel| u64::from(pixel[channel])).sum::<u64>() / pixels.len() as u64) as u8
    };
    let mut whole = Picture::filled(2 * width, 2 * height, [mean(0), mean(1), mean(2)]);
    for (tile, picture) in quarters {
        whole.paste(&picture.resized(width, height), tile.x() % 2 * width, tile.y() % 2 * height);
    }
    Some(whole)
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
        let grey = |value| Picture::filled(8, 8, [value; 3]);
        assert!(lower.add(tiles[0], Some(&grey(10))).is_empty());
        assert!(lower.add(tiles[1], Some(&grey(20))).is_empty());
        assert!(lower.add(tiles[2], None).is_empty());
        let done = lower.add(tiles[3], Some(&grey(30)));
        assert_eq!(done.iter().map(|(tile, _)| *tile).collect::<Vec<_>>(), [tile(2, 1, 1), tile(1, 0, 0)]);
        let whole = &done[0].1;
        assert_eq!(
            (whole.width(), whole.pixel(1, 1)[0], whole.pixel(7, 1)[0], whole.pixel(7, 7)[0]),
            (8, 10, 20, 30)
        );
        assert_eq!(whole.pixel(1, 7)[0], 20, "the mean of the others");
        assert_eq!(done[1].1.pixel(5, 5)[0], 10);
        // A tile with nothing below it is none.
        assert!(lower.add(tiles[4], None).is_empty());
    }
}
