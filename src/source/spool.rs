//! Decompressed bytes in a temporary file that has no name: what lies inside a compressed archive can
//! then be read at any place, by any number of threads. The file vanishes with the process.
//!
//! Memory stays bounded: bytes go to the file as they are decompressed. The disk needs room for all of
//! them. The folder is `TMPDIR`, or `/var/tmp`, since `/tmp` is memory on many machines.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::inflate::{damage, decoder};
use super::{Error, TemporaryError};

/// Maximum bytes that any file may decompress to, and for longer files, how many times their length.
/// JPEGs do not shrink, and raw pixels shrink to a tenth at best; a forged file could fill the disk.
const MAX_SMALL: u64 = 1 << 30;
const MAX_GROWTH: u64 = 100;

/// Compressed forms of one stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// The form of a file that begins with `head`.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Decompresses all of `file`, which lies at `path`, to a temporary file.
    pub fn expand(self, path: &Path, file: &File) -> Result<File, Error> {
        let failed = |error| {
            let path = path.to_owned();
            match damage(error) {
                Ok(reason) => Error::Damaged {
                    path,
                    form: self.name(),
                    reason,
                },
                Err(reason) => Error::Open { path, reason },
            }
        };
        let len = file.metadata().map_err(failed)?.len();
        let reader = BufReader::with_capacity(1 << 16, file);
        match self {
            Self::Gzip => spool(Gzip::new(reader).map_err(failed)?, len, failed),
            Self::Zstd => {
                let zstd = decoder(|| zstd::Decoder::with_buffer(reader)).flatten();
                spool(zstd.map_err(failed)?, len, failed)
            }
        }
    }
}

/// Writes all bytes of `plain`, which is decompressed from `len` bytes, to a temporary file. `failed`
/// makes an error of one of `plain`.
pub(super) fn spool<E: From<TemporaryError>>(
    mut plain: impl Read,
    len: u64,
    failed: impl Fn(io::Error) -> E,
) -> Result<File, E> {
    let folder = folder();
    let full = |reason| TemporaryError {
        folder: folder.clone(),
        reason,
    };
    let mut file = tempfile::tempfile_in(&folder).map_err(full)?;
    let most = len.saturating_mul(MAX_GROWTH).max(MAX_SMALL);
    let mut left = most;
    let mut bytes = vec![0; 1 << 18];
    loop {
        let read = match plain.read(&mut bytes) {
            Ok(0) => return Ok(file),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        left = left.checked_sub(read as u64).ok_or_else(|| {
            let reason = format!("{len} bytes expand to more than {most}");
            failed(io::Error::new(io::ErrorKind::InvalidData, reason))
        })?;
        file.write_all(&bytes[..read]).map_err(full)?;
    }
}

/// The folder for temporary files of any length.
pub(super) fn folder() -> PathBuf {
    let large = PathBuf::from("/var/tmp");
    match env::var_os("TMPDIR") {
        None if large.is_dir() => large,
        _ => env::temp_dir(),
    }
}

/// All members of a gzip file, one after the other. As gunzip does, ignores zeros at the end.
struct Gzip<R> {
    /// `None` after the last member.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gzip<R> {
    fn new(reader: R) -> io::Result<Self> {
        let member = Some(decoder(|| GzDecoder::new(reader))?);
        Ok(Self { member })
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(bytes)?;
            if read > 0 {
                return Ok(read);
            }
            let Some(mut reader) = self.member.take().map(GzDecoder::into_inner) else {
                break;
            };
            loop {
                let ahead = reader.fill_buf()?;
                let zeros = ahead.iter().take_while(|&&byte| byte == 0).count();
                let (all, len) = (zeros == ahead.len(), ahead.len());
                reader.consume(zeros);
                match (all, len) {
                    (true, 0) => return Ok(0),
                    (true, _) => {}
                    (false, _) => break,
                }
            }
            self.member = Some(decoder(|| GzDecoder::new(reader))?);
        }
        Ok(0)
    }
}
