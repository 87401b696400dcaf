//! Expansion of one strip or tile of a TIFF to rows of samples, as libtiff does it for Pillow.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::ZlibDecoder;
use turbojpeg::PixelFormat;
use weezl::{BitOrder, LzwStatus, decode};

use super::super::ImageError;
use super::super::error::{broken, cut};
use super::super::jpeg;
use super::fax::{self, Rows};

/// How strips and tiles are compressed.
#[derive(Clone, Copy)]
pub(super) enum Compression {
    None,
    Fax(Rows),
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
    Zstd,
}

impl Compression {
    /// The compression of that number (TIFF 6.0; Adobe's and libtiff's numbers), with the tag T4Options. `None` for
    /// those that are not read.
    pub fn new(number: u64, t4_options: u64) -> Option<Self> {
        Some(match number {
            1 => Self::None,
            2 => Self::Fax(Rows::Bytes),
            3 => Self::Fax(Rows::Group3 {
                mixed: t4_options & 1 == 1,
            }),
            4 => Self::Fax(Rows::Group4),
            5 => Self::Lzw,
            7 => Self::Jpeg,
            8 | 32946 => Self::Deflate,
            32773 => Self::PackBits,
            50000 => Self::Zstd,
            _ => return None,
        })
    }

    /// True if samples may be stored as differences to those on their left.
    pub fn predicts(self) -> bool {
        matches!(self, Self::Lzw | Self::Deflate | Self::Zstd)
    }
}

/// A strip or tile, and what its rows have to be.
pub(super) struct Chunk<'a> {
    pub data: &'a [u8],
    /// Pixels in a row, and rows.
    pub size: [usize; 2],
    /// Rows that the image needs of it.
    pub height: usize,
    /// Bytes of a row.
    pub stride: usize,
    /// Bytes that the image needs of a row.
    pub used: usize,
    /// Channels of a JPEG.
    pub samples: usize,
    /// The channels of a JPEG are YCbCr, and not RGB.
    pub ycbcr: bool,
    /// Tables that all JPEGs of the file share.
    pub jpeg_tables: Option<&'a [u8]>,
}

impl<'a> Chunk<'a> {
    /// The rows. Nothing is allocated before the data is there to fill it.
    pub fn expand(&self, compression: Compression) -> Result<Cow<'a, [u8]>, ImageError> {
        let wanted = self.stride * self.height;
        let rows = match compression {
            Compression::None => Cow::Borrowed(self.data),
            Compression::Fax(rows) => {
                Cow::Owned(fax::expand(self.data, rows, self.size[0], self.height)?)
            }
            Compression::Lzw => Cow::Owned(lzw(self.data, wanted)?),
            Compression::Jpeg => Cow::Owned(self.jpeg()?),
            Compression::Deflate => Cow::Owned(read(ZlibDecoder::new(self.data), wanted)?),
            Compression::PackBits => Cow::Owned(pack_bits(self.data, wanted)),
            Compression::Zstd => {
                let reader = zstd::Decoder::new(self.data).map_err(|_| cut())?;
                Cow::Owned(read(reader, wanted)?)
            }
        };
        let least = match compression {
            // Pillow does not read what follows the last pixel.
            Compression::None => wanted - self.stride + self.used,
            _ => wanted,
        };
        match rows.len() {
            len if len < least => Err(cut()),
            _ => Ok(rows),
        }
    }

    /// Decodes a JPEG, which may lack the tables that the file has once for all.
    fn jpeg(&self) -> Result<Vec<u8>, ImageError> {
        let (format, transform) = match (self.samples, self.ycbcr) {
            (1, _) => (PixelFormat::GRAY, 0),
            (3, ycbcr) => (PixelFormat::RGB, u8::from(ycbcr)),
            (4, false) => (PixelFormat::CMYK, 0),
            _ => return Err(broken("TIFF with JPEGs of unusual channels")),
        };
        let data = self.data.strip_prefix(&[0xff, 0xd8]).ok_or_else(cut)?;
        let tables = self
            .jpeg_tables
            .and_then(|tables| tables.strip_prefix(&[0xff, 0xd8]));
        let tables = tables.map_or(&[][..], |tables| {
            tables.strip_suffix(&[0xff, 0xd9]).unwrap_or(tables)
        });
        // Adobe's marker states the colours, which in a TIFF are the directory's matter.
        let adobe = [
            &[0xff, 0xd8, 0xff, 0xee, 0, 14][..],
            b"Adobe\0\x64\0\0\0\0",
            &[transform],
        ];
        let whole = [&adobe.concat(), tables, data].concat();
        jpeg::decode_part(&whole, format, self.size)
    }
}

/// Reads up to `wanted` bytes.
fn read(reader: impl Read, wanted: usize) -> Result<Vec<u8>, ImageError> {
    let mut found = Vec::new();
    let mut reader = reader.take(wanted as u64);
    reader.read_to_end(&mut found).map_err(|_| cut())?;
    Ok(found)
}

/// Expands PackBits (TIFF 6.0, section 9), up to `wanted` bytes.
fn pack_bits(mut packed: &[u8], wanted: usize) -> Vec<u8> {
    let mut found = Vec::new();
    while found.len() < wanted
        && let Some((&count, rest)) = packed.split_first()
    {
        packed = match (count, rest.first()) {
            (..128, _) => {
                let (plain, rest) = rest.split_at(rest.len().min(usize::from(count) + 1));
                found.extend(plain);
                rest
            }
            (128, _) => rest,
            (_, Some(&byte)) => {
                found.extend(std::iter::repeat_n(byte, 257 - usize::from(count)));
                &rest[1..]
            }
            (_, None) => rest,
        };
    }
    found
}

/// Expands LZW (TIFF 6.0, section 13), up to `wanted` bytes. The first writers had the bits of a byte the other way
/// round, and codes that grow one later; libtiff tells them by the first code.
fn lzw(packed: &[u8], wanted: usize) -> Result<Vec<u8>, ImageError> {
    const STEP: usize = 1 << 16;
    let mut decoder = match packed {
        [0, odd, ..] if odd & 1 == 1 => decode::Decoder::new(BitOrder::Lsb, 8),
        _ => decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8),
    };
    let (mut found, mut rest) = (Vec::new(), packed);
    while found.len() < wanted {
        let begin = found.len();
        found.resize(wanted.min(begin + STEP), 0);
        let done = decoder.decode_bytes(rest, &mut found[begin..]);
        found.truncate(begin + done.consumed_out);
        rest = &rest[done.consumed_in..];
        match done.status {
            Ok(LzwStatus::Ok) => {}
            Ok(LzwStatus::Done | LzwStatus::NoProgress) => break,
            Err(_) => return Err(broken("TIFF with a code that stands for nothing")),
        }
    }
    Ok(found)
}
