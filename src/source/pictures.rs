//! Pictures that are no set: files of any names, and folders of them.

use std::path::{Path, PathBuf};

use super::dir::Dir;
use super::names::{is_picture, natural};
use super::{Error, Fault};

/// Folders are looked into this many levels down.
const DEEPEST: usize = 8;

/// The files in `folder`, and in the folders inside it up to eight levels down, whose names are those of
/// images (see the layout of class folders), folder by folder in natural order: `2.jpg` before `10.jpg`.
///
/// # Errors
/// A folder that cannot be listed.
pub fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    walk(folder, 0, &mut found)?;
    Ok(found)
}

fn walk(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let listed = Dir::new(path).list("");
    let listed = listed.and_then(|names| names.ok_or(Fault::Missing));
    let mut names = listed.map_err(|fault| Error::Read {
        file: path.display().to_string(),
        fault,
    })?;
    names.files.retain(|name| is_picture(name));
    names.files.sort_by(|a, b| natural(a, b));
    names.folders.sort_by(|a, b| natural(a, b));
    found.extend(names.files.iter().map(|name| path.join(name)));
    if depth < DEEPEST {
        for name in names.folders {
            walk(&path.join(name), depth + 1, found)?;
        }
    }
    Ok(())
}

/// Reads the file at `path` into `bytes`, in place of what is there.
///
/// # Errors
/// It cannot be read, or is longer than [`MAX_FILE`](super::MAX_FILE).
pub fn read(path: &Path, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    Dir::new(path).read("", bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_found_in_natural_order() {
        let dir = tempfile::tempdir().unwrap();
        for file in [
            "10.jpg",
            "2.JPEG",
            "notes.txt",
            ".hidden.jpg",
            "b/1.png",
            "b/c/0.webp",
            "a10/x.jpg",
            "a9/x.jpg",
        ] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        let found = in_folder(dir.path()).unwrap();
        let names: Vec<_> = (found.iter())
            .map(|path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap())
            .collect();
        let expected = [
            "2.JPEG",
            "10.jpg",
            "a9/x.jpg",
            "a10/x.jpg",
            "b/1.png",
            "b/c/0.webp",
        ];
        assert_eq!(names, expected);
        let mut bytes = Vec::new();
        read(&found[3], &mut bytes).unwrap();
        assert_eq!(bytes, b"a10/x.jpg");
        let absent = dir.path().join("absent");
        assert!(
            in_folder(&absent)
                .unwrap_err()
                .to_string()
                .contains("absent: no such file")
        );
        assert!(matches!(read(&absent, &mut bytes), Err(Fault::Missing)));
    }
}
