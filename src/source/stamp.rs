//! Identity and times of a file, by which a later run tells that its bytes are still the same.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Coarsest step, in seconds, of the file times of common file systems (FAT has 2).
const COARSEST: i64 = 2;

/// Identity, length and times of a file at one moment. Times are in seconds and nanoseconds.
///
/// The change time is set by the system whenever a file is written to, renamed, or given another
/// modification time; no program can set it back. If a stamp is [settled](Self::is_settled) and the file
/// has an equal one later, all bytes read in between were the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: [i64; 2],
    changed: [i64; 2],
    settled: bool,
}

impl Stamp {
    /// Stamp of the file that `metadata` was just read of.
    pub(super) fn of(metadata: &Metadata) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs().cast_signed());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: [metadata.mtime(), metadata.mtime_nsec()],
            changed: [metadata.ctime(), metadata.ctime_nsec()],
            settled: now - metadata.ctime() > COARSEST,
        }
    }

    /// Stamp of the file or directory at `path`.
    pub(crate) fn of_file(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::metadata(path)?))
    }

    /// The same stamp for every number that the device may have.
    pub(crate) fn without_device(self) -> Self {
        Self { device: 0, ..self }
    }

    /// True if the last change was long enough before the stamp that another one would get another
    /// change time.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// True if the file was changed after `other` was last written to.
    #[must_use]
    pub fn is_newer_than(&self, other: &Metadata) -> bool {
        self.changed > [other.mtime(), other.mtime_nsec()]
    }

    /// Bytes that differ for every two stamps that differ.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 56] {
        let [modified, modified_nanos] = self.modified.map(i64::cast_unsigned);
        let [changed, changed_nanos] = self.changed.map(i64::cast_unsigned);
        let fields = [
            self.device,
            self.inode,
            self.len,
            modified,
            modified_nanos,
            changed,
            changed_nanos,
        ];
        let mut bytes = [0; 56];
        for (field, to) in fields.into_iter().zip(bytes.chunks_exact_mut(8)) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }
}
