//! The label inside a picture file that says it was generated, by what, and from what.
//!
//! A generated photograph of the ground looks like evidence. So every picture that EarthMapper writes says in its own
//! metadata, in the vocabulary of the press (IPTC digital source type), that a trained model made it.

use std::collections::BTreeMap;
use std::path::Path;

use image::ImageDecoder;
use img_parts::Bytes;
use img_parts::jpeg::{Jpeg, JpegSegment, markers};
use img_parts::riff::{RiffChunk, RiffContent};
use img_parts::webp::{CHUNK_VP8X, CHUNK_XMP, WebP};
use serde::{Deserialize, Serialize};

use crate::picture::{PictureError, PictureLimits, decoder, read_bounded};

/// The IPTC term for media made by a trained model.
const TRAINED_ALGORITHMIC_MEDIA: &str =
    "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";

/// Keyword under which a PNG holds XMP.
const PNG_XMP_KEYWORD: &str = "XML:com.adobe.xmp";

/// What begins a JPEG segment that holds XMP.
const JPEG_XMP_PREFIX: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Where a written picture comes from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The program and its version.
    pub software: String,
    /// The model that made the picture.
    pub model: String,
    /// What was done, for example "map → satellite".
    pub task: String,
    /// The seed that makes the same picture again.
    pub seed: Option<u64>,
    /// The picture it was made from.
    pub source: Option<String>,
    /// Whether a model invented the picture's content; if so the file carries the IPTC term for it.
    pub synthetic: bool,
    /// Anything else worth keeping, as key and value.
    pub extra: BTreeMap<String, String>,
}

impl Provenance {
    /// A synthetic picture made by this version of EarthMapper; set the other fields as known.
    pub fn new(model: impl Into<String>, task: impl Into<String>) -> Self {
        Self {
            software: concat!("EarthMapper ", env!("CARGO_PKG_VERSION")).to_owned(),
            model: model.into(),
            task: task.into(),
            seed: None,
            source: None,
            synthetic: true,
            extra: BTreeMap::new(),
        }
    }

    /// One line for people.
    pub fn description(&self) -> String {
        let kind = if self.synthetic { "Synthetic picture, not a record of the ground" } else { "Picture" };
        let mut text = format!("{kind}: {} by {}, model {}", self.task, self.software, self.model);
        if let Some(seed) = self.seed {
            text += &format!(", seed {seed}");
        }
        if let Some(source) = &self.source {
            text += &format!(", made from {source}");
        }
        text
    }

    /// The XMP packet (a small XML document) that goes into the file.
    pub fn xmp(&self) -> String {
        let mut properties = property("xmp:CreatorTool", &self.software);
        if self.synthetic {
            properties += &property("Iptc4xmpExt:DigitalSourceType", TRAINED_ALGORITHMIC_MEDIA);
        }
        properties += &format!(
            "   <dc:description><rdf:Alt><rdf:li xml:lang=\"x-default\">{}</rdf:li></rdf:Alt></dc:description>\n",
            escaped(&self.description())
        );
        properties += &property("earthmapper:model", &self.model);
        properties += &property("earthmapper:task", &self.task);
        if let Some(seed) = self.seed {
            properties += &property("earthmapper:seed", &seed.to_string());
        }
        if let Some(source) = &self.source {
            properties += &property("earthmapper:source", source);
        }
        if !self.extra.is_empty() {
            // Keys are free text and so cannot be names of XML elements.
            let items = self
                .extra
                .iter()
                .map(|(key, value)| format!("<rdf:li>{}</rdf:li>", escaped(&format!("{key} = {value}"))));
            let items: String = items.collect();
            properties += &format!("   <earthmapper:extra><rdf:Seq>{items}</rdf:Seq></earthmapper:extra>\n");
        }
        format!(
            r#"<?xpacket begin="{byte_order_mark}" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:earthmapper="{namespace}/ns/1.0/">
{properties}  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"#,
            byte_order_mark = '\u{feff}',
            namespace = env!("CARGO_PKG_REPOSITORY"),
        )
    }
}

fn property(name: &str, value: &str) -> String {
    format!("   <{name}>{}</{name}>\n", escaped(value))
}

