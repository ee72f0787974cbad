use std::fmt;

use serde_json::{Map, Value, json};

use crate::tile::{BoundingBox, MAX_ZOOM, Tile};

/// How the picture of a tile is encoded.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TileFormat {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    WebP,
}

impl TileFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::WebP];

    /// The ending of its files, which is also its name in metadata: `png`, `jpg` or `webp`.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
        }
    }

    /// Its type in HTTP.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    /// The format with a name or ending: `png`, `jpg`, `jpeg` or `webp`, in any case, or a type as in HTTP.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("image/").unwrap_or(&name) {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// The format that bytes begin like.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        match Content::of(bytes) {
            Content::Picture(format) => Some(format),
            _ => None,
        }
    }
}

impl fmt::Display for TileFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.extension())
    }
}

/// What the bytes of a tile begin like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    Picture(TileFormat),
    Vector,
    Empty,
    Unknown,
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::Empty,
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Self::Picture(TileFormat::Png),
            [0xFF, 0xD8, 0xFF, ..] => Self::Picture(TileFormat::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
                Self::Picture(TileFormat::WebP)
            }
            // gzip, in which vector tiles are usually wrapped, and the first field of a bare one.
            [0x1F, 0x8B, ..] | [0x1A, ..] => Self::Vector,
            _ => Self::Unknown,
        }
    }

    /// As the end of a sentence that begins with the tile.
    pub(super) fn described(self) -> String {
        match self {
            Self::Picture(format) => format!("is {format}"),
            Self::Vector => "is a vector tile or packed by gzip".to_owned(),
            Self::Empty => "has no bytes".to_owned(),
            Self::Unknown => "is not a PNG, JPEG or WebP picture".to_owned(),
        }
    }
}

/// Whether a name in metadata, or the ending of a file, stands for vector tiles.
pub(super) fn is_vector(format: &str) -> bool {
    ["pbf", "mvt", "mlt", "application/x-protobuf", "application/vnd.mapbox-vector-tile"]
        .contains(&format.to_ascii_lowercase().as_str())
}

/// What a store says about its tiles.
#[derive(Clone, Debug, PartialEq)]
pub struct TileMetadata {
    /// What the tiles show, in a word or two.
    pub name: String,
    /// What the tiles show, in a sentence or more.
    pub description: Option<String>,
    /// Whom to name beside the map; may be HTML, as it comes.
    pub attribution: Option<String>,
    /// How the tiles are said to be encoded, and which ending their files have. Real stores mix formats, so a single
    /// tile may be of another: [`EncodedTile::format`](super::EncodedTile::format) knows.
    pub format: TileFormat,
    /// The ground that the tiles cover. In files a box over the antimeridian is widened to the whole way round, which
    /// TileJSON demands.
    pub bounds: Option<BoundingBox>,
    /// The lowest zoom that has tiles.
    pub min_zoom: Option<u8>,
    /// The deepest zoom that has tiles.
    pub max_zoom: Option<u8>,
}

impl TileMetadata {
    /// A name and a format; a writer finds bounds and zooms from its tiles unless they are set.
    pub fn new(name: impl Into<String>, format: TileFormat) -> Self {
        Self {
            name: name.into(),
            description: None,
            attribution: None,
            format,
            bounds: None,
            min_zoom: None,
            max_zoom: None,
        }
    }

