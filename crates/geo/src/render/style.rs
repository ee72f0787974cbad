//! How classes look: [`Style`], read from TOML.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::class::Class;
use super::error::RenderError;
use crate::tile::MAX_ZOOM;

/// The style that is built in.
const CLEAN: &str = include_str!("styles/clean.toml");

/// The most bytes of a style file.
const MAX_BYTES: u64 = 1 << 20;

/// The widest line in pixels.
const MAX_WIDTH: f64 = 256.0;

/// The shortest dash or gap in pixels.
const MIN_DASH: f64 = 0.5;

/// Colours, widths and the order of drawing. All sizes are in pixels of a tile of 256 pixels.
///
/// ```
/// use earthmapper_geo::render::Style;
///
/// let style = Style::parse("my style", r##"
///     land = "#f5f3ee"
///     [[layer]]
///     class = ["water"]
///     fill = "#a6c8e0"
/// "##)?;
/// assert_eq!(style.land(), [0xF5, 0xF3, 0xEE]);
/// let error = Style::parse("my style", "land = \"blue\"").unwrap_err();
/// assert_eq!(error.to_string(), "my style: land: \"blue\" is no colour; write it as \"#rrggbb\" (line 1)");
/// # Ok::<(), earthmapper_geo::render::RenderError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Style {
    pub(super) land: [u8; 3],
    pub(super) tunnel_fade: f64,
    pub(super) layers: Vec<Layer>,
}

impl Style {
    /// The style that is built in: a quiet web map without labels.
    pub fn clean() -> Self {
        Self::parse("the built-in style", CLEAN).expect("the built-in style is tested")
    }

    /// Reads a style file.
    ///
    /// # Errors
    ///
    /// [`RenderError::Io`], [`RenderError::TooLarge`], and as [`Style::parse`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, RenderError> {
        let path = path.as_ref();
        let unread = |cause| RenderError::Io { path: path.to_owned(), cause };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unread)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unread)?;
        if bytes.len() as u64 > MAX_BYTES {
            let cure = "give a style file";
            return Err(RenderError::TooLarge {
                path: path.to_owned(),
                limit: MAX_BYTES,
                what: "bytes",
                cure,
            });
        }
        let style = path.display().to_string();
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(&style, &text),
            Err(_) => {
                Err(RenderError::Style { style, detail: "is no text; give a style as TOML".to_owned() })
            }
        }
    }

    /// A style from TOML. `name` stands at the beginning of errors.
    ///
    /// # Errors
    ///
    /// [`RenderError::Style`] naming the key.
    pub fn parse(name: &str, text: &str) -> Result<Self, RenderError> {
        let wrong = |detail: String| RenderError::Style { style: name.to_owned(), detail };
        let written: Written = toml::from_str(text).map_err(|error| wrong(in_words(&error, text)))?;
        let land = colour("land", &written.land, text).map_err(wrong)?;
        if !(0.0..=1.0).contains(&written.tunnel_fade) {
            return Err(wrong(format!("tunnel_fade: {} is outside 0 … 1", written.tunnel_fade)));
        }
        let layers = written.layer.into_iter().enumerate();
        let layers = layers.map(|(index, layer)| layer.checked(index + 1, text)).collect::<Result<_, _>>();
        Ok(Self { land, tunnel_fade: written.tunnel_fade, layers: layers.map_err(wrong)? })
    }

    /// The colour of what is not covered by any feature.
    pub fn land(&self) -> [u8; 3] {
        self.land
    }

    /// The widest line at a zoom, its casing included, in pixels of a tile of 256 pixels.
    pub(super) fn widest(&self, zoom: u8) -> f64 {
        let layers = self.layers.iter().filter(|layer| layer.is_seen(zoom));
        layers.map(|layer| layer.widest(zoom)).fold(0.0, f64::max)
    }

    /// A colour as it looks in a tunnel.
    pub(super) fn faded(&self, colour: [u8; 3]) -> [u8; 3] {
        let mixed = |index: usize| {
            let (from, to) = (f64::from(colour[index]), f64::from(self.land[index]));
            (from + (to - from) * self.tunnel_fade).round() as u8
        };
        [mixed(0), mixed(1), mixed(2)]
    }
}

/// One step of drawing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layer {
    pub(super) classes: Vec<Class>,
    zooms: [u8; 2],
    pub(super) look: Look,
}

impl Layer {
    pub(super) fn is_seen(&self, zoom: u8) -> bool {
        (self.zooms[0]..=self.zooms[1]).contains(&zoom)
    }

