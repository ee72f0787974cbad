//! The keys by which a GeoTIFF says what its coordinates mean, kept as they are.

use super::crs::{CrsKind, Epsg};

/// Key: whether coordinates are projected (1), geographic (2) or geocentric (3).
const MODEL_TYPE: u16 = 1024;
/// Key: whether coordinates belong to the area (1) or the point (2) of a pixel.
const RASTER_TYPE: u16 = 1025;
/// Key: a name of the whole.
const CITATION: u16 = 1026;
/// Key: EPSG number of a geographic CRS.
const GEOGRAPHIC_CRS: u16 = 2048;
/// Key: a name of the geographic CRS.
const GEOGRAPHIC_CITATION: u16 = 2049;
/// Key: the unit of angles; degrees where absent.
const ANGULAR_UNITS: u16 = 2054;
/// Key: EPSG number of a projected CRS.
const PROJECTED_CRS: u16 = 3072;
/// Key: a name of the projected CRS.
const PROJECTED_CITATION: u16 = 3073;

/// The tag whose values follow in the directory of keys itself.
const IN_DIRECTORY: u16 = 0;
/// The tag that holds the texts of keys.
const ASCII_PARAMETERS: u16 = 34737;

/// EPSG numbers of the degree as a unit.
const DEGREES: [u16; 3] = [9102, 9107, 9122];

/// Whether a GeoTIFF's coordinates name the corner or the centre of a pixel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PixelIs {
    /// A pixel is an area: tie points name its top left corner.
    #[default]
    Area,
    /// A pixel is a measured point: tie points name its centre.
    Point,
}

/// The three tags of keys of a GeoTIFF, verbatim: what is not understood here survives.
#[derive(Clone, Debug, PartialEq)]
pub struct GeoKeys {
    /// Tag 34735: four numbers of head, then four per key.
    pub(super) directory: Vec<u16>,
    /// Tag 34736.
    pub(super) doubles: Vec<f64>,
    /// Tag 34737.
    pub(super) text: String,
}

impl GeoKeys {
    /// Keys from the values of the tags 34735, 34736 and 34737; `None` when the first of them holds no key.
    pub fn new(directory: Vec<u16>, doubles: Vec<f64>, text: String) -> Option<Self> {
        (directory.len() >= 8).then_some(Self { directory, doubles, text })
    }

    /// The keys of a CRS known by its number.
    pub fn from_epsg(epsg: Epsg, kind: CrsKind, pixel_is: PixelIs) -> Self {
        let (model_type, crs_key) = match kind {
            CrsKind::Projected => (1, PROJECTED_CRS),
            CrsKind::Geographic => (2, GEOGRAPHIC_CRS),
        };
        let raster_type = match pixel_is {
            PixelIs::Area => 1,
            PixelIs::Point => 2,
        };
        let entry = |key: u16, value: u16| [key, IN_DIRECTORY, 1, value];
        let entries =
            [entry(MODEL_TYPE, model_type), entry(RASTER_TYPE, raster_type), entry(crs_key, epsg.0)];
        let directory = [1, 1, 0, entries.len() as u16].into_iter().chain(entries.into_iter().flatten());
        Self { directory: directory.collect(), doubles: Vec::new(), text: String::new() }
    }

    /// The EPSG number of the horizontal CRS, if the file names one.
    pub fn epsg(&self) -> Option<Epsg> {
        let key = match self.short(MODEL_TYPE) {
            Some(1) => PROJECTED_CRS,
            Some(2) if self.short(ANGULAR_UNITS).is_none_or(|unit| DEGREES.contains(&unit)) => GEOGRAPHIC_CRS,
            // The key is required, but a number of a projected CRS is clear without it.
            None if self.short(PROJECTED_CRS).is_some() => PROJECTED_CRS,
            None => GEOGRAPHIC_CRS,
            Some(_) => return None,
        };
        // 0 is "undefined", 32767 and above are the file's own.
        self.short(key).filter(|number| (1..32767).contains(number)).map(Epsg)
    }

    /// Whether coordinates name corners or centres of pixels.
    pub fn pixel_is(&self) -> PixelIs {
        if self.short(RASTER_TYPE) == Some(2) { PixelIs::Point } else { PixelIs::Area }
    }

    /// What the file calls its CRS, for messages.
    pub fn name(&self) -> &str {
        [PROJECTED_CITATION, CITATION, GEOGRAPHIC_CITATION]
            .into_iter()
            .find_map(|key| self.text(key))
            .unwrap_or("unnamed")
    }

    /// Tag, count and value of a key.
    fn entry(&self, key: u16) -> Option<[u16; 3]> {
        let declared = usize::from(self.directory[3]);
        let mut entries = self.directory[4..].chunks_exact(4).take(declared);
        entries.find(|entry| entry[0] == key).map(|entry| [entry[1], entry[2], entry[3]])
    }

    fn short(&self, key: u16) -> Option<u16> {
        self.entry(key).filter(|[tag, ..]| *tag == IN_DIRECTORY).map(|[.., value]| value)
    }

    fn text(&self, key: u16) -> Option<&str> {
        let [tag, count, start] = self.entry(key)?;
        if tag != ASCII_PARAMETERS {
            return None;
        }
        let start = usize::from(start);
        let end = (start + usize::from(count)).min(self.text.len());
        let text = self.text.get(start..end)?.trim_end_matches(['|', '\0']).trim();
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(entries: &[[u16; 4]], text: &str) -> GeoKeys {
        let head = [1, 1, 0, entries.len() as u16];
        let directory = head.into_iter().chain(entries.iter().copied().flatten()).collect();
        GeoKeys::new(directory, Vec::new(), text.to_owned()).unwrap()
    }

    #[test]
    fn a_number_comes_back() {
        for kind in [CrsKind::Geographic, CrsKind::Projected] {
            for pixel_is in [PixelIs::Area, PixelIs::Point] {
                let keys = GeoKeys::from_epsg(Epsg(3857), kind, pixel_is);
                assert_eq!((keys.epsg(), keys.pixel_is()), (Some(Epsg(3857)), pixel_is));
            }
        }
    }

    #[test]
    fn a_system_of_its_own_has_no_number() {
        // The datum has a number; to take it for the CRS would turn metres into degrees.
        let own = keys(
            &[[1024, 0, 1, 1], [2048, 0, 1, 4269], [3072, 0, 1, 32767], [3073, 34737, 12, 4]],
            "abc|My Albers 1|",
        );
        assert_eq!((own.epsg(), own.name()), (None, "My Albers 1"));
        assert_eq!(keys(&[[1024, 0, 1, 3], [2048, 0, 1, 4978]], "").epsg(), None);
        let grads = keys(&[[1024, 0, 1, 2], [2048, 0, 1, 4807], [2054, 0, 1, 9105]], "");
        assert_eq!((grads.epsg(), grads.name()), (None, "unnamed"));
    }

    #[test]
    fn odd_directories_do_no_harm() {
        assert_eq!(GeoKeys::new(vec![1, 1, 0, 9], vec![], String::new()), None);
        // Says nine keys but holds one; its text lies outside.
        let odd = GeoKeys::new(vec![1, 1, 0, 9, 1026, 34737, 9999, 77], vec![], "é".to_owned()).unwrap();
        assert_eq!((odd.epsg(), odd.name(), odd.pixel_is()), (None, "unnamed", PixelIs::Area));
    }
}
