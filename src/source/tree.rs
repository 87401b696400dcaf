use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::dir::Dir;
use super::tar::Tar;
use super::window::Window;
use super::zip::Zip;
use super::{Error, Fault, Problem, Problems, Stamp};

/// Named bytes in folders, in a directory, a zip or a tar. Paths are relative to the tree's root,
/// separated by `/`; the root's own is empty.
#[derive(Debug)]
pub(super) enum Tree {
    Dir(Dir),
    Zip(Zip),
    Tar(Tar),
}

/// What files are read to, one after the other.
#[derive(Debug, Default)]
pub(super) struct Memory {
    window: Window,
    pub(super) bytes: Vec<u8>,
}

/// How compressed files begin that may hold a tar, and what turns them into it.
const COMPRESSED: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "gunzip"),
    (b"BZh", "bunzip2"),
    (b"\xfd7zXZ\0", "unxz"),
    (b"\x28\xb5\x2f\xfd", "unzstd"),
];

/// The names in a folder, sorted, without what file managers leave behind.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub folders: Vec<String>,
    pub files: Vec<String>,
}

impl Folder {
    pub fn has_folder(&self, name: &str) -> bool {
        self.folders
            .binary_search_by(|known| known.as_str().cmp(name))
            .is_ok()
    }

    pub fn has_file(&self, name: &str) -> bool {
        self.files
            .binary_search_by(|known| known.as_str().cmp(name))
            .is_ok()
    }
}

impl Tree {
    pub fn open(path: &Path, problems: &mut Problems<Problem>) -> Result<Self, Error> {
        let open = |reason| Error::Open {
            path: path.to_owned(),
            reason,
        };
        if fs::metadata(path).map_err(open)?.is_dir() {
            // Listed once here, so that a directory that may not be read is reported as such.
            fs::read_dir(path).map_err(open)?;
            return Ok(Self::Dir(Dir::new(path)));
        }
        // What a file is called is not always what it is.
        let mut head = Vec::new();
        let file = File::open(path).map_err(open)?;
        file.take(512).read_to_end(&mut head).map_err(open)?;
        if let Some((_, unpack)) = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Err(Error::Compressed {
                path: path.to_owned(),
                unpack,
            });
        }
        let named = |extension| path.extension().is_some_and(|it| it == extension);
        if Tar::is_one(&head) || named("tar") {
            Tar::open(path, problems).map(Self::Tar)
        } else {
            Zip::open(path, problems).map(Self::Zip)
        }
    }

    /// The names in `folder`, or none where there is no such folder.
    pub fn list(&self, folder: &str) -> Result<Option<Folder>, Fault> {
        match self {
            Self::Dir(dir) => dir.list(folder),
            Self::Zip(zip) => Ok(zip.index.list(folder)),
            Self::Tar(tar) => Ok(tar.index.list(folder)),
        }
    }

    /// The place of `file` in an archive, for [`read_at`](Self::read_at); in a directory its name
    /// alone counts. Finds what is known about it without reading it and would keep it from being read.
    pub fn place(&self, file: &str) -> Result<usize, Fault> {
        let missing = Fault::Missing;
        match self {
            Self::Dir(_) => Ok(0),
            Self::Zip(zip) => {
                let place = zip.index.find(file).ok_or(missing)?;
                zip.entry(place).map(|_| place)
            }
            Self::Tar(tar) => {
                let place = tar.index.find(file).ok_or(missing)?;
                tar.entry(place).map(|_| place)
            }
        }
    }

    /// The bytes of `file`.
    pub fn read(&self, file: &str) -> Result<Vec<u8>, Fault> {
        let mut memory = Memory::default();
        let bytes = self.read_at(file, self.place(file)?, &mut memory)?;
        Ok(bytes.to_owned())
    }

    /// The bytes of `file`, whose place is known.
    pub fn read_at<'a>(
        &self,
        file: &str,
        place: usize,
        memory: &'a mut Memory,
    ) -> Result<&'a [u8], Fault> {
        let Memory { window, bytes } = memory;
        match self {
            Self::Dir(dir) => dir.read(file, bytes).map(|()| &**bytes),
            Self::Zip(zip) => zip.read(place, window, bytes),
            Self::Tar(tar) => tar.read(place, window),
        }
    }

    /// Reads the files at `places` to `memory`, where that costs less than to read each by itself.
    pub fn load(&self, places: impl Iterator<Item = usize>, memory: &mut Memory) {
        match self {
            Self::Dir(_) => {}
            Self::Zip(zip) => zip.load(places, &mut memory.window),
            Self::Tar(tar) => tar.load(places, &mut memory.window),
        }
    }

    /// Stamp of `file` now, or of the archive as it was opened.
    pub fn stamp(&self, file: &str) -> io::Result<Stamp> {
        match self {
            Self::Dir(dir) => Ok(Stamp::of(&fs::metadata(dir.path(file))?)),
            Self::Zip(zip) => Ok(zip.stamp),
            Self::Tar(tar) => Ok(tar.stamp),
        }
    }

    /// Where `file` lies, for people.
    pub fn show(&self, file: &str) -> String {
        let (path, inside) = match self {
            Self::Dir(dir) => return dir.path(file).display().to_string(),
            Self::Zip(zip) => (&zip.path, zip.index.path(file)),
            Self::Tar(tar) => (&tar.path, tar.index.path(file)),
        };
        match inside.as_str() {
            "" => path.display().to_string(),
            inside => format!("{}: {inside}", path.display()),
        }
    }

    /// The folders nearest to the root that `is_root` takes for one, by path and content: anywhere
    /// in an archive, but in a directory, which may be a whole disk, at most one level down.
    pub fn find(&self, is_root: impl Fn(&str, &Folder) -> bool) -> Vec<String> {
        let mut level = vec![String::new()];
        let mut depth = match self {
            Self::Dir(_) => 1,
            Self::Zip(_) | Self::Tar(_) => usize::MAX,
        };
        loop {
            // A folder that cannot be listed is none of ours.
            let listed = level.into_iter().filter_map(|path| {
                let folder = self.list(&path).ok()??;
                Some((path, folder))
            });
            let (roots, others): (Vec<_>, Vec<_>) =
                listed.partition(|(path, folder)| is_root(path, folder));
            if !roots.is_empty() || depth == 0 || others.is_empty() {
                return roots.into_iter().map(|(path, _)| path).collect();
            }
            depth -= 1;
            let inside = |(path, folder): (String, Folder)| {
                folder
                    .folders
                    .into_iter()
                    .map(move |name| join(&path, &name))
            };
            level = others.into_iter().flat_map(inside).collect();
        }
    }

    /// Makes `folder` the root.
    pub fn enter(&mut self, folder: &str) {
        match self {
            Self::Dir(dir) => dir.enter(folder),
            Self::Zip(zip) => zip.index.enter(folder),
            Self::Tar(tar) => tar.index.enter(folder),
        }
    }

    /// Where [`find`](Self::find) looks.
    pub fn reach(&self) -> &'static str {
        match self {
            Self::Dir(_) => "in the directory or one level down",
            Self::Zip(_) => "anywhere in the zip",
            Self::Tar(_) => "anywhere in the tar",
        }
    }
}

/// The path of `name` in `folder`.
pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() || name.is_empty() {
        format!("{folder}{name}")
    } else {
        format!("{folder}/{name}")
    }
}
