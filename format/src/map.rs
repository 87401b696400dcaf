//! Read-only maps of files, and a hook through which a program learns where each one lies.
//!
//! The module installs no signal handler: what happens after a fault in a map is the program's
//! decision, and the hook gives it what it needs.

use std::any::Any;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::OnceLock;

use memmap2::{Mmap, MmapOptions};

/// A file mapped into memory for reading.
///
/// If the disk fails or the file is cut after it was mapped, touching a missing page raises SIGBUS,
/// which ends the program unless it handles that signal. [`set_map_hook`] helps it do so.
#[derive(Debug)]
pub struct Map {
    // Field order is drop order: the guard goes first, while the address range is still ours.
    _guard: Option<MapGuard>,
    bytes: Mmap,
}

impl Map {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// Those of the operating system.
    ///
    /// # Safety
    /// Nobody may write to or truncate the file while the map lives.
    #[expect(unsafe_code, reason = "only the caller can keep others off the file")]
    pub unsafe fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: a map asks that the file not change under it; our caller promises it.
        let bytes = unsafe { map(&file)? };
        let range = bytes.as_ptr_range();
        let addresses = range.start.addr()..range.end.addr();
        Ok(Self {
            _guard: HOOK.get().map(|hook| hook(addresses, path)),
            bytes,
        })
    }
}

/// Maps `file` shared, or private where its file system refuses that, such as FUSE with `direct_io`. To a
/// reader they are equal: a private map differs only in what becomes of writes.
///
/// # Safety
/// Maps the file, on the condition of [`Map::open`].
#[expect(unsafe_code, reason = "only the caller can keep others off the file")]
unsafe fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the caller keeps the promise.
    let (shared, private) = unsafe {
        match Mmap::map(file) {
            Err(error) => (error, MmapOptions::new().map_copy_read_only(file)),
            shared => return shared,
        }
    };
    private.map_err(|_| match shared.raw_os_error() {
        Some(libc::ENODEV) => io::Error::new(
            io::ErrorKind::Unsupported,
            "its file system cannot map files into memory: copy the set to another disk",
        ),
        _ => shared,
    })
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Map {
    type Target = Mmap;

    fn deref(&self) -> &Mmap {
        &self.bytes
    }
}

/// A value that a [`MapHook`] returns. The map drops it just before it unmaps the file.
pub type MapGuard = Box<dyn Any + Send + Sync>;

/// A function that is called with the addresses and the path of each new [`Map`].
pub type MapHook = fn(Range<usize>, &Path) -> MapGuard;

static HOOK: OnceLock<MapHook> = OnceLock::new();

/// Calls `hook` for every [`Map`] that is opened from now on, anywhere in the process.
///
/// For programs, at their start. The first call decides: later ones change nothing and return
/// `false`.
pub fn set_map_hook(hook: MapHook) -> bool {
    HOOK.set(hook).is_ok()
}
