//! TensorBoard event files: protobuf messages in the TFRecord framing.
//!
//! A record is `length: u64`, `masked crc32c of the length: u32`, the bytes, `masked crc32c of the bytes:
//! u32`, all little-endian. Only the few message fields that scalars and pictures need are declared here.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::{Message, Oneof};

use super::RunError;

/// How the names of event files begin; TensorBoard looks for it.
pub(super) const FILE_PREFIX: &str = "events.out.tfevents.";

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Content", tags = "2, 4")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Content {
    #[prost(float, tag = "2")]
    Scalar(f32),
    #[prost(message, tag = "4")]
    Image(EncodedImage),
}

#[derive(Clone, PartialEq, Message)]
struct EncodedImage {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    /// 3 is RGB.
    #[prost(int32, tag = "3")]
    colour_space: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1 is START.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Appends events to one file.
#[derive(Debug)]
pub(super) struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Begins a new event file in `folder` for a run that starts, or goes on, with `first_step`.
    pub(super) fn start(folder: &Path, first_step: u64) -> Result<Self, RunError> {
        let (path, file) = new_file(folder)?;
        let mut writer = Self { path, file };
        writer.write(0, What::FileVersion("brain.Event:2".to_owned()))?;
        // START makes TensorBoard forget what earlier files say about this step and later ones, so a resumed
        // run draws one line instead of a zigzag.
        writer.write(first_step, What::SessionLog(SessionLog { status: 1 }))?;
        Ok(writer)
    }

    /// Adds one value to each named curve.
    pub(super) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), RunError> {
        let values = values.iter().map(|&(tag, value)| SummaryValue {
            tag: tag.to_owned(),
            content: Some(Content::Scalar(value as f32)),
        });
        self.write(step, What::Summary(Summary { values: values.collect() }))
    }

    /// Adds a PNG file's bytes.
    pub(super) fn image(
        &mut self,
        step: u64,
        tag: &str,
        (width, height): (usize, usize),
        encoded: Vec<u8>,
    ) -> Result<(), RunError> {
        let image = EncodedImage { height: height as i32, width: width as i32, colour_space: 3, encoded };
        let value = SummaryValue { tag: tag.to_owned(), content: Some(Content::Image(image)) };
        self.write(step, What::Summary(Summary { values: vec![value] }))
    }

    fn write(&mut self, step: u64, what: What) -> Result<(), RunError> {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let event = Event { wall_time, step: step as i64, what: Some(what) };
        let record = framed(&event.encode_to_vec());
        self.file.write_all(&record).map_err(RunError::io(&self.path))
    }
}

/// TensorBoard reads the files of a folder in the order of their names, so a new name must sort after all
/// others even when a run is resumed within the same second.
fn new_file(folder: &Path) -> Result<(PathBuf, File), RunError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut stamp = now;
    for entry in fs::read_dir(folder).map_err(RunError::io(folder))? {
        let name = entry.map_err(RunError::io(folder))?.file_name();
        let older = name.to_str().and_then(|name| name.strip_prefix(FILE_PREFIX)?.split('.').next());
        if let Some(older) = older.and_then(|digits| digits.parse::<u64>().ok()) {
            stamp = stamp.max(older.saturating_add(1));
        }
    }
    let path = folder.join(format!("{FILE_PREFIX}{stamp:010}.earthmapper"));
    let file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(RunError::io(&path))?;
    Ok((path, file))
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(bytes);
    record.extend_from_slice(&masked_crc(bytes).to_le_bytes());
    record
}

/// TFRecord rotates the checksum and adds a constant, so that the checksum of data holding checksums stays
/// useful.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file back the strict way: both checksums of each record, nothing left over.
    fn read_events(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (header, after) = rest.split_at(12);
            let length = u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
            assert_eq!(u32::from_le_bytes(header[8..].try_into().unwrap()), masked_crc(&header[..8]));
            let (body, after) = after.split_at(length);
            assert_eq!(u32::from_le_bytes(after[..4].try_into().unwrap()), masked_crc(body));
            events.push(Event::decode(body).unwrap());
            rest = &after[4..];
        }
        events
    }

    #[test]
    fn checksums_are_the_published_ones() {
        // CRC-32C check value of "123456789" is e3069283; masked as TFRecord does it.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
        // The well-known first record of every TensorFlow 1 and 2 event file has a length of 24 and this
        // header.
        let header = framed(&[0; 24]);
        assert_eq!(header[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn events_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = EventWriter::start(folder.path(), 0).unwrap();
        first.scalars(7, &[("loss", 3.25), ("accuracy", 0.5)]).unwrap();
        first.image(8, "sheet", (5, 4), vec![1, 2, 3]).unwrap();
        let second = EventWriter::start(folder.path(), 8).unwrap();
        assert!(second.path > first.path, "the newer file must sort last");

        let events = read_events(&first.path);
        assert_eq!(events.len(), 4);
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".to_owned())));
        assert!(events[0].wall_time > 1.6e9);
        assert_eq!(events[2].step, 7);
        let Some(What::Summary(summary)) = &events[2].what else { panic!("{events:?}") };
        assert_eq!(summary.values[0].tag, "loss");
        assert_eq!(summary.values[0].content, Some(Content::Scalar(3.25)));
        assert_eq!(summary.values[1].tag, "accuracy");
        let Some(What::Summary(summary)) = &events[3].what else { panic!("{events:?}") };
        let image = EncodedImage { height: 4, width: 5, colour_space: 3, encoded: vec![1, 2, 3] };
        assert_eq!(summary.values[0].content, Some(Content::Image(image)));

        let events = read_events(&second.path);
        assert_eq!(events[1].step, 8);
        assert_eq!(events[1].what, Some(What::SessionLog(SessionLog { status: 1 })));
    }
}