/// Text as XML allows it: markup escaped, and control characters, which XML cannot hold at all, replaced.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&apos;",
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Adds the text chunks to a PNG that is about to be written.
pub(crate) fn add_to_png(
    encoder: &mut png::Encoder<'_, &mut Vec<u8>>,
    provenance: &Provenance,
) -> Result<(), png::EncodingError> {
    for (keyword, text) in
        [("Software", provenance.software.clone()), ("Description", provenance.description())]
    {
        // The older tEXt chunk, which every reader knows, holds no arrows and no NUL.
        let text = text.replace('\0', "\u{fffd}");
        if text.is_ascii() {
            encoder.add_text_chunk(keyword.to_owned(), text)?;
        } else {
            encoder.add_itxt_chunk(keyword.to_owned(), text)?;
        }
    }
    // XMP must not be compressed, so that programs can find it without decoding the picture.
    encoder.add_itxt_chunk(PNG_XMP_KEYWORD.to_owned(), provenance.xmp())
}

/// Puts the XMP packet into a JPEG, behind its JFIF header.
pub(crate) fn insert_into_jpeg(bytes: Vec<u8>, provenance: &Provenance) -> Result<Vec<u8>, String> {
    let contents = [JPEG_XMP_PREFIX, provenance.xmp().as_bytes()].concat();
    if contents.len() + 2 > usize::from(u16::MAX) {
        return Err(format!("its provenance of {} bytes does not fit a JPEG", contents.len()));
    }
    let mut jpeg = Jpeg::from_bytes(bytes.into()).map_err(|error| error.to_string())?;
    let segments = jpeg.segments_mut();
    let place = segments.iter().take_while(|segment| segment.marker() == markers::APP0).count();
    segments.insert(place, JpegSegment::new_with_contents(markers::APP1, contents.into()));
    Ok(jpeg.encoder().bytes().to_vec())
}

/// Puts the XMP packet into a WebP of the plain kind, which the extended header then has to announce.
pub(crate) fn insert_into_webp(
    bytes: Vec<u8>,
    (width, height): (u32, u32),
    has_alpha: bool,
    provenance: &Provenance,
) -> Result<Vec<u8>, String> {
    const HAS_XMP: u8 = 0b0000_0100;
    const HAS_ALPHA: u8 = 0b0001_0000;
    let mut header = vec![if has_alpha { HAS_XMP | HAS_ALPHA } else { HAS_XMP }, 0, 0, 0];
    header.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
    header.extend_from_slice(&(height - 1).to_le_bytes()[..3]);

    let mut webp = WebP::from_bytes(bytes.into()).map_err(|error| error.to_string())?;
    let chunk = |id, data: Vec<u8>| RiffChunk::new(id, RiffContent::Data(Bytes::from(data)));
    webp.chunks_mut().insert(0, chunk(CHUNK_VP8X, header));
    webp.chunks_mut().push(chunk(CHUNK_XMP, provenance.xmp().into_bytes()));
    Ok(webp.encoder().bytes().to_vec())
}

/// The XMP packet of a PNG, JPEG or WebP file, if it has one.
///
/// # Errors
///
/// Every [`PictureError`] about reading, as far as the file's header goes.
pub fn read_provenance(path: impl AsRef<Path>) -> Result<Option<String>, PictureError> {
    let path = path.as_ref();
    // Only metadata is decoded, so the number of pixels does not matter.
    let limits = PictureLimits { max_pixels: u64::MAX, ..PictureLimits::default() };
    let bytes = read_bounded(path, &limits)?;
    let xmp = decoder(&bytes, path, &limits)?.xmp_metadata();
    let xmp =
        xmp.map_err(|error| PictureError::Damaged { path: path.to_owned(), detail: error.to_string() })?;
    Ok(xmp.map(|xmp| String::from_utf8_lossy(&xmp).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_says_what_matters_and_is_escaped() {
        let mut provenance = Provenance::new("mini <&> \"large\"", "map → satellite");
        provenance.seed = Some(7);
        provenance.source = Some("a\0b's.png".to_owned());
        provenance.extra.insert("top-k".to_owned(), "<900>".to_owned());
        let xmp = provenance.xmp();
        for expected in [
            "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>",
            concat!("<xmp:CreatorTool>EarthMapper ", env!("CARGO_PKG_VERSION"), "</xmp:CreatorTool>"),
            "<earthmapper:model>mini &lt;&amp;&gt; &quot;large&quot;</earthmapper:model>",
            "<earthmapper:seed>7</earthmapper:seed>",
            "<earthmapper:source>a\u{fffd}b&apos;s.png</earthmapper:source>",
            "<rdf:li>top-k = &lt;900&gt;</rdf:li>",
            "not a record of the ground: map → satellite by EarthMapper",
        ] {
            assert!(xmp.contains(expected), "{expected} is missing in\n{xmp}");
        }
        let real = Provenance { synthetic: false, ..provenance };
        assert!(!real.xmp().contains("DigitalSourceType"));
        assert!(!real.description().contains("Synthetic"));
    }
}
