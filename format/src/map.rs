//! Read-only maps of files, one by one or side by side, and a hook through which a program learns where each one lies.
//!
//! The module installs no signal handler: what happens after a fault in a map is the program's
//! decision, and the hook gives it what it needs.

use std::any::Any;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;

use memmap2::{Mmap, MmapMut, MmapOptions};

use crate::{Error, Result};

/// A file mapped into memory for reading.
///
/// If the disk fails or the file is cut after it was mapped, touching a missing page raises SIGBUS,
/// which ends the program unless it handles that signal. [`set_map_hook`] helps it do so.
#[derive(Debug)]
pub struct Map {
    // Field order is drop order: the guard goes first, while the address range is still ours.
    _guard: Option<MapGuard>,
    bytes: Mmap,
    file: Identity,
}

/// Device and inode of a file.
type Identity = (u64, u64);

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
        let identity = identity(&file)?;
        // SAFETY: a map asks that the file not change under it; our caller promises it.
        let bytes = unsafe { map(&file)? };
        let range = bytes.as_ptr_range();
        let addresses = range.start.addr()..range.end.addr();
        Ok(Self {
            _guard: HOOK.get().map(|hook| hook(addresses, path)),
            bytes,
            file: identity,
        })
    }
}

fn identity(file: &File) -> io::Result<Identity> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
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

/// Parts of several mapped files, side by side in memory: one slice over all of them. Nothing is copied; these are
/// further maps of the same files.
///
/// A fault in it is like one in a [`Map`], and the hook is told of each part.
#[derive(Debug)]
pub struct Region<M = Mmap> {
    // The order of the fields of `Map`, for the same reason.
    _guards: Vec<MapGuard>,
    bytes: M,
}

/// A part of a mapped file, for a [`Region`].
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// A map of the file.
    pub map: &'a Map,
    /// Path of the file when it was mapped.
    pub path: &'a Path,
    /// The bytes of the file.
    pub range: Range<usize>,
}

impl Region {
    /// Maps the pieces one behind the other. Empty ones take no room.
    ///
    /// # Errors
    /// [`Error::Apart`] if a piece does not begin on a page of memory, or does not end on one and others follow;
    /// [`Error::Replaced`] if another file is at its path by now; and those of the operating system.
    ///
    /// # Safety
    /// Nobody may write to or truncate the files while the region lives.
    #[expect(unsafe_code, reason = "only the caller can keep others off the files")]
    pub unsafe fn open(pieces: &[Piece<'_>]) -> Result<Self> {
        // SAFETY: the caller keeps others off the files.
        let Region { _guards, bytes } = unsafe { Region::lay(pieces, false)? };
        let bytes = bytes.make_read_only()?;
        Ok(Self { _guards, bytes })
    }
}

impl Region<MmapMut> {
    /// Maps the pieces like [`Region::open`], but so that they can be written to: the kernel copies a page that is, and
    /// neither the file nor any other map of it changes.
    ///
    /// # Errors
    /// Those of [`Region::open`].
    ///
    /// # Safety
    /// The rule is that of [`Region::open`].
    #[expect(unsafe_code, reason = "only the caller can keep others off the files")]
    pub unsafe fn open_private(pieces: &[Piece<'_>]) -> Result<Self> {
        // SAFETY: the caller keeps others off the files.
        unsafe { Self::lay(pieces, true) }
    }

    /// Maps the pieces, writable only if `private`.
    ///
    /// # Safety
    /// Nobody may write to or truncate the files while the region lives. Unless `private`, nobody may write to it.
    #[expect(unsafe_code, reason = "only the caller can keep others off the files")]
    unsafe fn lay(pieces: &[Piece<'_>], private: bool) -> Result<Self> {
        let len = pieces.iter().map(|piece| piece.range.len()).sum();
        let page = page();
        // Takes the addresses, which no other thread can be given from then on. They come back to the system together
        // when this is dropped, whatever has been mapped there.
        let room = MmapOptions::new().len(len).no_reserve_swap().map_anon()?;
        let start = room.as_ptr().addr();
        let (mut at, mut guards) = (0, Vec::new());
        for piece in pieces.iter().filter(|piece| !piece.range.is_empty()) {
            let (bytes, end) = (piece.range.len(), at + piece.range.len());
            if !piece.range.start.is_multiple_of(page) || !(end == len || end.is_multiple_of(page))
            {
                return Err(Error::Apart {
                    bytes: bytes as u64,
                    page: page as u64,
                }
                .at(piece.path));
            }
            // SAFETY: `at` is a whole number of pages, since those before it are; with `bytes` it stays inside `room`,
            // of which no reference exists. The caller keeps others off the file.
            unsafe { place(piece, room.as_ptr().wrapping_add(at), private) }
                .map_err(|error| error.at(piece.path))?;
            let addresses = start + at..start + end;
            guards.extend(HOOK.get().map(|hook| hook(addresses, piece.path)));
            at = end;
        }
        Ok(Self {
            _guards: guards,
            bytes: room,
        })
    }
}

/// Maps a piece to `address`, in place of what is there.
///
/// # Safety
/// `address` is that of a page. The pages of the piece from there on belong to the caller, who has no reference to them.
/// The file does not change.
#[expect(unsafe_code, reason = "a map at an address that the caller has")]
unsafe fn place(piece: &Piece<'_>, address: *const u8, private: bool) -> Result<()> {
    let file = File::open(piece.path)?;
    let offset = libc::off_t::try_from(piece.range.start);
    let (true, Ok(offset)) = (identity(&file)? == piece.map.file, offset) else {
        return Err(Error::Replaced);
    };
    let attempt = |access: libc::c_int, sharing: libc::c_int| {
        // SAFETY: the kernel replaces whole pages from `address` on, which the caller says are its own. It checks the
        // offset and the descriptor, which is open.
        let placed = unsafe {
            let flags = sharing | libc::MAP_FIXED;
            libc::mmap(
                address.cast_mut().cast(),
                piece.range.len(),
                access,
                flags,
                file.as_raw_fd(),
                offset,
            )
        };
        if placed == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    if private {
        return Ok(attempt(
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE,
        )?);
    }
    let shared = attempt(libc::PROT_READ, libc::MAP_SHARED);
    // Not every file system allows a shared map, as `map` says.
    match shared {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Ok(attempt(libc::PROT_READ, libc::MAP_PRIVATE)?)
        }
        done => Ok(done?),
    }
}

/// Bytes of a page of memory.
fn page() -> usize {
    #[expect(unsafe_code, reason = "the system is asked for a number")]
    // SAFETY: the call reads nothing of ours.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(crate::PAGE)
}

impl<M: Deref<Target = [u8]>> Deref for Region<M> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Region<MmapMut> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
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

/// A function that is called with the addresses and the path of each new [`Map`], and of each piece of a [`Region`].
pub type MapHook = fn(Range<usize>, &Path) -> MapGuard;

static HOOK: OnceLock<MapHook> = OnceLock::new();

/// Calls `hook` for every [`Map`] and every piece of a [`Region`] that is opened from now on, anywhere in the process.
///
/// For programs, at their start. The first call decides: later ones change nothing and return
/// `false`.
pub fn set_map_hook(hook: MapHook) -> bool {
    HOOK.set(hook).is_ok()
}
