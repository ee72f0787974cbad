//! GeoJSON.

use std::path::{Path, PathBuf};

use ::geojson::{Feature as Written, FeatureCollection, GeoJson as Document, GeometryValue, Position};

use super::super::class::{Class, Level};
use super::super::error::RenderError;
use super::super::feature::{Feature, Point, Ring, WorldBox, turned};
use super::super::tags::{self, Kind};
use super::index::{DegreeBox, FeatureIndex, unwrapped};
use super::{VectorSource, read_bounded};
use crate::tile::BoundingBox;

/// The most bytes of a file, which is held in memory several times over while it is read.
const MAX_BYTES: u64 = 256 << 20;

/// The features of a GeoJSON file, in WGS 84 as its standard says.
///
/// The class of a feature is that of its property `class` (a name of [`Class`]), else of its properties taken as tags
/// of OpenStreetMap, else the one given. Points are not drawn. Longitudes may go beyond ±180, and lines may go over
/// the antimeridian.
pub struct GeoJson {
    path: PathBuf,
    attribution: Option<String>,
    index: FeatureIndex,
}

impl GeoJson {
    /// Reads a file. `class` is that of features whose properties say nothing; without it they are not drawn.
    ///
    /// # Errors
    ///
    /// [`RenderError::Io`], [`RenderError::TooLarge`], and [`RenderError::Damaged`] for what is no GeoJSON or has
    /// coordinates that are no degrees.
    pub fn open(path: impl AsRef<Path>, class: Option<Class>) -> Result<Self, RenderError> {
        let path = path.as_ref();
        let bytes = read_bounded(path, MAX_BYTES, "split it, or convert it to PMTiles")?;
        Self::parse(path, &bytes, class)
    }

    /// Reads a document in memory; `name` stands for the path.
    ///
    /// # Errors
    ///
    /// [`RenderError::Damaged`], as [`GeoJson::open`].
    pub fn from_text(name: impl AsRef<Path>, text: &str, class: Option<Class>) -> Result<Self, RenderError> {
        Self::parse(name.as_ref(), text.as_bytes(), class)
    }

    fn parse(path: &Path, bytes: &[u8], class: Option<Class>) -> Result<Self, RenderError> {
        let damaged = |detail: String| RenderError::Damaged { path: path.to_owned(), detail };
        let text = str::from_utf8(bytes).map_err(|_| damaged("it is no text".to_owned()))?;
        let document: Document =
            text.parse().map_err(|error| damaged(format!("it is no GeoJSON: {error}")))?;
        let written = match document {
            Document::FeatureCollection(FeatureCollection { features, .. }) => features,
            Document::Feature(feature) => vec![feature],
            Document::Geometry(geometry) => vec![Written { geometry: Some(geometry), ..Default::default() }],
        };
        let (mut features, mut bounds) = (Vec::new(), DegreeBox::default());
        for (index, one) in written.into_iter().enumerate() {
            let mut reading = Reading { bounds: &mut bounds, features: &mut features };
            reading.take(one, class).map_err(|detail| damaged(format!("feature {}: {detail}", index + 1)))?;
        }
        let index = FeatureIndex::new(features, bounds.finish());
        Ok(Self { path: path.to_owned(), attribution: None, index })
    }

    /// Says whom to name beside the map; GeoJSON has no word for it.
    pub fn with_attribution(mut self, attribution: impl Into<String>) -> Self {
        self.attribution = Some(attribution.into());
        self
    }
}

impl VectorSource for GeoJson {
    fn path(&self) -> &Path {
        &self.path
    }

    fn attribution(&self) -> Option<&str> {
        self.attribution.as_deref()
    }

    fn bounds(&self) -> Option<BoundingBox> {
        self.index.bounds()
    }

    fn visit(
        &self,
        window: &WorldBox,
        _zoom: u8,
        visitor: &mut dyn FnMut(&Feature, f64),
    ) -> Result<(), RenderError> {
        self.index.visit(window, visitor);
        Ok(())
    }
}

/// Features and their bounds while a file is read. Errors are words about a feature.
struct Reading<'a> {
    bounds: &'a mut DegreeBox,
    features: &'a mut Vec<Feature>,
}

