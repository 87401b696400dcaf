//! A finished shard on disk, raw or compressed, as far as packing looks at it again.

use std::fs::File;
use std::path::Path;

use tinyres_format::transport::Expander;
use tinyres_format::{
    BLOCK_IMAGES, Manifest, Map, Metadata, Result, Shard, ShardEntry, SplitEntry, ZstdShard,
};

use crate::transport;

/// A shard in either form. Opening it has checked its header, metadata and the places of its sections.
pub(super) enum FinishedShard {
    Raw(Shard<Map>),
    Zstd(ZstdShard<File>),
}

/// Calls a function of a shard's bytes, in whichever form they are.
macro_rules! either {
    ($self:expr, $shard:ident => $call:expr) => {
        match $self {
            FinishedShard::Raw($shard) => $call,
            FinishedShard::Zstd($shard) => $call,
        }
    };
}

impl FinishedShard {
    pub fn open(path: &Path, zstd: bool) -> Result<Self> {
        if zstd {
            return transport::open(path).map(Self::Zstd);
        }
        #[expect(unsafe_code, reason = "only shards of an output directory are opened")]
        // SAFETY: tinyres never writes to a file that has the name of a shard: it renames finished
        // files over it. The help of `pack` asks that nobody else write to the output directory.
        let shard = unsafe { tinyres_format::map(path) };
        shard.map(Self::Raw)
    }

    pub fn metadata(&self) -> &Metadata {
        either!(self, shard => shard.metadata())
    }

    /// Class of each image, or -1.
    pub fn labels(&self) -> impl Iterator<Item = i64> {
        either!(self, shard => shard.labels())
            .iter()
            .map(|label| label.get())
    }

    /// Pixels of image `at`, `u8 [channels, height, width]`, compared with their checksum; `None` if there is no
    /// such image.
    pub fn image(&self, at: usize) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Raw(shard) => {
                shard.verify_block(Shard::<Map>::block_of(at))?;
                Ok(shard.image(at).map(<[u8]>::to_vec))
            }
            Self::Zstd(shard) => {
                let mut expander = Expander::new()?;
                let block = shard.expand_block(Shard::<Map>::block_of(at), &mut expander)?;
                let mut images = block.chunks_exact(shard.shape().image_len());
                Ok(images.nth(at % BLOCK_IMAGES).map(<[u8]>::to_vec))
            }
        }
    }

    /// The shard as a manifest lists it under the name `file`.
    pub fn entry(&self, file: String) -> ShardEntry {
        either!(self, shard => ShardEntry {
            file,
            images: shard.len() as u64,
            bytes: shard.bytes().len() as u64,
            digest: shard.digest(),
        })
    }

    /// Bytes of the compressed form; 0 for a raw shard.
    pub fn compressed_len(&self) -> u64 {
        match self {
            Self::Raw(_) => 0,
            Self::Zstd(shard) => shard.inner().compressed_len(),
        }
    }

    /// Checks that `manifest` lists this shard as shard `index` of `entry`.
    pub fn check(&self, manifest: &Manifest, entry: &SplitEntry, index: usize) -> Result<()> {
        either!(self, shard => manifest.check(entry, index, shard))
    }

    /// Compares labels, boxes, names and the checksums of the images with their checksums.
    pub fn verify_columns(&self) -> Result<()> {
        either!(self, shard => shard.verify_columns())
    }

    /// Compares every byte with its checksum.
    pub fn verify(&self) -> Result<()> {
        match self {
            Self::Raw(shard) => shard.verify(),
            Self::Zstd(shard) => {
                shard.verify_columns()?;
                let mut expander = Expander::new()?;
                (0..shard.blocks()).try_for_each(|block| {
                    shard.expand_block(block, &mut expander)?;
                    Ok(())
                })
            }
        }
    }
}
