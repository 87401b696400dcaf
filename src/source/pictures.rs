//! Image files outside a data set, for `predict`: single files, and folders of any layout.

use std::path::{Path, PathBuf};

use super::dir::Dir;
use super::names::{is_picture, natural};
use super::{Error, ReadError};

/// Maximum depth of the folders that are searched.
const MAX_DEPTH: usize = 8;

/// The image files in `folder` and in the folders inside it, up to eight levels down. An extension marks
/// an image, as in the layout of class folders. The files of a folder come before its folders, both in
/// natural order: `2.jpg` before `10.jpg`.
///
/// # Errors
/// A folder cannot be listed.
pub fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    collect(folder, 0, &mut found)?;
    Ok(found)
}

fn collect(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let listed = Dir::new(path).list("");
    let listed = listed.and_then(|names| names.ok_or(ReadError::Missing));
    let mut names = listed.map_err(|reason| Error::Read {
        file: path.display().to_string(),
        reason,
    })?;
    names.files.retain(|name| is_picture(name));
    names.files.sort_by(|a, b| natural(a, b));
    names.folders.sort_by(|a, b| natural(a, b));
    found.extend(names.files.iter().map(|name| path.join(name)));
    if depth < MAX_DEPTH {
        for name in names.folders {
            collect(&path.join(name), depth + 1, found)?;
        }
    }
    Ok(())
}

/// Replaces `bytes` with the content of the file at `path`.
///
/// # Errors
/// The file cannot be read, or is longer than [`MAX_FILE`](super::MAX_FILE).
pub fn read(path: &Path, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    Dir::new(path).read("", bytes).map(drop)
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
        assert!(matches!(read(&absent, &mut bytes), Err(ReadError::Missing)));
    }
}
