//! Images as raw pixels, one after the other in a file: CIFAR. A row is handed out as a PAM, which the
//! decoder reads as any other encoded image. Files are read by position, so threads share them without
//! a lock, and no row stays in memory.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::{ReadError, Stamp};

/// Blocks of images of a source, in the order of their rows.
#[derive(Debug)]
pub(super) struct Raw {
    pub path: PathBuf,
    pub blocks: Vec<Block>,
}

/// Rows of one file.
#[derive(Debug)]
pub(super) struct Block {
    /// The path as messages show it.
    pub shown: String,
    pub stamp: Stamp,
    pub file: Arc<File>,
    /// Offset of the first row's pixels.
    pub start: u64,
    /// Bytes from one row's pixels to those of the next.
    pub stride: u64,
    /// The number of rows in all blocks before this one.
    pub first: usize,
    pub layout: Layout,
}

/// How the pixels of one image lie, one byte a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub height: usize,
    pub width: usize,
    /// 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// Each channel as a whole, one after the other.
    pub planar: bool,
}

impl Layout {
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }
}

/// Memory of one thread.
#[derive(Debug, Default)]
pub(super) struct RawBuffer {
    row: Vec<u8>,
    encoded: Vec<u8>,
}

impl Raw {
    /// The image of row `row`, counted over all blocks.
    pub fn read<'a>(&self, row: usize, buffer: &'a mut RawBuffer) -> Result<&'a [u8], ReadError> {
        let block = self.block_of(row);
        let at = block.start + block.stride * (row - block.first) as u64;
        let Layout {
            height,
            width,
            channels,
            planar,
        } = block.layout;
        let RawBuffer { row, encoded } = buffer;
        encoded.clear();
        write!(
            encoded,
            "P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL 255\nENDHDR\n"
        )
        .map_err(ReadError::Io)?;
        row.resize(block.layout.len(), 0);
        block.file.read_exact_at(row, at).map_err(ReadError::Io)?;
        if planar && channels == 3 {
            let (red, rest) = row.split_at(height * width);
            let (green, blue) = rest.split_at(height * width);
            let pixels = red.iter().zip(green).zip(blue);
            encoded.extend(pixels.flat_map(|((&red, &green), &blue)| [red, green, blue]));
        } else {
            encoded.extend_from_slice(row);
        }
        Ok(encoded)
    }

    pub fn stamp(&self, row: usize) -> Stamp {
        self.block_of(row).stamp
    }

    pub fn display_row(&self, row: usize) -> String {
        let block = self.block_of(row);
        format!("{}: row {}", block.shown, row - block.first)
    }

    fn block_of(&self, row: usize) -> &Block {
        let at = self.blocks.partition_point(|block| block.first <= row);
        &self.blocks[at - 1]
    }
}
