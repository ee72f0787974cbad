//! Map classes: which of land, water, park, highway and road each pixel of a map is, and how well two maps agree.
//!
//! A pixel belongs to the class of the palette colour nearest in RGB. Lab costs more and gains nothing: after a JPEG at
//! quality 75 the road class of the New York maps keeps an intersection over union of 0.84 in RGB and 0.83 in Lab,
//! after noise of four steps 0.94 and 0.92. Each class has several colours (plain land and buildings, orange highways
//! and yellow arterials), found by [`Palette::measure`].
//!
//! Thin roads make the plain intersection over union harsh: the true maps themselves, downsampled 4× and enlarged
//! again (bicubic), score 0.27 on roads. Read it together with [`RoadMatches`](super::RoadMatches), which gives them
//! 0.89.

use earthmapper_geo::picture::Picture;
use serde::{Deserialize, Serialize};

use super::MetricsError;

/// One class of a map and the colours it is drawn in.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MapClass {
    /// Name in tables and files, for example `water`.
    pub name: String,
    /// Whether its pixels count as road pixels in [`RoadMatches`](super::RoadMatches).
    #[serde(default)]
    pub is_road: bool,
    /// The colours, 8-bit RGB; at least one.
    pub colours: Vec<[u8; 3]>,
}

/// The classes of one map style. In JSON and TOML: a list of [`MapClass`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Vec<MapClass>", into = "Vec<MapClass>")]
pub struct Palette(Vec<MapClass>);

/// The classes that [`Palette::measure`] looks for, and whether they are roads.
const CLASSES: [(&str, bool); 5] =
    [("land", false), ("water", false), ("park", false), ("highway", true), ("road", true)];

/// Share of all pixels that must gather around a colour to make it one of the palette. The rarest colours kept, dark
/// yellow roads and the shaded rim of water, have 0.09 % to 0.10 %; the next peaks are mixtures along edges with 0.05 %.
const SMALLEST_SHARE: f64 = 0.0007;

/// Bits per channel of the colour histogram. With 5, a colour and its JPEG noise fall into one bin and its neighbours.
const BITS: u32 = 5;

impl Palette {
    /// A palette of these classes, in this order.
    ///
    /// # Errors
    ///
    /// [`MetricsError::Palette`] without classes, with more than 255, with a class that has no colour or with two
    /// classes of one name.
    pub fn new(classes: Vec<MapClass>) -> Result<Self, MetricsError> {
        let problem = |text: String| Err(MetricsError::Palette(text));
        if classes.is_empty() || classes.len() > 255 {
            return problem(format!("{} classes, not 1 to 255", classes.len()));
        }
        for (index, class) in classes.iter().enumerate() {
            if class.colours.is_empty() {
                return problem(format!("class {} has no colour", class.name));
            }
            if classes[..index].iter().any(|other| other.name == class.name) {
                return problem(format!("two classes named {}", class.name));
            }
        }
        Ok(Self(classes))
    }

    /// The palette of the New York maps of pix2pix, as [`Palette::measure`] finds it in training pairs 1 … 1000 at
    /// 256 pixels. Most frequent colour of a class first.
    pub fn new_york() -> Self {
        let class = |index: usize, colours: &[[u8; 3]]| {
            let (name, is_road) = CLASSES[index];
            MapClass { name: name.to_owned(), is_road, colours: colours.to_vec() }
        };
        Self(vec![
            class(0, &[[233, 228, 222], [243, 240, 235], [211, 201, 189], [232, 221, 189]]),
            class(1, &[[177, 208, 254], [185, 207, 239]]),
            class(2, &[[203, 223, 172], [186, 210, 186], [194, 218, 158]]),
            class(3, &[[251, 158, 37], [255, 225, 153], [255, 225, 103], [255, 195, 70]]),
            class(4, &[[255, 254, 253]]),
        ])
    }

