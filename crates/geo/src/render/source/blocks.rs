//! The blocks of an `.osm.pbf` file, unpacked one after another.
//!
//! The messages are those of the format's public description, without what is not needed here (authors, dates).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::ZlibDecoder;
use prost::Message;

use super::super::error::RenderError;

/// The most bytes of a header and of a block, as the format sets them.
const MAX_HEADER_BYTES: u64 = 64 << 10;
const MAX_BLOCK_BYTES: u64 = 32 << 20;

#[derive(Clone, PartialEq, Message)]
pub(super) struct BlobHeader {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(int32, tag = "3")]
    pub(super) size: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Blob {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(super) raw: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(super) zlib: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderBlock {
    #[prost(string, repeated, tag = "4")]
    pub(super) required_features: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Block {
    #[prost(message, optional, tag = "1")]
    pub(super) words: Option<Words>,
    #[prost(message, repeated, tag = "2")]
    pub(super) groups: Vec<Group>,
    #[prost(int32, optional, tag = "17")]
    pub(super) granularity: Option<i32>,
    #[prost(int64, optional, tag = "19")]
    pub(super) latitude_offset: Option<i64>,
    #[prost(int64, optional, tag = "20")]
    pub(super) longitude_offset: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Words {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) words: Vec<bytes::Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Group {
    #[prost(message, repeated, tag = "1")]
    pub(super) nodes: Vec<Node>,
    #[prost(message, optional, tag = "2")]
    pub(super) dense: Option<DenseNodes>,
    #[prost(message, repeated, tag = "3")]
    pub(super) ways: Vec<Way>,
    #[prost(message, repeated, tag = "4")]
    pub(super) relations: Vec<Relation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(sint64, tag = "1")]
    pub(super) id: i64,
    #[prost(sint64, tag = "8")]
    pub(super) latitude: i64,
    #[prost(sint64, tag = "9")]
    pub(super) longitude: i64,
}

/// Nodes as columns of differences.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DenseNodes {
    #[prost(sint64, repeated, tag = "1")]
    pub(super) ids: Vec<i64>,
    #[prost(sint64, repeated, tag = "8")]
    pub(super) latitudes: Vec<i64>,
    #[prost(sint64, repeated, tag = "9")]
    pub(super) longitudes: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Way {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    #[prost(uint32, repeated, tag = "2")]
    pub(super) keys: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    pub(super) values: Vec<u32>,
    #[prost(sint64, repeated, tag = "8")]
    pub(super) nodes: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Relation {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    #[prost(uint32, repeated, tag = "2")]
    pub(super) keys: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    pub(super) values: Vec<u32>,
    #[prost(int32, repeated, tag = "8")]
    pub(super) roles: Vec<i32>,
    #[prost(sint64, repeated, tag = "9")]
    pub(super) members: Vec<i64>,
    #[prost(int32, repeated, tag = "10")]
    pub(super) kinds: Vec<i32>,
}

/// The kind of a member that is a way.
pub(super) const WAY: i32 = 1;

impl Block {
    fn word(&self, index: usize) -> &str {
        let word = self.words.as_ref().and_then(|words| words.words.get(index));
        word.and_then(|word| str::from_utf8(word).ok()).unwrap_or_default()
    }

    /// The tags with these numbers of keys and values.
    pub(super) fn tags<'a>(&'a self, keys: &[u32], values: &[u32]) -> Vec<(&'a str, &'a str)> {
        let pairs = keys.iter().zip(values);
        pairs.map(|(key, value)| (self.word(*key as usize), self.word(*value as usize))).collect()
    }

    /// Whether the role of a member says that it goes round a hole.
    pub(super) fn is_inner(&self, role: i32) -> bool {
        usize::try_from(role).is_ok_and(|index| self.word(index) == "inner")
    }

    /// The nodes of a group: number, longitude and latitude in degrees. A sum that runs over wraps around and gives
    /// a place that is none.
    pub(super) fn nodes(&self, group: &Group, mut visitor: impl FnMut(i64, f64, f64)) {
        let degrees = |offset: Option<i64>, value: i64| {
            let nano = f64::from(self.granularity.unwrap_or(100)) * value as f64;
            1e-9 * (offset.unwrap_or(0) as f64 + nano)
        };
        let mut show = |id, longitude, latitude| {
            visitor(id, degrees(self.longitude_offset, longitude), degrees(self.latitude_offset, latitude));
        };
        for node in &group.nodes {
            show(node.id, node.longitude, node.latitude);
        }
        let Some(dense) = &group.dense else { return };
        let (mut id, mut longitude, mut latitude) = (0_i64, 0_i64, 0_i64);
        for ((step, right), up) in dense.ids.iter().zip(&dense.longitudes).zip(&dense.latitudes) {
            id = id.wrapping_add(*step);
            longitude = longitude.wrapping_add(*right);
            latitude = latitude.wrapping_add(*up);
            show(id, longitude, latitude);
        }
    }
}

/// Reads a file from its beginning and shows every block of data.
pub(super) fn visit_blocks(
    path: &Path,
    mut visitor: impl FnMut(&Block) -> Result<(), RenderError>,
) -> Result<(), RenderError> {
    let unread = |cause| RenderError::Io { path: path.to_owned(), cause };
    let damaged = |detail: String| RenderError::Damaged { path: path.to_owned(), detail };
    let broken = |error: prost::DecodeError| damaged(error.to_string());
    let too_short = || damaged("the file ends too early".to_owned());
    let mut file = BufReader::new(File::open(path).map_err(unread)?);
    let mut is_first = true;
    loop {
        let length = exactly(&mut file, 4).map_err(unread)?;
        let Ok(length) = <[u8; 4]>::try_from(length.as_slice()) else {
            let is_whole = length.is_empty() && !is_first;
            return if is_whole { Ok(()) } else { Err(too_short()) };
        };
        let length = u64::from(u32::from_be_bytes(length));
        if length > MAX_HEADER_BYTES {
            return Err(damaged("it does not begin as .osm.pbf does, or a header is too long".to_owned()));
        }
        let bytes = exactly(&mut file, length).map_err(unread)?;
        if (bytes.len() as u64) < length {
            return Err(too_short());
        }
        let header = BlobHeader::decode(bytes.as_slice()).map_err(broken)?;
        if is_first && header.kind != "OSMHeader" {
            return Err(damaged("it does not begin as .osm.pbf does".to_owned()));
        }
        let size = u64::try_from(header.size).ok().filter(|size| *size <= MAX_BLOCK_BYTES);
        let size = size.ok_or_else(|| damaged(format!("a block of {} bytes is too large", header.size)))?;
        let bytes = exactly(&mut file, size).map_err(unread)?;
        if (bytes.len() as u64) < size {
            return Err(too_short());
        }
        let blob = Blob::decode(bytes.as_slice()).map_err(broken)?;
        match header.kind.as_str() {
            "OSMHeader" => check_header(path, &unpacked(path, blob)?)?,
            "OSMData" => visitor(&Block::decode(unpacked(path, blob)?.as_slice()).map_err(broken)?)?,
            // The format lets programs add blocks of their own.
            _ => {}
        }
        is_first = false;
    }
}

fn check_header(path: &Path, bytes: &[u8]) -> Result<(), RenderError> {
    let header = HeaderBlock::decode(bytes)
        .map_err(|error| RenderError::Damaged { path: path.to_owned(), detail: error.to_string() })?;
    match header.required_features.into_iter().find(|name| name != "OsmSchema-V0.6" && name != "DenseNodes") {
        Some(feature) => Err(RenderError::Unsupported {
            path: path.to_owned(),
            feature,
            cure: "give a plain extract, without history or changes",
        }),
        None => Ok(()),
    }
}

fn unpacked(path: &Path, blob: Blob) -> Result<Vec<u8>, RenderError> {
    let damaged = |detail: &str| RenderError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let bytes = match (blob.raw, blob.zlib) {
        (Some(raw), _) => raw,
        (None, Some(packed)) => {
            let mut bytes = Vec::new();
            let mut reader = ZlibDecoder::new(packed.as_slice()).take(MAX_BLOCK_BYTES + 1);
            reader.read_to_end(&mut bytes).map_err(|_| damaged("a block cannot be unpacked"))?;
            bytes
        }
        (None, None) => {
            return Err(RenderError::Unsupported {
                path: path.to_owned(),
                feature: "another compression than zlib".to_owned(),
                cure: "write it again with zlib (`osmium cat -o new.osm.pbf`)",
            });
        }
    };
    if bytes.len() as u64 > MAX_BLOCK_BYTES { Err(damaged("a block is too large")) } else { Ok(bytes) }
}

/// So many bytes, or fewer at the end of the file. Memory grows with what is there, not with what is promised.
fn exactly(file: &mut impl Read, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.by_ref().take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}