impl Reading<'_> {
    fn take(&mut self, feature: Written, class: Option<Class>) -> Result<(), String> {
        let properties = feature.properties.unwrap_or_default();
        let text = || properties.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let named = properties.get("class").and_then(|name| Class::from_name(name.as_str()?));
        let level = tags::level(text());
        let class_of = |kind| named.or_else(|| tags::class(text(), kind)).or(class);
        match feature.geometry {
            Some(geometry) => self.geometry(geometry.value, &class_of, level),
            None => Ok(()),
        }
    }

    fn geometry(
        &mut self,
        geometry: GeometryValue,
        class_of: &dyn Fn(Kind) -> Option<Class>,
        level: Level,
    ) -> Result<(), String> {
        use GeometryValue as Value;
        match geometry {
            Value::Point { .. } | Value::MultiPoint { .. } => Ok(()),
            Value::LineString { coordinates } => self.lines(&[coordinates], class_of(Kind::Line), level),
            Value::MultiLineString { coordinates } => self.lines(&coordinates, class_of(Kind::Line), level),
            Value::Polygon { coordinates } => self.area(&[coordinates], class_of(Kind::Area), level),
            Value::MultiPolygon { coordinates } => self.area(&coordinates, class_of(Kind::Area), level),
            Value::GeometryCollection { geometries } => {
                geometries.into_iter().try_for_each(|part| self.geometry(part.value, class_of, level))
            }
        }
    }

    fn lines(&mut self, lines: &[Vec<Position>], class: Option<Class>, level: Level) -> Result<(), String> {
        let Some(class) = class else { return Ok(()) };
        let lines = lines.iter().map(|line| self.points(line).map(unwrapped)).collect::<Result<_, _>>()?;
        self.features.extend(Feature::lines(class, level, lines));
        Ok(())
    }

    fn area(
        &mut self,
        polygons: &[Vec<Vec<Position>>],
        class: Option<Class>,
        level: Level,
    ) -> Result<(), String> {
        let Some(class) = class else { return Ok(()) };
        let mut rings = Vec::new();
        for (index, ring) in polygons.iter().flat_map(|polygon| polygon.iter().enumerate()) {
            let part = if index == 0 { Ring::Outer } else { Ring::Hole };
            rings.push(turned(self.points(ring)?, part));
        }
        self.features.extend(Feature::area(class, level, rings, None));
        Ok(())
    }

    fn points(&mut self, positions: &[Position]) -> Result<Vec<Point>, String> {
        let point = |position: &Position| {
            let &[longitude, latitude, ..] = position.as_slice() else {
                return Err("a position has fewer than two numbers".to_owned());
            };
            let wrong = || format!("{longitude}, {latitude} is no longitude and latitude in degrees");
            self.bounds.point(longitude, latitude).ok_or_else(wrong)
        };
        positions.iter().map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(document: &Value, class: Option<Class>) -> Result<GeoJson, RenderError> {
        GeoJson::parse(Path::new("labels.geojson"), document.to_string().as_bytes(), class)
    }

    fn features(source: &GeoJson) -> Vec<Feature> {
        let mut found = Vec::new();
        let world = WorldBox { min: [0.0; 2], max: [1.0; 2] };
        source
            .visit(&world, 0, &mut |feature, worlds| {
                if worlds == 0.0 {
                    found.push(feature.clone())
                }
            })
            .unwrap();
        found.sort_by_key(|feature| feature.class);
        found
    }

    fn feature(properties: Value, geometry: Value) -> Value {
        json!({"type": "Feature", "properties": properties, "geometry": geometry})
    }

    #[test]
    fn classes_come_from_properties() {
        let line = json!({"type": "LineString", "coordinates": [[11.0, 43.0, 50.0], [11.1, 43.1, 60.0]]});
        let square =
            json!({"type": "Polygon", "coordinates": [[[11, 43], [12, 43], [12, 44], [11, 44], [11, 43]]]});
        let collection = json!({"type": "FeatureCollection", "features": [
            feature(json!({"highway": "primary", "bridge": "yes", "lanes": 2}), line.clone()),
            feature(json!({"class": "wood", "building": "yes"}), square.clone()),
            feature(json!({"osm_id": null}), square.clone()),
            feature(json!(null), json!({"type": "Point", "coordinates": [11, 43]})),
            feature(json!({}), json!(null)),
        ]});
        let found = features(&read(&collection, None).unwrap());
        let classes: Vec<_> = found.iter().map(|feature| (feature.class, feature.level)).collect();
        assert_eq!(classes, [(Class::Wood, Level::Ground), (Class::Primary, Level::Bridge)]);
        let source = read(&collection, Some(Class::Building)).unwrap().with_attribution("© someone");
        assert_eq!(features(&source).len(), 3);
        assert_eq!(source.attribution(), Some("© someone"));
        assert_eq!(source.bounds(), Some("11,43,12,44".parse().unwrap()));
        assert_eq!(features(&read(&square, Some(Class::Park)).unwrap()).len(), 1);
    }

    #[test]
    fn mistakes_are_named() {
        let metres = json!({"type": "LineString", "coordinates": [[1_250_000.0, 5_430_000.0], [0, 0]]});
        let error = read(&metres, Some(Class::Rail)).err().unwrap();
        assert_eq!(
            error.to_string(),
            "labels.geojson: cannot be understood (feature 1: 1250000, 5430000 is no longitude and latitude in \
             degrees); make or download it again"
        );
        assert!(error.is_bad_input());
        for broken in ["", "{", "[]", "{\"type\": \"Polygon\", \"coordinates\": [[[1]]]}", "\u{FFFE}"] {
            let found = GeoJson::parse(Path::new("x"), broken.as_bytes(), Some(Class::Park));
            assert!(found.is_err_and(|error| error.to_string().starts_with("x: ")), "{broken}");
        }
        let deep = format!("{{\"type\": \"Polygon\", \"coordinates\": {}", "[".repeat(100_000));
        assert!(GeoJson::parse(Path::new("x"), deep.as_bytes(), None).is_err());
        let infinite = b"{\"type\": \"LineString\", \"coordinates\": [[1e999, 0], [0, 0]]}";
        assert!(GeoJson::parse(Path::new("x"), infinite, Some(Class::Rail)).is_err());
        assert!(GeoJson::parse(Path::new("x"), b"\xFF\xFE", None).is_err());
    }
}