    /// Measures the colours of a map style in the maps of a training set.
    ///
    /// The colours drawn on purpose are the peaks of the colour histogram. What a peak shows follows from its hue, as in
    /// nearly every street map: blue is water, green is park, yellow to orange is highway, pure white is road, and
    /// all else is land. A class that never occurs is left out.
    ///
    /// # Errors
    ///
    /// [`MetricsError::TooFewPictures`] without a map.
    pub fn measure(maps: impl IntoIterator<Item = Picture>) -> Result<Self, MetricsError> {
        let mut histogram = Histogram::new();
        for map in maps {
            histogram.add(&map);
        }
        let mut classes: Vec<MapClass> = CLASSES
            .iter()
            .map(|&(name, is_road)| MapClass { name: name.to_owned(), is_road, colours: Vec::new() })
            .collect();
        for colour in histogram.peaks() {
            classes[class_by_hue(colour)].colours.push(colour);
        }
        classes.retain(|class| !class.colours.is_empty());
        if classes.is_empty() {
            return Err(MetricsError::TooFewPictures { found: 0, needed: 1 });
        }
        Self::new(classes)
    }

    /// The classes, in the order of the numbers in [`ClassMap::classes`].
    pub fn classes(&self) -> &[MapClass] {
        &self.0
    }

    /// Number of the class of this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|class| class.name == name)
    }

    /// Class of one colour: that of the nearest palette colour in RGB, the first one where two are equally near.
    pub fn class_of(&self, colour: [u8; 3]) -> u8 {
        let mut nearest = (u32::MAX, 0);
        for (index, class) in self.0.iter().enumerate() {
            for other in &class.colours {
                let distance =
                    (0..3).map(|channel| u32::from(colour[channel].abs_diff(other[channel])).pow(2)).sum();
                if distance < nearest.0 {
                    nearest = (distance, index as u8);
                }
            }
        }
        nearest.1
    }

    /// Class of every pixel of a map.
    pub fn classify(&self, map: &Picture) -> ClassMap {
        let mut classes = Vec::with_capacity(map.rgb().len() / 3);
        // Maps are flat: the pixel on the left usually has the answer already.
        let mut last = ([0; 3], self.class_of([0; 3]));
        for pixel in map.rgb().chunks_exact(3) {
            let colour = [pixel[0], pixel[1], pixel[2]];
            if colour != last.0 {
                last = (colour, self.class_of(colour));
            }
            classes.push(last.1);
        }
        ClassMap { width: map.width(), height: map.height(), classes }
    }
}

impl TryFrom<Vec<MapClass>> for Palette {
    type Error = MetricsError;

    fn try_from(classes: Vec<MapClass>) -> Result<Self, MetricsError> {
        Self::new(classes)
    }
}

impl From<Palette> for Vec<MapClass> {
    fn from(palette: Palette) -> Self {
        palette.0
    }
}

/// Index into [`CLASSES`] of a colour drawn on purpose.
fn class_by_hue(colour: [u8; 3]) -> usize {
    let [red, green, blue] = colour.map(i32::from);
    let name = if red.min(green).min(blue) >= 249 {
        "road"
    } else if blue - red >= 30 {
        "water"
    } else if green - red.max(blue) >= 8 {
        "park"
    } else if red - blue >= 80 {
        "highway"
    } else {
        "land"
    };
    CLASSES.iter().position(|class| class.0 == name).expect("the names above are those of CLASSES")
}

/// Counts of the bins of colour space, and how often each channel has each of the values that fall into its bin.
struct Histogram {
    counts: Vec<u64>,
    values: Vec<[[u64; Self::STEPS]; 3]>,
}

impl Histogram {
    const SIDE: i32 = 1 << BITS;
    const STEPS: usize = 256 >> BITS;

    fn new() -> Self {
        let bins = 1 << (3 * BITS);
        Self { counts: vec![0; bins], values: vec![[[0; Self::STEPS]; 3]; bins] }
    }

    fn bin([red, green, blue]: [i32; 3]) -> usize {
        ((red * Self::SIDE + green) * Self::SIDE + blue) as usize
    }

    fn add(&mut self, map: &Picture) {
        for pixel in map.rgb().chunks_exact(3) {
            let bin = Self::bin([pixel[0], pixel[1], pixel[2]].map(|value| i32::from(value >> (8 - BITS))));
            self.counts[bin] += 1;
            for (values, &value) in self.values[bin].iter_mut().zip(pixel) {
                values[usize::from(value) % Self::STEPS] += 1;
            }
        }
    }

