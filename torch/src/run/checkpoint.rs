//! Weights and checkpoints: safetensors files with a description of themselves and a checksum.
//!
//! The network's tensors have torchvision's names, so that
//! `torchvision.models.resnet18(num_classes=N).load_state_dict` takes a file of weights as it is. A
//! checkpoint is a file of weights that also holds the state of the optimizer and of the moving average.
//! All that a resume needs is in that one file, which is replaced as a whole.
//!
//! The metadata of the safetensors header has one entry, `tinyres`: a `Description` as JSON. A file
//! starts like this, in every format:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | length of the header, little-endian |
//! | 40 | `START`: the beginning of the header, up to the format |
//! | 1 | the format, a digit |
//! | 13 | `BEFORE_CRC` |
//! | 8 | the checksum, in hexadecimal digits |
//!
//! The checksum is the CRC-32 of the whole file with zeros for its own digits, so it covers the header, the
//! description and all tensors.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tinyres_format::publish::AtomicFile;
use tinyres_format::{Class, Digest};

use crate::config::Config;
use crate::libtorch::tensors::HostCopy;
use crate::net::ResNet18;
use crate::{Error, Result};

/// The one key of the metadata. Several would be written in any order, as safetensors keeps a hash map.
const KEY: &str = "tinyres";
/// Separator in the names of the tensors of the optimizer and the average; those of a network have none.
const STATE_SEPARATOR: char = '/';
/// Prefix of the names of the averages of a network's tensors.
pub(crate) const AVERAGE: &str = "ema/";
/// The format of the [`Description`] and of the names of tensors. It changes when an older tinyres would
/// misread a new file, or a newer one an old file. A digit.
const FORMAT: u32 = 1;

/// The entry of the metadata.
#[derive(Serialize)]
struct Description<'a> {
    /// [`FORMAT`].
    format: u32,
    /// The checksum, or [`NO_CRC`] before it is known.
    crc32: &'a str,
    about: &'a About,
}

/// The start of the header: [`KEY`], and the start of the description, which is JSON in a string of JSON.
const START: &[u8] = br#"{"__metadata__":{"tinyres":"{\"format\":"#;
/// The bytes between format and checksum.
const BEFORE_CRC: &[u8] = br#",\"crc32\":\""#;
/// The place of the checksum in the file.
const CRC: Range<usize> = {
    let start = 8 + START.len() + 1 + BEFORE_CRC.len();
    start..start + NO_CRC.len()
};
const NO_CRC: &str = "00000000";

/// The description of a file of weights: what its tensors are, and where they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The version of tinyres that wrote the file.
    pub version: String,
    /// The class of each output, in order.
    pub classes: Vec<Class>,
    /// The fingerprint of the data set that the network was trained on.
    pub fingerprint: Digest,
    /// Digest over the digests of its shards; `None` in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<Digest>,
    /// Pixels of the shorter side of its images; `None` in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<u32>,
    /// The configuration of the run.
    #[serde(deserialize_with = "Config::checked")]
    pub config: Config,
    /// The parameters that were not taken from the file `config.init`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<String>,
    /// The position of the run.
    pub position: Position,
}

/// The position of a run. Together with configuration, data and tensors it decides all later steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch, counted from 0.
    pub epoch: u32,
    /// Batches of that epoch that are done.
    pub batch: usize,
    /// Steps of the run that are done.
    pub step: u64,
    /// The learning rate of the last step.
    pub rate: f64,
    /// Sum of the losses of the epoch's steps so far.
    pub losses: f64,
    /// Time that the epoch's steps took so far.
    pub took: Duration,
    /// The part of `took` spent waiting for data.
    pub waited: Duration,
    /// Time that the run took so far, evaluation included.
    pub elapsed: Duration,
    /// Time of the run at the end of the last scoring of the validation split; 0 if there was none.
    #[serde(default)]
    pub scored: Duration,
    /// Time that it took.
    #[serde(default)]
    pub scoring: Duration,
    /// Side of the images of the last step, in pixels.
    pub size: u32,
    /// Best top-1 on the validation split so far, from 0 to 1.
    pub best: Option<f64>,
}

