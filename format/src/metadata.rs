//! The metadata of a shard, and the types that metadata and manifest share: classes, splits, digests.
//!
//! Columns of single images (labels, boxes, names) are not metadata; see `shard.rs`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::header::MAX_METADATA;
use crate::{Error, Result};

/// A class of a set. Its label is its index in the list of classes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Class {
    /// Its identifier in the source: a WordNet id such as `n02124075`.
    pub id: String,
    /// Its name for people: `Egyptian cat`.
    pub name: String,
}

/// A part of a set with a purpose of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Images to train a model on.
    Train,
    /// Images to score a model on during its development.
    Val,
    /// Images for the final score. Those of Tiny ImageNet have no labels.
    Test,
}

impl Split {
    /// The name that files and flags use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }

    /// The file name of shard `index` of this split.
    #[must_use]
    pub fn shard_name(self, index: usize) -> String {
        format!("{}-{index:05}.bin", self.name())
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Split {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        [Self::Train, Self::Val, Self::Test]
            .into_iter()
            .find(|split| split.name() == name)
            .ok_or_else(|| format!("unknown split {name:?}, expected train, val or test"))
    }
}

/// A SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl From<[u8; 32]> for Digest {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let wrong = || format!("{text:?} is not a SHA-256 in 64 lower-case hexadecimal digits");
        let digits = text.as_bytes();
        if digits.len() != 64
            || !digits
                .iter()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(wrong());
        }
        let mut digest = [0; 32];
        for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(digest))
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// An image that `pack --skip-bad` left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its name in the source.
    pub name: String,
    /// The reason why it could not be packed.
    pub reason: String,
}

/// An image that was packed although its file is damaged, or that was converted in a way that a person may want
/// to know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    /// Its name in the source.
    pub name: String,
    /// Damage that the decoder found, or the conversion.
    pub warning: String,
}

/// A shard's description of itself and of the set that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The program that wrote the shard: `tinyres 0.1.0`.
    pub creator: String,
    /// Identifies the whole set: its classes, names, labels, boxes, shape and sharding.
    pub fingerprint: Digest,
    /// The split that the shard is a part of.
    pub split: Split,
    /// The index of this shard among the split's shards, from 0.
    pub shard: u32,
    /// The number of shards of the split.
    pub shards: u32,
    /// The number of images that were greyscale in the source.
    pub grey: u64,
    /// Images of the source that were left out of this shard.
    pub refused: Vec<Refused>,
    /// Images of this shard with a warning. Written only if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warned: Vec<Warned>,
    /// The classes, in label order.
    pub classes: Vec<Class>,
}

/// Parses a JSON text. Checks first that all of it is UTF-8: `serde_json` does not check the strings
/// of fields that it ignores, but other readers refuse the whole text.
pub(crate) fn from_json<T: DeserializeOwned>(json: &[u8]) -> std::result::Result<T, String> {
    let text = std::str::from_utf8(json).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Metadata {
    /// Parses the JSON text of a shard that holds `count` images.
    pub(crate) fn parse(json: &[u8], count: usize) -> Result<Self> {
        let wrong = |reason: String| Error::Metadata { reason };
        let metadata: Self = from_json(json).map_err(wrong)?;
        if metadata.shard >= metadata.shards {
            return Err(wrong(format!(
                "shard {} of {}: the index must be below the number of shards",
                metadata.shard, metadata.shards
            )));
        }
        if metadata.grey > count as u64 {
            return Err(wrong(format!("{} grey images of {count}", metadata.grey)));
        }
        Ok(metadata)
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(|error| Error::Metadata {
            reason: error.to_string(),
        })?;
        if json.len() as u64 > MAX_METADATA {
            return Err(Error::TooLarge {
                what: "the metadata",
                got: json.len() as u64,
                max: MAX_METADATA,
                remedy: "use fewer or shorter class names, or put fewer images into each shard \
                         so that each lists fewer refused ones",
            });
        }
        Ok(json)
    }
}
