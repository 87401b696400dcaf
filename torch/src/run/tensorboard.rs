//! Event files, which TensorBoard shows.
//!
//! A file is a sequence of records, each a protocol buffer between checksums. Sources: the framing,
//! TensorFlow's `lib/io/record_writer.h`; its checksums, `lib/hash/crc32c.h`; the messages, with the
//! field numbers that stand here, `tensorboard/compat/proto/event.proto` and `summary.proto`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use tinyres::event::{self, Score};

use crate::num::to_f32;
use crate::{Error, Result};

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    len: u64,
}

impl EventFile {
    /// Begins an event file in `dir`. What files from before say of step `first` and later ones is void
    /// from then on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(dir: &Path, first: u64) -> Result<Self> {
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
        events.append(0, What::FileVersion("brain.Event:2".to_owned()))?;
        events.append(
            first,
            What::SessionLog(SessionLog {
                status: SESSION_START,
            }),
        )?;
        Ok(events)
    }

    /// Adds the figures of `event`, if it has some.
    ///
    /// # Errors
    /// The file cannot be written: it holds what it held before.
    pub fn on(&mut self, event: &event::Event) -> Result<()> {
        match event {
            event::Event::Step(step) => self.scalars(
                step.step,
                &[
                    ("loss/step", step.loss),
                    ("learning_rate", step.lr),
                    ("images_per_second", step.images_per_second),
                ],
            ),
            event::Event::Epoch(epoch) => {
                let mut figures = vec![
                    ("loss/train", epoch.train_loss),
                    ("wait_share", epoch.wait_share),
                ];
                if let Some(Score {
                    val_loss,
                    top1,
                    top5,
                    boxes,
                }) = epoch.val
                {
                    figures.extend([
                        ("loss/val", val_loss),
                        ("top1/val", top1),
                        ("top5/val", top5),
                    ]);
                    if let Some(boxes) = boxes {
                        figures.extend([
                            ("boxes/mean_iou", boxes.mean_iou),
                            ("boxes/gt_known_loc", boxes.gt_known_loc),
                            ("boxes/top1_loc", boxes.top1_loc),
                        ]);
                    }
                }
                self.scalars(epoch.step, &figures)
            }
            _ => Ok(()),
        }
    }

    /// Adds a picture, a PNG of RGB.
    ///
    /// # Errors
    /// As for [`on`](Self::on).
    pub fn image(
        &mut self,
        step: u64,
        tag: &str,
        png: Vec<u8>,
        [width, height]: [usize; 2],
    ) -> Result<()> {
        let side = |pixels| i32::try_from(pixels).unwrap_or(i32::MAX);
        let image = Image {
            height: side(height),
            width: side(width),
            colorspace: RGB,
            encoded: png,
        };
        self.values(step, vec![Value::new(tag, Figure::Image(image))])
    }

    fn scalars(&mut self, step: u64, figures: &[(&str, f64)]) -> Result<()> {
        let value = |&(tag, figure): &(&str, f64)| Value::new(tag, Figure::Simple(to_f32(figure)));
        self.values(step, figures.iter().map(value).collect())
    }

    fn values(&mut self, step: u64, values: Vec<Value>) -> Result<()> {
        self.append(step, What::Summary(Summary { values }))
    }

    fn append(&mut self, step: u64, what: What) -> Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let event = Event {
            wall_time: now.as_secs_f64(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            what: Some(what),
        };
        let record = record(&event.encode_to_vec());
        // In one write, so that whoever reads along meets whole records.
        let written = self.file.write_all(&record);
        if written.is_ok() {
            self.len += record.len() as u64;
        } else {
            // Nothing can be read behind part of a record. Where even this fails, the next start has
            // a file of its own.
            let _ = self.file.set_len(self.len);
        }
        written.map_err(Error::io(&self.path))
    }
}

/// `data` as a record: its length, that one's checksum, the data and their checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] = [&len, &masked_crc(&len), data, &masked_crc(data)];
    parts.concat()
}

/// CRC-32C, turned and moved on: a checksum of data that has checksums in it would be weak.
fn masked_crc(data: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c(data).rotate_right(15);
    crc.wrapping_add(0xa282_ead8).to_le_bytes()
}

/// `SessionStatus.START`: events of this step and later ones are void where they come before.
const SESSION_START: i32 = 1;
/// `Image.colorspace` of three channels.
const RGB: i32 = 3;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Figure", tags = "2, 4")]
    figure: Option<Figure>,
}

impl Value {
    fn new(tag: &str, figure: Figure) -> Self {
        Self {
            tag: tag.to_owned(),
            figure: Some(figure),
        }
    }
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Figure {
    #[prost(float, tag = "2")]
    Simple(f32),
    #[prost(message, tag = "4")]
    Image(Image),
}

#[derive(Clone, PartialEq, Message)]
struct Image {
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
    fn the_checksum_is_the_one_of_the_format() {
        // CRC-32C of 32 zeros, RFC 3720, B.4; and the mask of TensorFlow's crc32c.h, by hand.
        let crc: u32 = 0x8a91_36aa;
        assert_eq!(crc32c::crc32c(&[0; 32]), crc);
        let masked: u32 = 0x0fd7_fffa;
        assert_eq!(masked_crc(&[0; 32]), masked.to_le_bytes());
    }
}
