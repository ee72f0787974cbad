//! Many pictures in one, to look at.

use earthmapper_geo::picture::Picture;

/// Between and around the pictures.
const BACKGROUND: [u8; 3] = [255; 3];

/// Rows of pictures on white with `gap` pixels around each. A column is as wide as its widest picture, a row
/// as high as its highest; rows may differ in length.
///
/// # Panics
///
/// When there is no picture at all.
pub fn contact_sheet(rows: &[Vec<Picture>], gap: u32) -> Picture {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    assert!(columns > 0, "a contact sheet shows at least one picture");
    let width_of =
        |column| rows.iter().filter_map(|row| row.get(column)).map(Picture::width).max().unwrap_or(0);
    let height_of = |row: &Vec<Picture>| row.iter().map(Picture::height).max().unwrap_or(0);
    let widths: Vec<u32> = (0..columns).map(width_of).collect();
    let heights: Vec<u32> = rows.iter().map(height_of).collect();
    let with_gaps = |sides: &[u32]| sides.iter().map(|side| side + gap).sum::<u32>() + gap;

    let mut sheet = Picture::filled(with_gaps(&widths), with_gaps(&heights), BACKGROUND);
    let mut y = gap;
    for (row, height) in rows.iter().zip(heights) {
        let mut x = gap;
        for (picture, width) in row.iter().zip(&widths) {
            sheet.paste(picture, x, y);
            x += width + gap;
        }
        y += height + gap;
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_in_rows_and_columns() {
        let (red, green) = ([255, 0, 0], [0, 255, 0]);
        let rows = [
            vec![Picture::filled(3, 2, red), Picture::filled(1, 4, green)],
            vec![Picture::filled(2, 2, green)],
            vec![],
        ];
        let sheet = contact_sheet(&rows, 1);
        assert_eq!((sheet.width(), sheet.height()), (1 + 3 + 1 + 1 + 1, 1 + 4 + 1 + 2 + 1 + 1));
        assert_eq!(sheet.pixel(1, 1), red);
        assert_eq!(sheet.pixel(3, 2), red);
        assert_eq!(sheet.pixel(5, 4), green);
        assert_eq!(sheet.pixel(2, 7), green);
        for (x, y) in [(0, 0), (4, 1), (1, 3), (3, 6), (6, 8)] {
            assert_eq!(sheet.pixel(x, y), BACKGROUND, "({x}, {y})");
        }
        assert_eq!(
            contact_sheet(&rows[2..].iter().chain(&rows[1..2]).cloned().collect::<Vec<_>>(), 0).width(),
            2
        );
    }
}