    /// The metadata as TileJSON 3.0. `url` says where a tile is, with `{z}`, `{x}` and `{y}` in place of its numbers.
    ///
    /// ```
    /// use earthmapper_geo::store::{TileFormat, TileMetadata};
    ///
    /// let metadata = TileMetadata::new("Florence", TileFormat::Png);
    /// let document = metadata.tile_json("https://example.org/{z}/{x}/{y}.png");
    /// assert_eq!(document["tilejson"], "3.0.0");
    /// assert_eq!(document["tiles"][0], "https://example.org/{z}/{x}/{y}.png");
    /// ```
    pub fn tile_json(&self, url: &str) -> Value {
        let mut document = json!({
            "tilejson": "3.0.0",
            "name": self.name,
            "scheme": "xyz",
            "format": self.format.extension(),
            "tiles": [url],
        });
        let fields = document.as_object_mut().expect("an object was made");
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(key.to_owned(), value);
            }
        };
        set("description", self.description.clone().map(Value::from));
        set("attribution", self.attribution.clone().map(Value::from));
        set("bounds", self.edges().map(|edges| json!(edges)));
        set("center", self.center().map(|(longitude, latitude, zoom)| json!([longitude, latitude, zoom])));
        set("minzoom", self.min_zoom.map(Value::from));
        set("maxzoom", self.max_zoom.map(Value::from));
        document
    }

    /// What can be understood of a TileJSON document (of any version) or of similar keys and values; the rest is left
    /// out. `name` and `format` stand in for what is missing.
    pub(super) fn from_fields(fields: &Map<String, Value>, name: String, format: TileFormat) -> Self {
        let text = |key: &str| {
            let text = fields.get(key)?.as_str()?.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        Self {
            name: text("name").unwrap_or(name),
            description: text("description"),
            attribution: text("attribution"),
            format,
            bounds: fields.get("bounds").and_then(bounds),
            min_zoom: fields.get("minzoom").and_then(zoom),
            max_zoom: fields.get("maxzoom").and_then(zoom),
        }
    }

    /// West, south, east, north as files want them: never over the antimeridian.
    pub(super) fn edges(&self) -> Option<[f64; 4]> {
        let bounds = self.bounds?;
        let [west, south, east, north] = bounds.into();
        Some(if bounds.crosses_antimeridian() {
            [-180.0, south, 180.0, north]
        } else {
            [west, south, east, north]
        })
    }

    /// A view to begin with: longitude, latitude, zoom.
    pub(super) fn center(&self) -> Option<(f64, f64, u8)> {
        let centre = self.bounds?.centre();
        Some((centre.longitude(), centre.latitude(), self.min_zoom?))
    }

    /// The same with what is open (bounds, zooms) found from the tiles that are there.
    pub fn completed(mut self, tiles: &[Tile]) -> Self {
        self.complete(tiles);
        self
    }

    /// Sets what is open (bounds, zooms) from the tiles that are there. The bounds are those of the deepest zoom: the
    /// zooms above it cover at least that, and often the whole world.
    pub(super) fn complete(&mut self, tiles: &[Tile]) {
        let zooms = tiles.iter().map(|tile| tile.z());
        self.min_zoom = self.min_zoom.or(zooms.clone().min());
        self.max_zoom = self.max_zoom.or(zooms.clone().max());
        if self.bounds.is_some() {
            return;
        }
        let Some(deepest) = zooms.max() else { return };
        let of_deepest = || tiles.iter().filter(|tile| tile.z() == deepest);
        let (columns, rows) = (|| of_deepest().map(|tile| tile.x()), || of_deepest().map(|tile| tile.y()));
        let corner = |column: Option<u32>, row: Option<u32>| Tile::new(deepest, column?, row?).ok();
        let first = corner(columns().min(), rows().min());
        let last = corner(columns().max(), rows().max());
        self.bounds = first.zip(last).map(|(first, last)| BoundingBox::of_tiles(first, last));
    }
}

/// Four numbers, as a list or as text with commas. Nothing when they are no box, or one of no size at 0, 0, which is
/// how unset bounds look.
fn bounds(value: &Value) -> Option<BoundingBox> {
    let edges: [f64; 4] = match value {
        Value::Array(numbers) => {
            numbers.iter().map(Value::as_f64).collect::<Option<Vec<_>>>()?.try_into().ok()?
        }
        Value::String(text) => return text.parse().ok().filter(|bounds| !is_unset(*bounds)),
        _ => return None,
    };
    BoundingBox::try_from(edges).ok().filter(|bounds| !is_unset(*bounds))
}

fn is_unset(bounds: BoundingBox) -> bool {
    <[f64; 4]>::from(bounds) == [0.0; 4]
}