    /// Colours of the bins that no neighbour exceeds and around which [`SMALLEST_SHARE`] gathers, the most frequent
    /// one first.
    fn peaks(&self) -> Vec<[u8; 3]> {
        let smallest = SMALLEST_SHARE * self.counts.iter().sum::<u64>() as f64;
        let mut peaks = Vec::new();
        for red in 0..Self::SIDE {
            for green in 0..Self::SIDE {
                for blue in 0..Self::SIDE {
                    let bin = Self::bin([red, green, blue]);
                    let count = self.counts[bin];
                    if count == 0 {
                        continue;
                    }
                    let (around, highest) = self.neighbourhood([red, green, blue]);
                    if count == highest && around as f64 >= smallest {
                        peaks.push((count, self.usual_colour([red, green, blue])));
                    }
                }
            }
        }
        peaks.sort_by(|left, right| right.cmp(left));
        peaks.into_iter().map(|(_, colour)| colour).collect()
    }

    /// The most frequent value of each channel in a bin. A mean would be pulled off the drawn colour by the mixtures
    /// along edges, and for the narrow gap between white roads and pale buildings one step matters.
    fn usual_colour(&self, bin: [i32; 3]) -> [u8; 3] {
        let values = &self.values[Self::bin(bin)];
        std::array::from_fn(|channel| {
            let most = (0..Self::STEPS).max_by_key(|&step| values[channel][step]).unwrap_or(0);
            (bin[channel] as usize * Self::STEPS + most) as u8
        })
    }

    /// Sum and maximum of the counts of a bin and its 26 neighbours.
    fn neighbourhood(&self, centre: [i32; 3]) -> (u64, u64) {
        let near = |value: i32| (value - 1).max(0)..=(value + 1).min(Self::SIDE - 1);
        let (mut sum, mut highest) = (0, 0);
        for red in near(centre[0]) {
            for green in near(centre[1]) {
                for blue in near(centre[2]) {
                    let count = self.counts[Self::bin([red, green, blue])];
                    sum += count;
                    highest = highest.max(count);
                }
            }
        }
        (sum, highest)
    }
}

/// The class of every pixel of a map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClassMap {
    width: u32,
    height: u32,
    classes: Vec<u8>,
}

impl ClassMap {
    /// Pixels from left to right.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Class numbers, `[height, width]`, each an index into [`Palette::classes`].
    pub fn classes(&self) -> &[u8] {
        &self.classes
    }

    /// Checks that two class maps have the same size.
    pub(super) fn check_size(&self, other: &Self) -> Result<(), MetricsError> {
        let (left, right) = ((self.width, self.height), (other.width, other.height));
        if left == right { Ok(()) } else { Err(MetricsError::SizeMismatch { left, right }) }
    }
}

