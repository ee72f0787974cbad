//! Pictures of many pairs at once.

use crate::picture::Picture;

/// Pixels between the pairs of a sheet.
const GAP: u32 = 6;

/// Colour behind the pairs.
const PAPER: [u8; 3] = [255, 255, 255];

/// Colour of the map's edges over a photograph: one that the ground does not have.
const INK: [u8; 3] = [255, 0, 200];

/// How much the colour of neighbours on a map differs, of 441, to be an edge.
const EDGE: f32 = 12.0;

/// Pairs in rows of `columns`, photograph left and map right, each picture of `side × side` pixels.
///
/// # Panics
///
/// Without pairs, columns or pixels.
pub fn contact_sheet(pairs: &[(Picture, Picture)], columns: u32, side: u32) -> Picture {
    let cells = pairs.iter().map(|(photograph, map)| {
        Picture::hconcat(&[&photograph.resized(side, side), &map.resized(side, side)])
    });
    in_rows(&cells.collect::<Vec<_>>(), columns)
}

/// Photographs in rows of `columns`, each as it is at the left and with the edges of its map over it at the right. Where
/// the lines lie beside what they should go around, photograph and map do not fit.
///
/// # Panics
///
/// Without pairs, columns or pixels.
pub fn alignment_sheet(pairs: &[(Picture, Picture)], columns: u32, side: u32) -> Picture {
    let cells = pairs.iter().map(|(photograph, map)| {
        let photograph = photograph.resized(side, side);
        let lines = map_edges(&map.resized(side, side));
        // Paler, so that the lines stand out.
        let over = Picture::drawn(side, side, |x, y| {
            let pale = |value: u8| (u16::from(value) * 3 / 4 + 50) as u8;
            if lines[(y * side + x) as usize] { INK } else { photograph.pixel(x, y).map(pale) }
        });
        Picture::hconcat(&[&photograph, &over])
    });
    in_rows(&cells.collect::<Vec<_>>(), columns)
}

/// Where the colour changes from a pixel to the one right of it or below it.
fn map_edges(map: &Picture) -> Vec<bool> {
    let (width, height) = (map.width(), map.height());
    let differs = |left: [u8; 3], right: [u8; 3]| {
        let squares = left.iter().zip(right).map(|(left, right)| f32::from(left.abs_diff(right)).powi(2));
        squares.sum::<f32>().sqrt() > EDGE
    };
    let positions = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let edge = |(x, y): (u32, u32)| {
        let here = map.pixel(x, y);
        (x + 1 < width && differs(here, map.pixel(x + 1, y)))
            || (y + 1 < height && differs(here, map.pixel(x, y + 1)))
    };
    positions.map(edge).collect()
}

fn in_rows(cells: &[Picture], columns: u32) -> Picture {
    let first = cells.first().expect("a sheet has pairs");
    assert!(columns > 0, "a sheet has columns");
    let columns = columns.min(cells.len() as u32);
    let rows = (cells.len() as u32).div_ceil(columns);
    let (width, height) = (first.width() + GAP, first.height() + GAP);
    let mut sheet = Picture::filled(columns * width + GAP, rows * height + GAP, PAPER);
    for (index, cell) in cells.iter().enumerate() {
        let (column, row) = (index as u32 % columns, index as u32 / columns);
        sheet.paste(cell, GAP + column * width, GAP + row * height);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheets_hold_every_pair_and_draw_edges() {
        let photograph = Picture::filled(8, 8, [40, 80, 20]);
        let map = Picture::drawn(8, 8, |x, _| if x < 4 { [240; 3] } else { [200; 3] });
        let pairs = vec![(photograph, map); 5];
        let sheet = contact_sheet(&pairs, 2, 8);
        assert_eq!((sheet.width(), sheet.height()), (2 * (16 + GAP) + GAP, 3 * (8 + GAP) + GAP));
        assert_eq!((sheet.pixel(GAP, GAP), sheet.pixel(GAP + 8, GAP)), ([40, 80, 20], [240; 3]));
        let sheet = alignment_sheet(&pairs, 9, 8);
        assert_eq!(sheet.width(), 5 * (16 + GAP) + GAP);
        let inked: Vec<u32> = (0..8).filter(|x| sheet.pixel(GAP + 8 + x, GAP + 2) == INK).collect();
        assert_eq!(inked, [3]);
    }
}
