//! Writes event files, which TensorBoard shows: scalars and pictures. Nothing here reads them.
//!
//! A file is a sequence of records. A record is a protocol buffer between checksums. Sources:
//!
//! - framing: TensorFlow's `lib/io/record_writer.h`
//! - checksums: TensorFlow's `lib/hash/crc32c.h`
//! - messages and field numbers: `tensorboard/compat/proto/event.proto` and `summary.proto`

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::num::to_f32;
use crate::{Error, Result};

/// An event file, open to append to it.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    len: u64,
}

impl EventFile {
    /// Creates an event file in `dir`. It makes void what older files there say about step `first` and
    /// later steps.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub(crate) fn create(dir: &Path, first: u64) -> Result<Self> {
        // TensorBoard reads the files of a directory in the order of their names.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let (seconds, rest) = (now.as_secs(), now.subsec_nanos());
        let name = format!("events.out.tfevents.{seconds:010}.{rest:09}.tinyres");
        let path = dir.join(name);
        let file = File::options()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        let mut events = Self { path, file, len: 0 };
        events.append(0, Content::FileVersion("brain.Event:2".to_owned()))?;
        events.append(
            first,
            Content::SessionLog(SessionLogProto {
                status: SESSION_START,
            }),
        )?;
        Ok(events)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a picture, an RGB PNG, under the name `tag`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written. It then holds the same records as before.
    pub(crate) fn image(
        &mut self,
        step: u64,
        tag: &str,
        png: Vec<u8>,
        [width, height]: [usize; 2],
    ) -> Result<()> {
        let side = |pixels| i32::try_from(pixels).unwrap_or(i32::MAX);
        let image = ImageProto {
            height: side(height),
            width: side(width),
            colorspace: RGB,
            encoded: png,
        };
        self.values(step, vec![ValueProto::new(tag, ValueData::Image(image))])
    }

    /// Appends the figures of a step, each under its tag.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written. It then holds the same records as before.
    pub(crate) fn scalars(&mut self, step: u64, figures: &[(&str, f64)]) -> Result<()> {
        let value =
            |&(tag, figure): &(&str, f64)| ValueProto::new(tag, ValueData::Simple(to_f32(figure)));
        self.values(step, figures.iter().map(value).collect())
    }

    fn values(&mut self, step: u64, values: Vec<ValueProto>) -> Result<()> {
        self.append(step, Content::Summary(SummaryProto { values }))
    }

    fn append(&mut self, step: u64, content: Content) -> Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let event = EventProto {
            wall_time: now.as_secs_f64(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            content: Some(content),
        };
        let record = record(&event.encode_to_vec());
        // One write, so that a program that follows the file sees whole records.
        let written = self.file.write_all(&record);
        if written.is_ok() {
            self.len += record.len() as u64;
        } else {
            // Removes the part of the record that was written: readers stop at it. If that fails too,
            // the next start still has a file of its own.
            let _ = self.file.set_len(self.len);
        }
        written.map_err(Error::io(&self.path))
    }
}

/// The record of `data`: length, checksum of the length, data, checksum of the data.
fn record(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] = [&len, &masked_crc(&len), data, &masked_crc(data)];
    parts.concat()
}

/// CRC-32C, masked: rotated, plus a constant. A plain CRC of data that contains CRCs would be weak.
fn masked_crc(data: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c(data).rotate_right(15);
    crc.wrapping_add(0xa282_ead8).to_le_bytes()
}

/// `SessionStatus.START`: makes earlier events of this step and later steps void.
const SESSION_START: i32 = 1;
/// `Image.colorspace` for RGB.
const RGB: i32 = 3;

#[derive(Clone, PartialEq, Message)]
struct EventProto {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "Content", tags = "3, 5, 7")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(SummaryProto),
    #[prost(message, tag = "7")]
    SessionLog(SessionLogProto),
}

#[derive(Clone, PartialEq, Message)]
struct SessionLogProto {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryProto {
    #[prost(message, repeated, tag = "1")]
    values: Vec<ValueProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueProto {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "ValueData", tags = "2, 4")]
    data: Option<ValueData>,
}

impl ValueProto {
    fn new(tag: &str, data: ValueData) -> Self {
        Self {
            tag: tag.to_owned(),
            data: Some(data),
        }
    }
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ValueData {
    #[prost(float, tag = "2")]
    Simple(f32),
    #[prost(message, tag = "4")]
    Image(ImageProto),
}

#[derive(Clone, PartialEq, Message)]
struct ImageProto {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_crc_agrees_with_the_sources() {
        // CRC-32C of 32 zeros from RFC 3720, B.4; the mask of TensorFlow's crc32c.h by hand.
        let crc: u32 = 0x8a91_36aa;
        assert_eq!(crc32c::crc32c(&[0; 32]), crc);
        let masked: u32 = 0x0fd7_fffa;
        assert_eq!(masked_crc(&[0; 32]), masked.to_le_bytes());
    }
}