/// A zoom, as a number or as text.
fn zoom(value: &Value) -> Option<u8> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok()?,
        value => value.as_u64()?,
    };
    u8::try_from(number).ok().filter(|zoom| *zoom <= MAX_ZOOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn tile_json_comes_back() {
        let metadata = TileMetadata {
            description: Some("roofs & trees".to_owned()),
            attribution: Some("<a href=\"https://example.org\">us</a>".to_owned()),
            bounds: Some("11.154026,43.7270125,11.3289395,43.8325455".parse().unwrap()),
            min_zoom: Some(0),
            max_zoom: Some(14),
            ..TileMetadata::new("Florence", TileFormat::WebP)
        };
        let document = metadata.tile_json("{z}/{x}/{y}.webp");
        let back = TileMetadata::from_fields(&fields(document.clone()), String::new(), TileFormat::WebP);
        assert_eq!(back, metadata);
        assert_eq!(document["center"][2], 0);
        assert_eq!(document["scheme"], "xyz");
    }

    #[test]
    fn bounds_in_files_do_not_cross_the_antimeridian() {
        let mut metadata = TileMetadata::new("Fiji", TileFormat::Png);
        metadata.bounds = Some("177,-19,181,-16".parse().unwrap());
        assert_eq!(metadata.tile_json("")["bounds"], json!([-180.0, -19.0, 180.0, -16.0]));
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let strange = json!({
            "name": 7, "description": " ", "attribution": null, "bounds": [0, 1, 2], "minzoom": -1, "maxzoom": 99,
        });
        let read = TileMetadata::from_fields(&fields(strange), "folder".to_owned(), TileFormat::Png);
        assert_eq!(read, TileMetadata::new("folder", TileFormat::Png));
        for (bounds, is_read) in [
            (json!("1,2,3,4"), true),
            (json!([1, 2, 3, 4]), true),
            (json!([0, 0, 0, 0]), false),
            (json!("0,0,0,0"), false),
            (json!([1, 4, 3, 2]), false),
            (json!([1, 2, 3, "4"]), false),
            (json!({}), false),
        ] {
            let read = TileMetadata::from_fields(
                &fields(json!({ "bounds": bounds })),
                String::new(),
                TileFormat::Png,
            );
            assert_eq!(read.bounds.is_some(), is_read, "{bounds}");
        }
        let text = fields(json!({ "minzoom": "3", "maxzoom": "x" }));
        let read = TileMetadata::from_fields(&text, String::new(), TileFormat::Png);
        assert_eq!((read.min_zoom, read.max_zoom), (Some(3), None));
    }

    #[test]
    fn open_fields_come_from_the_tiles() {
        let tile = |text: &str| text.parse::<Tile>().unwrap();
        let mut metadata = TileMetadata::new("a", TileFormat::Png);
        metadata.complete(&[]);
        assert_eq!(metadata, TileMetadata::new("a", TileFormat::Png));
        metadata.complete(&[tile("0/0/0"), tile("2/1/2"), tile("2/2/1")]);
        assert_eq!((metadata.min_zoom, metadata.max_zoom), (Some(0), Some(2)));
        let [west, south, east, north] = metadata.bounds.unwrap().into();
        assert_eq!((west, east), (-90.0, 90.0));
        assert!((south + north).abs() < 1e-12 && north > 66.0);
        metadata.complete(&[tile("5/0/0")]);
        assert_eq!(metadata.max_zoom, Some(2), "what is set stays");
    }

    #[test]
    fn formats_are_known_by_name_and_by_bytes() {
        for format in TileFormat::ALL {
            assert_eq!(TileFormat::from_name(format.extension()), Some(format));
            assert_eq!(TileFormat::from_name(format.media_type()), Some(format));
        }
        assert_eq!(TileFormat::from_name("JPEG"), Some(TileFormat::Jpeg));
        assert_eq!(TileFormat::from_name("avif"), None);
        assert!(is_vector("pbf") && is_vector("MVT") && !is_vector("png"));
        assert_eq!(Content::of(b""), Content::Empty);
        assert_eq!(Content::of(b"\x1F\x8B\x08"), Content::Vector);
        assert_eq!(Content::of(b"\x89PNG"), Content::Unknown);
        assert_eq!(TileFormat::of_bytes(b"RIFF\0\0\0\0WEBPVP8 "), Some(TileFormat::WebP));
    }
}