/// How often each true class was predicted as each class, in pixels, of one picture or of many added up.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Confusion {
    /// `[true class, predicted class]`.
    counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// No pixel yet, for this many classes.
    pub fn new(classes: usize) -> Self {
        Self { counts: vec![vec![0; classes]; classes] }
    }

    /// Counts the pixels of a pair of maps that `palette` classified.
    ///
    /// # Errors
    ///
    /// [`MetricsError::SizeMismatch`].
    pub fn between(palette: &Palette, prediction: &ClassMap, truth: &ClassMap) -> Result<Self, MetricsError> {
        prediction.check_size(truth)?;
        let mut confusion = Self::new(palette.classes().len());
        for (&predicted, &actual) in prediction.classes.iter().zip(&truth.classes) {
            confusion.counts[usize::from(actual)][usize::from(predicted)] += 1;
        }
        Ok(confusion)
    }

    /// Adds the pixels of other pictures.
    ///
    /// # Errors
    ///
    /// [`MetricsError::PaletteMismatch`] when the other one counts other classes.
    pub fn add(&mut self, other: &Self) -> Result<(), MetricsError> {
        if self.counts.len() != other.counts.len() {
            return Err(MetricsError::PaletteMismatch);
        }
        for (row, other) in self.counts.iter_mut().zip(&other.counts) {
            row.iter_mut().zip(other).for_each(|(count, other)| *count += other);
        }
        Ok(())
    }

    /// The counts, `[true class, predicted class]`.
    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// Pixels of all classes.
    pub fn pixels(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Pixels that truly are of a class.
    pub fn truth(&self, class: usize) -> u64 {
        self.counts[class].iter().sum()
    }

    /// Pixels that were predicted as a class.
    pub fn predicted(&self, class: usize) -> u64 {
        self.counts.iter().map(|row| row[class]).sum()
    }

    /// Intersection over union of a class, in [0, 1]; none for a class that neither side has.
    pub fn intersection_over_union(&self, class: usize) -> Option<f64> {
        let intersection = self.counts[class][class];
        let union = self.truth(class) + self.predicted(class) - intersection;
        (union > 0).then(|| intersection as f64 / union as f64)
    }

    /// Share of the pixels whose class is right, in [0, 1]; none without pixels.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = (0..self.counts.len()).map(|class| self.counts[class][class]).sum();
        (self.pixels() > 0).then(|| right as f64 / self.pixels() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAND: [u8; 3] = [233, 229, 220];
    const WATER: [u8; 3] = [179, 209, 254];

    #[test]
    fn a_noisy_colour_keeps_its_class() {
        let palette = Palette::new_york();
        for class in palette.classes() {
            for &colour in &class.colours {
                for step in [-3, 0, 3] {
                    let noisy = colour.map(|value| (i32::from(value) + step).clamp(0, 255) as u8);
                    let found = &palette.classes()[usize::from(palette.class_of(noisy))];
                    assert_eq!(found.name, class.name, "{noisy:?}");
                }
            }
        }
    }

    #[test]
    fn measures_the_colours_that_were_drawn() {
        // Half land, a quarter water, the rest road and highway, with two steps of noise.
        let map = Picture::drawn(64, 64, |x, y| {
            let colour = match (x / 32, y / 32) {
                (0, _) => LAND,
                (_, 0) => WATER,
                _ if x < 48 => [255, 255, 255],
                _ => [251, 158, 37],
            };
            colour.map(|value| value.saturating_add(((x + y) % 3) as u8))
        });
        let palette = Palette::measure([map]).unwrap();
        let names: Vec<&str> = palette.classes().iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, ["land", "water", "highway", "road"]);
        let water = palette.index("water").unwrap();
        assert!(
            palette.classes()[water].colours[0]
                .iter()
                .zip(WATER)
                .all(|(found, drawn)| found.abs_diff(drawn) <= 2)
        );
        assert!(Palette::measure([]).is_err());
    }

    #[test]
    fn counts_hand_made_overlaps() {
        let palette = Palette::new_york();
        let split = |column: u32| Picture::drawn(8, 2, |x, _| if x < column { WATER } else { LAND });
        let (prediction, truth) = (palette.classify(&split(2)), palette.classify(&split(4)));
        let confusion = Confusion::between(&palette, &prediction, &truth).unwrap();
        let (land, water) = (palette.index("land").unwrap(), palette.index("water").unwrap());
        assert_eq!(confusion.intersection_over_union(water), Some(0.5));
        assert_eq!(confusion.intersection_over_union(land), Some(8.0 / 12.0));
        assert_eq!(confusion.intersection_over_union(palette.index("park").unwrap()), None);
        assert_eq!(confusion.counts()[water][land], 4);
        assert_eq!((confusion.truth(water), confusion.predicted(water)), (8, 4));
        assert_eq!(confusion.accuracy(), Some(0.75));
        assert_eq!(Confusion::new(5).accuracy(), None);

        let mut twice = confusion.clone();
        twice.add(&confusion).unwrap();
        assert_eq!((twice.pixels(), twice.intersection_over_union(water)), (32, Some(0.5)));
        assert_eq!(twice.add(&Confusion::new(4)), Err(MetricsError::PaletteMismatch));
    }

    #[test]
    fn a_palette_survives_json_and_bad_ones_do_not() {
        let palette = Palette::new_york();
        let text = serde_json::to_string(&palette).unwrap();
        assert_eq!(serde_json::from_str::<Palette>(&text).unwrap(), palette);
        for bad in [
            "[]",
            r#"[{"name":"water","colours":[]}]"#,
            r#"[{"name":"water","colours":[[1,2,3]]},{"name":"water","colours":[[1,2,4]]}]"#,
            r#"[{"name":"water","colours":[[1,2,3]],"colour":1}]"#,
            r#"[{"name":"water","colours":[[1,2,300]]}]"#,
        ] {
            assert!(serde_json::from_str::<Palette>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_sizes_are_an_error() {
        let palette = Palette::new_york();
        let (left, right) = (Picture::filled(1, 2, LAND), Picture::filled(2, 1, LAND));
        let found = Confusion::between(&palette, &palette.classify(&left), &palette.classify(&right));
        assert_eq!(found, Err(MetricsError::SizeMismatch { left: (1, 2), right: (2, 1) }));
    }
}