/// Largest side of the images of a network, in pixels, as for the flag `--size`.
pub(crate) const MAX_SIZE: u32 = 4096;
/// Longest time in a position: ten years.
const MAX_TIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Position {
    /// Checks what memory and sums of times depend on: the file may come from anywhere.
    fn check(&self) -> std::result::Result<(), String> {
        let bad = |what: String| Err(format!("says what no run says: {what}"));
        if !(1..=MAX_SIZE).contains(&self.size) {
            return bad(format!(
                "size is {} pixels, expected 1 to {MAX_SIZE}",
                self.size
            ));
        }
        for (name, time) in [
            ("took", self.took),
            ("waited", self.waited),
            ("elapsed", self.elapsed),
            ("scored", self.scored),
            ("scoring", self.scoring),
        ] {
            if time > MAX_TIME {
                return bad(format!(
                    "{name} is {} s, expected at most ten years",
                    time.as_secs()
                ));
            }
        }
        Ok(())
    }
}

/// A file of weights or a checkpoint, read into memory.
#[derive(Debug)]
pub struct Checkpoint {
    /// The description of the file.
    pub about: About,
    network: Vec<(String, Tensor)>,
    /// The state of the optimizer and of the moving average. Empty in a file of weights.
    rest: Vec<(String, Tensor)>,
}

impl Checkpoint {
    /// Reads a file that [`save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Checkpoint`] if it is damaged, comes from another
    /// program, or has another format.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_own(path)?.ok_or_else(|| Error::Checkpoint {
            path: path.to_path_buf(),
            what: "was not written by tinyres: start a run from it with --init, and use the weights of that run"
                .to_owned(),
        })
    }

    /// A checkpoint of weights that [`save`] did not write.
    pub(crate) fn of(about: About, network: Vec<(String, Tensor)>) -> Self {
        Self {
            about,
            network,
            rest: Vec::new(),
        }
    }

    /// Reads a file that [`save`] wrote; `None` for one of another program.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_own(path: &Path) -> Result<Option<Self>> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let bad = |what: String| Error::Checkpoint {
            path: path.to_path_buf(),
            what,
        };
        check(&bytes).map_err(bad)?;
        let Some(about) = about(&bytes).map_err(bad)? else {
            return Ok(None);
        };
        let mut checkpoint = Self::of(about, Vec::new());
        for (name, view) in SafeTensors::deserialize(&bytes)
            .map_err(|error| bad(damaged(&error)))?
            .iter()
        {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::I64 => Kind::Int64,
                other => {
                    return Err(bad(format!(
                        "holds {name} as {other:?}, expected F32 or I64: it was changed by another \
                         program"
                    )));
                }
            };
            let dims: Vec<i64> = view
                .shape()
                .iter()
                .map(|&d| d.cast_signed() as i64)
                .collect();
            // safetensors has checked that the number of bytes agrees with shape and type.
            let tensor = Tensor::f_from_data_size(view.data(), &dims, kind)?;
            let into = if name.contains(STATE_SEPARATOR) {
                &mut checkpoint.rest
            } else {
                &mut checkpoint.network
            };
            into.push((name.to_owned(), tensor));
        }
        Ok(Some(checkpoint))
    }

    /// The network with these weights, on `device`.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing, unknown or of another shape.
    pub fn network(&self, device: Device) -> Result<ResNet18> {
        let spec = self.about.config.spec(self.about.classes.len());
        let mut network =
            ResNet18::new(spec, 0, device)?.with_precision(self.about.config.precision);
        network.load(&self.network)?;
        Ok(network)
    }

    /// The network's tensors, by name.
    pub(crate) fn weights(&self) -> &[(String, Tensor)] {
        &self.network
    }

    /// The state of the optimizer and of the moving average, by name. Empty in a file of weights.
    pub(crate) fn training_state(&self) -> &[(String, Tensor)] {
        &self.rest
    }

    /// Puts the outputs in the order of `classes`, matched by class id. True if they were in another order.
    ///
    /// # Errors
    /// [`Error::Classes`] names the classes that only one of the two has.
    pub fn order_classes(&mut self, classes: &[Class]) -> Result<bool> {
        let ids = |classes: &[Class]| -> Vec<_> {
            classes.iter().map(|class| class.id.clone()).collect()
        };
        let (own, data) = (ids(&self.about.classes), ids(classes));
        if own == data {
            return Ok(false);
        }
        let only = |some: &[String], other: &[String]| -> Vec<_> {
            (some.iter().filter(|id| !other.contains(id)).cloned()).collect()
        };
        let places: Vec<_> = (data.iter())
            .filter_map(|id| own.iter().position(|other| other == id))
            .filter_map(|place| i64::try_from(place).ok())
            .collect();
        let mut distinct = places.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != own.len() || distinct.len() != data.len() {
            return Err(Error::Classes {
                weights: only(&own, &data),
                data: only(&data, &own),
            });
        }
        let places = Tensor::f_from_slice(&places)?;
        for (name, tensor) in &mut self.network {
            if name.starts_with("fc.") {
                *tensor = tensor.f_index_select(0, &places)?;
            }
        }
        self.about.classes = classes.to_vec();
        Ok(true)
    }
}

