//! The predictions file: what a network says of every image of a split, for people and programs that look at single
//! images. A run writes it for its validation split when it ends, and `tinyres eval` for the split that it scores.
//!
//! | file | content |
//! |---|---|
//! | `SPLIT.parquet` | a row for each image, in the split's order: columns in `columns.rs` |
//! | `SPLIT.logits.npy` | logits, `f32 [N, C]` |
//! | `SPLIT.features.npy` | outputs of the last pooled layer, `f16 [N, 512]`, if they were asked for |
//!
//! The Parquet file is written last. One that is there belongs to the arrays next to it.

mod columns;
pub(crate) mod npy;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::Kind;
use tinyres_format::{Class, Digest, publish};
use tinyres_load::Dataset;

use super::evaluate::SplitOutputs;
use super::tta::Tta;
use crate::libtorch::device::Precision;
use crate::{Error, Result};

/// What the predictions were made with: the entry `tinyres` of the Parquet file's metadata, as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Origin {
    version: &'static str,
    split: String,
    /// Fingerprint of the set.
    fingerprint: Digest,
    /// Digest over the digests of the split's shards.
    shards: Digest,
    /// The file of weights.
    weights: PathBuf,
    /// SHA-256 of the file of weights.
    weights_digest: Digest,
    /// Side of the images that the network was given, in pixels.
    size: u32,
    precision: Precision,
    tta: String,
    /// The classes, in label order.
    classes: Vec<Class>,
}

impl Origin {
    /// Predictions for `data` by the file `weights`, which is read for its digest.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn new(
        data: &Dataset,
        weights: &Path,
        size: u32,
        precision: Precision,
        tta: Tta,
    ) -> Result<Self> {
        let bytes = fs::read(weights).map_err(Error::io(weights))?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            split: data.split().to_string(),
            fingerprint: data.fingerprint(),
            shards: data.digest(),
            weights: weights.to_owned(),
            weights_digest: Digest::of(&bytes),
            size,
            precision,
            tta: tta.to_string(),
            classes: data.classes().to_vec(),
        })
    }
}

/// Writes the predictions `outputs` for `data`, which has a label for each image, to the directory `dir`, which is
/// created if missing. Returns the path of the Parquet file.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written; [`Error::Load`] if labels, boxes or names of `data` are damaged.
pub fn save(
    dir: &Path,
    data: &Dataset,
    outputs: &SplitOutputs,
    origin: &Origin,
) -> Result<PathBuf> {
    let columns = columns::columns(data, outputs)?;
    let metadata = serde_json::to_string(origin)
        .map_err(|error| Error::Torch(format!("predictions without a description: {error}")))?;
    let path = |kind: &str| dir.join(format!("{}.{kind}", data.split()));
    let table = path("parquet");
    let bytes = table::encode(&columns, metadata).map_err(|error| Error::Io {
        path: table.clone(),
        source: std::io::Error::other(error),
    })?;
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    // From here on until the new one is there, no table claims the arrays.
    remove(&table)?;
    let features = path("features.npy");
    match &outputs.features {
        Some(values) => write(&features, &npy::encode(&values.f_to_kind(Kind::Half)?)?)?,
        None => remove(&features)?,
    }
    write(&path("logits.npy"), &npy::encode(&outputs.logits)?)?;
    write(&table, &bytes)?;
    Ok(table)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    publish::write(path, bytes).map_err(Error::io(path))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}
