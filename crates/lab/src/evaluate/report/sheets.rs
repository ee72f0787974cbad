//! Contact sheets: the best, the middling and the worst pictures, with what was asked, what was true, and where they differ.

use std::fmt;

use earthmapper::Modality;
use earthmapper_geo::picture::Picture;

use crate::data::contact_sheet;
use crate::evaluate::EvaluateError;
use crate::evaluate::bench::{of_modality, square};
use crate::evaluate::evaluation::Candidate;
use crate::evaluate::measure::{Measured, Setting};

/// Pixels around the pictures of a sheet.
const GAP: u32 = 4;

/// Which pictures are shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rank {
    /// The highest worth, the best first.
    Best,
    /// Those in the middle.
    Median,
    /// The lowest worth, the worst first.
    Worst,
}

impl Rank {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Best, Self::Median, Self::Worst];

    /// Positions of the pictures to show: at most `rows`, and of few pictures a third, so that the sheets differ.
    fn chosen(self, worth: &[f64], rows: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..worth.len()).collect();
        order.sort_by(|&left, &right| worth[right].total_cmp(&worth[left]));
        let count = (worth.len() / 3).clamp(1, rows.max(1));
        match self {
            Self::Best => order.truncate(count),
            Self::Median => order = order[(order.len() - count) / 2..][..count].to_vec(),
            Self::Worst => {
                order.reverse();
                order.truncate(count);
            }
        }
        order
    }
}

/// `best`, `median` or `worst`.
impl fmt::Display for Rank {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Best => "best",
            Self::Median => "median",
            Self::Worst => "worst",
        })
    }
}

/// A contact sheet, a pair per row.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// What was made.
    pub target: Modality,
    /// Which pictures.
    pub rank: Rank,
    /// What the columns show.
    pub columns: Vec<&'static str>,
    /// Names of the pairs and what their pictures are worth.
    pub rows: Vec<(String, f64)>,
    /// The pictures.
    pub picture: Picture,
}

impl Sheet {
    /// Its name as a file.
    pub fn file_name(&self) -> String {
        file_name(self.target, self.rank)
    }
}

/// Names of the files of all sheets of a kind of pictures.
pub fn file_names(target: Modality) -> [String; 3] {
    Rank::ALL.map(|rank| file_name(target, rank))
}

fn file_name(target: Modality, rank: Rank) -> String {
    format!("{target}-{rank}.png")
}

/// The sheets of everything that was made.
pub(in crate::evaluate) fn sheets(
    setting: &Setting,
    measured: &Measured,
) -> Result<Vec<Sheet>, EvaluateError> {
    let mut sheets = Vec::new();
    for section in &measured.sections {
        let Some((_, worth)) = measured.worth(section.target) else { continue };
        for rank in Rank::ALL {
            let chosen = rank.chosen(&worth, setting.options.sheet_rows);
            let (mut rows, mut columns) = (Vec::new(), Vec::new());
            for &index in &chosen {
                let (labels, pictures) = row(setting, measured, index, section.target)?.into_iter().unzip();
                columns = labels;
                rows.push(pictures);
            }
            sheets.push(Sheet {
                target: section.target,
                rank,
                columns,
                rows: chosen.iter().map(|&index| (measured.names[index].clone(), worth[index])).collect(),
                picture: contact_sheet(&rows, GAP),
            });
        }
    }
    Ok(sheets)
}

/// The pictures of one pair, each with its label.
fn row(
    setting: &Setting,
    measured: &Measured,
    index: usize,
    target: Modality,
) -> Result<Vec<(&'static str, Picture)>, EvaluateError> {
    let side = setting.options.tile_side.max(1);
    let tile = |picture: &Picture| match (picture.width(), picture.height()) == (side, side) {
        true => picture.clone(),
        false => picture.resized(side, side),
    };
    let (pair, _) = square(setting.pairs, index, setting.side)?;
    let (input, truth) = (of_modality(&pair, target.other()), of_modality(&pair, target));
    let made = setting.picture(index, &pair, target, Candidate::Model)?;
    let mut row = vec![
        ("input", tile(input)),
        ("truth", tile(truth)),
        ("made", tile(&made)),
        ("difference (white: none)", tile(&difference(&made, truth))),
    ];
    let maps = measured.section(Modality::Map);
    if target == Modality::Satellite && maps.is_some_and(|maps| maps.column(Candidate::Cycle).is_some()) {
        let back = setting.picture(index, &pair, Modality::Map, Candidate::Cycle)?;
        row.push(("map made back", tile(&back)));
    }
    if let Some(uncertainty) = setting.source.uncertainty(&pair.name, target)? {
        row.push(("entropy (white: undecided)", enlarged(&uncertainty, side)));
    }
    Ok(row)
}

/// White where two pictures agree, darker the more they differ.
fn difference(made: &Picture, truth: &Picture) -> Picture {
    let mut difference = truth.clone();
    for (value, made) in difference.rgb_mut().iter_mut().zip(made.rgb()) {
        *value = 255 - value.abs_diff(*made);
    }
    difference
}

/// Without mixing neighbours: a token is a token.
fn enlarged(picture: &Picture, side: u32) -> Picture {
    let at = |position: u32, length: u32| (u64::from(position) * u64::from(length) / u64::from(side)) as u32;
    Picture::drawn(side, side, |x, y| picture.pixel(at(x, picture.width()), at(y, picture.height())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_choose_from_both_ends_and_the_middle() {
        let worth = [0.5, 0.9, 0.1, 0.7, 0.3, 0.2];
        assert_eq!(Rank::Best.chosen(&worth, 4), [1, 3]);
        assert_eq!(Rank::Median.chosen(&worth, 4), [0, 4]);
        assert_eq!(Rank::Worst.chosen(&worth, 4), [2, 5]);
        assert_eq!(Rank::Worst.chosen(&worth, 1), [2]);
        assert_eq!(Rank::Median.chosen(&worth[..1], 4), [0]);
    }

    #[test]
    fn differences_are_dark_and_tokens_stay_square() {
        let (left, right) = (Picture::filled(2, 2, [10, 20, 30]), Picture::filled(2, 2, [10, 25, 0]));
        assert_eq!(difference(&left, &right).pixel(0, 0), [255, 250, 225]);
        let tokens = Picture::drawn(2, 2, |x, _| [(x * 255) as u8; 3]);
        let large = enlarged(&tokens, 6);
        assert_eq!((large.pixel(2, 5), large.pixel(3, 0)), ([0; 3], [255; 3]));
    }
}