/// Writes `network` and `rest`, the state of the optimizer and of the average, to `path`. The new file
/// replaces the old one as a whole or not at all.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn save(
    path: &Path,
    about: &About,
    network: &ResNet18,
    rest: Vec<(String, Tensor)>,
) -> Result<()> {
    Snapshot::new(network, rest)?.save(path, about)
}

/// The tensors of a file of weights or of a checkpoint, copied to the host's memory: training may go on while they
/// are written.
#[derive(Debug)]
pub(crate) struct Snapshot(HostCopy);

impl Snapshot {
    /// A copy of `network` and of `rest`, the state of the optimizer and of the average.
    pub(crate) fn new(network: &ResNet18, rest: Vec<(String, Tensor)>) -> Result<Self> {
        let mut state = network.state()?;
        state.extend(rest);
        Ok(Self(HostCopy::new(&state)?))
    }

    /// The weights that are evaluated: of a tensor that has an average, the average. They stay in the same memory.
    pub(crate) fn weights(&self) -> Self {
        let averages = self.0.names().filter_map(|name| name.strip_prefix(AVERAGE));
        let averages: HashSet<_> = averages.collect();
        let is_own = |name: &str| !name.contains(STATE_SEPARATOR) && !averages.contains(name);
        Self(self.0.select(|name| match name.strip_prefix(AVERAGE) {
            None => is_own(name).then_some(name),
            average => average,
        }))
    }

    /// Those of [`save`].
    pub(crate) fn save(&self, path: &Path, about: &About) -> Result<()> {
        let header = self.header(about)?;
        let write = || {
            let file = AtomicFile::create(path)?;
            file.file().write_all(&header)?;
            for data in self.0.data() {
                file.file().write_all(data)?;
            }
            file.publish()
        };
        write().map_err(Error::io(path))
    }

    /// The file before the data, with the checksum of all of it.
    fn header(&self, about: &About) -> Result<Vec<u8>> {
        let description = Description {
            format: FORMAT,
            crc32: NO_CRC,
            about,
        };
        let description = serde_json::to_string(&description).map_err(|error| {
            Error::Torch(format!("a description that cannot be written: {error}"))
        })?;
        let mut header = (self.0).header(HashMap::from([(KEY.to_owned(), description)]))?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header);
        self.0.data().for_each(|data| crc.update(data));
        header[CRC].copy_from_slice(format!("{:08x}", crc.finalize()).as_bytes());
        Ok(header)
    }
}

/// Compares the bytes of a file of tinyres with their checksum. Files of other programs pass.
pub(crate) fn check(file: &[u8]) -> std::result::Result<(), String> {
    if !file
        .get(8..)
        .is_some_and(|header| header.starts_with(START))
    {
        return match description(file) {
            Ok(Some(_)) => {
                Err("is damaged, or was rewritten by another program: copy it again".to_owned())
            }
            _ => Ok(()),
        };
    }
    let stored = file.get(CRC).ok_or("is damaged: it is cut short")?;
    let mut crc = crc32fast::Hasher::new();
    for part in [&file[..CRC.start], NO_CRC.as_bytes(), &file[CRC.end..]] {
        crc.update(part);
    }
    let computed = format!("{:08x}", crc.finalize());
    if computed.as_bytes() == stored {
        return Ok(());
    }
    Err(format!(
        "is damaged: it has checksum {computed}, expected {}: copy it again, or use another file",
        String::from_utf8_lossy(stored)
    ))
}

