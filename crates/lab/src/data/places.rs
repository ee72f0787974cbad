//! Places taken from pairs, or given to others, to learn what they are worth.

use earthmapper::Place;
use earthmapper_geo::pairs::PairFolder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// What a model is told about the places of pairs.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Places {
    /// Each pair's own.
    #[default]
    Own,
    /// None.
    Hidden,
    /// That of another pair.
    Shuffled,
}

impl Places {
    /// The pairs with what is told of their places.
    pub fn told(self, pairs: PairFolder, seed: u64) -> PairFolder {
        match self {
            Self::Own => pairs,
            Self::Hidden => hide_places(pairs),
            Self::Shuffled => shuffle_places(pairs, seed),
        }
    }
}

/// The pairs without their places.
fn hide_places(pairs: PairFolder) -> PairFolder {
    let none = vec![None; pairs.len()];
    pairs.with_places(none)
}

/// The pairs, each at the position of another one, drawn by `seed`; metres per pixel stay, as they are seen in the picture.
/// With more than one pair none keeps its own position.
fn shuffle_places(pairs: PairFolder, seed: u64) -> PairFolder {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut from: Vec<usize> = (0..pairs.len()).collect();
    // Sattolo's shuffle: one cycle through all, so that nobody stays where they were.
    for last in (1..from.len()).rev() {
        from.swap(last, random.random_range(0..last));
    }
    let places = (0..pairs.len())
        .map(|index| {
            let (own, other) = (pairs.place(index), pairs.place(from[index])?);
            let metres = own.map_or(other.metres_per_pixel(), |own| own.metres_per_pixel());
            Some(Place::new(other.position(), metres).unwrap_or(other))
        })
        .collect();
    pairs.with_places(places)
}

#[cfg(test)]
mod tests {
    use earthmapper::LonLat;
    use earthmapper_geo::pairs::{PairSelection, PairSource};
    use earthmapper_geo::picture::{Picture, WriteOptions, write_picture};

    use super::*;

    #[test]
    fn shuffled_places_are_those_of_other_pairs() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..5 {
            let path = folder.path().join(format!("{i}.png"));
            write_picture(path, &Picture::filled(4, 2, [0; 3]), &WriteOptions::default()).unwrap();
        }
        let source = PairSource::SideBySide { folder: folder.path().into(), order: Default::default() };
        let pairs = PairFolder::open(&source, &PairSelection::default()).unwrap();
        let place = |i: u32| {
            let position = LonLat::new(f64::from(i), 50.0).unwrap();
            Some(Place::new(position, Some(1.0 + f64::from(i))).unwrap())
        };
        let pairs = pairs.with_places((0..5).map(place).collect());
        let longitudes = |pairs: &PairFolder| -> Vec<f64> {
            (0..5).map(|i| pairs.place(i).unwrap().position().longitude()).collect()
        };
        for seed in 0..20 {
            let shuffled = Places::Shuffled.told(pairs.clone(), seed);
            let mut found = longitudes(&shuffled);
            assert!(found.iter().enumerate().all(|(i, &longitude)| longitude != i as f64), "{found:?}");
            assert_eq!(longitudes(&Places::Shuffled.told(pairs.clone(), seed)), found);
            found.sort_by(f64::total_cmp);
            assert_eq!(found, longitudes(&pairs));
            // What a pixel shows is seen in the picture, whatever its place.
            assert!((0..5).all(|i| shuffled.place(i).unwrap().metres_per_pixel() == Some(1.0 + i as f64)));
        }
        assert_eq!(longitudes(&Places::Own.told(pairs.clone(), 0)), longitudes(&pairs));
        let hidden = Places::Hidden.told(pairs, 0);
        assert!((0..5).all(|i| hidden.place(i).is_none()));
    }
}