    /// The width of its lines at a zoom, casings included.
    fn widest(&self, zoom: u8) -> f64 {
        let of = |pair: &Option<([u8; 3], Widths)>| pair.as_ref().map_or(0.0, |(_, width)| width.at(zoom));
        match &self.look {
            Look::Area { outline, .. } => of(outline),
            Look::Line { width, casing, .. } => width.at(zoom) + 2.0 * of(casing),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Look {
    Area { fill: [u8; 3], outline: Option<([u8; 3], Widths)> },
    Line { colour: [u8; 3], width: Widths, casing: Option<([u8; 3], Widths)>, dash: Option<[f64; 2]> },
}

/// A width in pixels by zoom: straight between the points given, constant before and after them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Widths(Vec<(f64, f64)>);

impl Widths {
    pub(super) fn at(&self, zoom: u8) -> f64 {
        let zoom = f64::from(zoom);
        let after = self.0.partition_point(|(known, _)| *known <= zoom);
        let point = |index: usize| self.0[index.min(self.0.len() - 1)];
        let (near, far) = (point(after.saturating_sub(1)), point(after));
        if near.0 >= far.0 || zoom <= near.0 {
            return near.1;
        }
        near.1 + (far.1 - near.1) * (zoom - near.0) / (far.0 - near.0)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    land: String,
    #[serde(default)]
    tunnel_fade: f64,
    #[serde(default)]
    layer: Vec<WrittenLayer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLayer {
    class: Vec<Class>,
    #[serde(default = "all_zooms")]
    zoom: [u8; 2],
    fill: Option<String>,
    outline: Option<String>,
    outline_width: Option<WrittenWidths>,
    line: Option<String>,
    width: Option<WrittenWidths>,
    casing: Option<String>,
    casing_width: Option<WrittenWidths>,
    dash: Option<[f64; 2]>,
}

fn all_zooms() -> [u8; 2] {
    [0, MAX_ZOOM]
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of pixels or pairs [zoom, pixels]")]
enum WrittenWidths {
    Everywhere(f64),
    ByZoom(Vec<[f64; 2]>),
}

impl WrittenLayer {
    fn checked(self, number: usize, text: &str) -> Result<Layer, String> {
        let first = self.class.first().map_or("no class", |class| class.name());
        let place = format!("layer {number} ({first})");
        let colour = |key: &str, value: &str| colour(&format!("{place}: {key}"), value, text);
        if self.class.is_empty() {
            return Err(format!("{place}: class: name at least one"));
        }
        if self.zoom[0] > self.zoom[1] {
            return Err(format!("{place}: zoom: write the lower before the higher"));
        }
        let pair = |key: &str, value: Option<String>, widths: Option<WrittenWidths>| match (value, widths) {
            (Some(value), Some(widths)) => {
                Ok(Some((colour(key, &value)?, widths.checked(&format!("{place}: {key}_width"))?)))
            }
            (None, None) => Ok(None),
            _ => Err(format!("{place}: {key} and {key}_width go together; give both or none")),
        };
        let look = match (self.fill, self.line, self.width) {
            (Some(fill), None, None) if self.casing.is_none() && self.dash.is_none() => {
                let outline = pair("outline", self.outline, self.outline_width)?;
                Look::Area { fill: colour("fill", &fill)?, outline }
            }
            (None, Some(line), Some(width)) if self.outline.is_none() => {
                if self.dash.is_some_and(|dash| dash.iter().any(|part| !(MIN_DASH..=1e6).contains(part))) {
                    return Err(format!("{place}: dash: write two lengths of at least {MIN_DASH} pixels"));
                }
                Look::Line {
                    colour: colour("line", &line)?,
                    width: width.checked(&format!("{place}: width"))?,
                    casing: pair("casing", self.casing, self.casing_width)?,
                    dash: self.dash,
                }
            }
            _ => {
                let either = "give either fill (with outline) or line and width (with casing, dash)";
                return Err(format!("{place}: {either}"));
            }
        };
        Ok(Layer { classes: self.class, zooms: self.zoom, look })
    }
}

impl WrittenWidths {
    fn checked(self, key: &str) -> Result<Widths, String> {
        let points = match self {
            Self::Everywhere(width) => vec![(0.0, width)],
            Self::ByZoom(points) => points.into_iter().map(|[zoom, width]| (zoom, width)).collect(),
        };
        if points.is_empty() || !points.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(format!("{key}: write pairs [zoom, pixels] with rising zooms"));
        }
        match points.iter().find(|(zoom, width)| !(zoom.is_finite() && (0.0..=MAX_WIDTH).contains(width))) {
            Some((zoom, width)) => {
                Err(format!("{key}: [{zoom}, {width}] is no width; use 0 … {MAX_WIDTH} pixels"))
            }
            None => Ok(Widths(points)),
        }
    }
}

fn colour(key: &str, value: &str, text: &str) -> Result<[u8; 3], String> {
    let number = value.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii());
    match number.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
        Some(number) => Ok([(number >> 16) as u8, (number >> 8) as u8, number as u8]),
        None => {
            let line = text.find(&format!("{value:?}")).map(|at| format!(" (line {})", line_of(text, at)));
            let line = line.unwrap_or_default();
            Err(format!("{key}: {value:?} is no colour; write it as \"#rrggbb\"{line}"))
        }
    }
}

/// An error of TOML in one line.
fn in_words(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().replace('\n', " ");
    match error.span() {
        Some(span) => format!("{message} (line {}); correct the style", line_of(text, span.start)),
        None => format!("{message}; correct the style"),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "land = \"#ffffff\"\n[[layer]]\nclass = [\"rail\"]\nline = \"#000000\"\n";

    #[test]
    fn the_built_in_style_draws_every_class() {
        let style = Style::clean();
        let drawn = |class: &Class| style.layers.iter().any(|layer| layer.classes.contains(class));
        let missing: Vec<_> = Class::ALL.into_iter().filter(|class| !drawn(class)).collect();
        assert_eq!(missing, []);
        // Nothing shrinks when one comes nearer.
        assert!((1..=MAX_ZOOM).all(|zoom| style.widest(zoom) >= style.widest(zoom - 1)));
    }

    #[test]
    fn widths_go_straight_between_zooms() {
        let widths = Widths(vec![(10.0, 1.0), (14.0, 3.0), (14.5, 9.0)]);
        let found = [0, 10, 11, 13, 14, 15, 30].map(|zoom| widths.at(zoom));
        assert_eq!(found, [1.0, 1.0, 1.5, 2.5, 3.0, 9.0, 9.0]);
        assert_eq!(Widths(vec![(0.0, 2.0)]).at(7), 2.0);
    }

    #[test]
    fn mistakes_name_their_key() {
        let wrong = |text: &str| Style::parse("my.toml", text).unwrap_err().to_string();
        let line = |more: &str| wrong(&format!("{LINE}{more}\n"));
        for (message, part) in [
            (wrong(""), "missing field `land`"),
            (wrong("land = \"#ffffff\"\nlnd = 1"), "unknown field `lnd`"),
            (wrong("land = \"#ffffff\"\nlnd = 1"), "(line 2)"),
            (wrong("land = \"#fffff\""), "land: \"#fffff\" is no colour; write it as \"#rrggbb\""),
            (wrong("land = \"#ffffff\"\ntunnel_fade = 2.0"), "tunnel_fade: 2 is outside 0 … 1"),
            (wrong(&LINE.replace("rail", "monorail")), "unknown variant `monorail`"),
            (line(""), "layer 1 (rail): give either fill"),
            (line("width = 1\nfill = \"#000000\""), "layer 1 (rail): give either fill"),
            (line("width = \"wide\""), "a number of pixels or pairs [zoom, pixels]"),
            (line("width = 1000"), "layer 1 (rail): width: [0, 1000] is no width; use 0 … 256 pixels"),
            (line("width = nan"), "is no width"),
            (line("width = []"), "layer 1 (rail): width: write pairs [zoom, pixels] with rising zooms"),
            (line("width = [[3, 1], [2, 1]]"), "rising zooms"),
            (line("width = 1\ncasing = \"#000000\""), "casing and casing_width go together"),
            (line("width = 1\ndash = [0.0, 1.0]"), "layer 1 (rail): dash: write two lengths"),
            (line("width = 1\nzoom = [9, 3]"), "layer 1 (rail): zoom: write the lower before the higher"),
            (
                line("width = 1\ncasing = \"red\"\ncasing_width = 1"),
                "layer 1 (rail): casing: \"red\" is no colour",
            ),
        ] {
            assert!(message.starts_with("my.toml: ") && message.contains(part), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        let missing = Style::read("/nowhere/style.toml").unwrap_err();
        assert!(missing.to_string().starts_with("/nowhere/style.toml: cannot be read"), "{missing}");
    }
}