/// The description in a file of tinyres that [`check`] has passed; `None` for a file of another program.
pub(crate) fn about(file: &[u8]) -> std::result::Result<Option<About>, String> {
    /// A description of any format.
    #[derive(Deserialize)]
    struct AnyDescription {
        format: u32,
        about: serde_json::Value,
    }
    let Some(text) = description(file)? else {
        return Ok(None);
    };
    let other_version = |what: &str| {
        format!(
            "is of another version of tinyres than this {}: {what}: use that version, or start a run \
             from its weights with --init",
            env!("CARGO_PKG_VERSION")
        )
    };
    let unknown = |error: serde_json::Error| other_version(&error.to_string());
    let found: AnyDescription = serde_json::from_str(&text).map_err(unknown)?;
    if found.format != FORMAT {
        let version = found.about["version"].as_str().unwrap_or("unknown");
        let format = found.format;
        return Err(other_version(&format!(
            "{version}, in format {format}, expected {FORMAT}"
        )));
    }
    let about = About::deserialize(found.about).map_err(unknown)?;
    about.position.check()?;
    Ok(Some(about))
}

/// The metadata's entry of tinyres, if there is one.
fn description(file: &[u8]) -> std::result::Result<Option<String>, String> {
    metadata(file, KEY)
}

/// The metadata's entry `key`, if there is one.
pub(crate) fn metadata(file: &[u8], key: &str) -> std::result::Result<Option<String>, String> {
    let (_, header) = SafeTensors::read_metadata(file).map_err(|error| damaged(&error))?;
    Ok(header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(key).cloned()))
}

fn damaged(error: &safetensors::SafeTensorError) -> String {
    format!("is not a safetensors file, or is damaged: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small_file() -> Vec<u8> {
        file_at(Position {
            size: 64,
            ..Position::default()
        })
    }

    fn file_at(position: Position) -> Vec<u8> {
        let about = About {
            version: "0.1.0".to_owned(),
            classes: Vec::new(),
            fingerprint: Digest::of(b"data"),
            shards: None,
            side: None,
            config: Config::layered(None, toml::Table::new(), false).unwrap(),
            new: Vec::new(),
            position,
        };
        let tensor = |values: &[f32]| Tensor::from_slice(values);
        let state = [
            ("fc.bias".to_owned(), tensor(&[1.0, -2.0, 0.5])),
            ("optimizer/step".to_owned(), Tensor::from_slice(&[7_i64])),
        ];
        let snapshot = Snapshot(HostCopy::new(&state).unwrap());
        let header = snapshot.header(&about).unwrap();
        let data = snapshot.0.data().flatten();
        header.iter().chain(data).copied().collect()
    }

    /// Bytes that files of format 1 have started with since it exists, so that older files stay readable.
    #[test]
    fn format_1_has_its_checksum_at_byte_62() {
        let file = small_file();
        let start = br#"{"__metadata__":{"tinyres":"{\"format\":1,\"crc32\":\""#;
        assert!(file[8..].starts_with(start));
        let mut zeroed = file.clone();
        zeroed[62..70].fill(b'0');
        let crc = format!("{:08x}", crc32fast::hash(&zeroed));
        assert_eq!(&file[62..70], crc.as_bytes());
        assert_eq!(CRC, 62..70);
    }

    #[test]
    fn positions_of_no_run_are_refused() {
        let at = |size, days: u64| Position {
            size,
            elapsed: Duration::from_secs(days * 24 * 3600),
            ..Position::default()
        };
        let read = |position| about(&file_at(position)).map(|about| about.unwrap().position.size);
        assert_eq!(read(at(4096, 3650)), Ok(4096));
        for (position, what) in [
            (at(0, 1), "size is 0 pixels, expected 1 to 4096"),
            (at(4097, 1), "size is 4097 pixels, expected 1 to 4096"),
            (at(u32::MAX, 1), "size is 4294967295 pixels"),
            (at(64, 3651), "elapsed is 315446400 s"),
        ] {
            let error = read(position).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let file = small_file();
        let read = |file: &[u8]| check(file).and_then(|()| about(file));
        assert_eq!(read(&file).unwrap().unwrap().version, "0.1.0");
        let key = file.windows(7).position(|part| part == KEY.as_bytes());
        let key = key.unwrap()..key.unwrap() + KEY.len();
        for bit in 0..8 * file.len() {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match read(&flipped) {
                Err(_) => {}
                // Without its key it is a file of another program, which `Checkpoint::load` refuses.
                Ok(None) => assert!(key.contains(&(bit / 8)), "bit {bit}"),
                Ok(Some(_)) => panic!("bit {bit}"),
            }
        }
        for len in 0..file.len() {
            assert!(read(&file[..len]).is_err(), "{len} bytes");
        }
    }
}
