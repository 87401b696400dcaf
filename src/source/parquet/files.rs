//! The Parquet files of a set, and the split that the name of each tells.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::dir::Dir;
use super::super::folder::{Folder, join};
use super::super::names::natural;
use super::super::{Error, Split};

const MAGIC: &[u8] = b"PAR1";

/// Folders that may hold the files, next to the root and folders that are called by a split: those of
/// the Hub's repositories and of its converted branches.
const FOLDERS: &[&str] = &["data", "default", "plain_text"];

/// The Parquet files at `path`, train first, each split in natural order. A file may have any name; in a
/// directory, files whose names tell no split are ignored. Empty if there are none.
pub(super) fn find(path: &Path) -> Result<Vec<(Split, PathBuf)>, Error> {
    if path.is_dir() {
        return find_in_directory(path);
    }
    let mut head = [0; MAGIC.len()];
    let is_parquet = File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok());
    if !is_parquet || head != *MAGIC {
        return Ok(Vec::new());
    }
    let split = path.file_stem().and_then(|stem| split_of(stem.to_str()?));
    Ok(vec![(split.unwrap_or(Split::Train), path.to_owned())])
}

fn find_in_directory(path: &Path) -> Result<Vec<(Split, PathBuf)>, Error> {
    let dir = Dir::new(path);
    let list = |folder: &str| dir.list(folder).ok().flatten().unwrap_or_default();
    let mut found: Vec<(Split, String)> = Vec::new();
    let mut add = |folder: &str, listed: &Folder| {
        for file in listed.files.iter().filter(|file| is_parquet(file)) {
            let parent = folder.rsplit('/').next().unwrap_or(folder);
            if let Some(split) = split_of(file).or_else(|| split_of(parent)) {
                found.push((split, join(folder, file)));
            }
        }
    };
    let root = list("");
    add("", &root);
    for folder in &root.folders {
        let is_group = FOLDERS.contains(&folder.as_str());
        if !is_group && split_of(folder).is_none() {
            continue;
        }
        let listed = list(folder);
        add(folder, &listed);
        if is_group {
            for split in listed
                .folders
                .iter()
                .filter(|name| split_of(name).is_some())
            {
                let inner = join(folder, split);
                add(&inner, &list(&inner));
            }
        }
    }
    found
        .sort_by(|(split, file), (other, name)| split.cmp(other).then_with(|| natural(file, name)));
    check_complete(path, &found)?;
    let files = found.into_iter();
    Ok(files
        .map(|(split, file)| (split, path.join(file)))
        .collect())
}

fn is_parquet(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| extension == "parquet")
}

/// The split whose name `name` begins with: a whole word, in any case.
fn split_of(name: &str) -> Option<Split> {
    let word = name
        .split(|character: char| !character.is_ascii_alphabetic())
        .next()?;
    match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" | "dev" => Some(Split::Val),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}

/// Checks that all files are there where names count them: `train-00000-of-00002.parquet`.
fn check_complete(path: &Path, found: &[(Split, String)]) -> Result<(), Error> {
    let mut counted: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for (_, file) in found {
        let Some((name, of)) = file.rsplit_once("-of-") else {
            continue;
        };
        let count = of.split(['.', '-']).next().and_then(|of| of.parse().ok());
        if let (Some(count), Some((name, _))) = (count, name.rsplit_once('-')) {
            *counted.entry((name, count)).or_default() += 1;
        }
    }
    for ((name, expected), got) in counted {
        if got != expected {
            return Err(Error::Table {
                path: path.to_owned(),
                reason: format!(
                    "{name}-*: {got} of {expected} Parquet files are there; download the others"
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_splits() {
        for (name, split) in [
            ("train-00000-of-00001.parquet", Some(Split::Train)),
            ("train.parquet", Some(Split::Train)),
            (
                "valid-00000-of-00001-70d52db3c749a935.parquet",
                Some(Split::Val),
            ),
            ("Validation_0.parquet", Some(Split::Val)),
            ("test", Some(Split::Test)),
            ("trainer.parquet", None),
            ("0000.parquet", None),
        ] {
            assert_eq!(split_of(name), split, "{name}");
        }
    }

    #[test]
    fn a_set_with_a_file_missing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for name in [
            "train-00000-of-00002-abc.parquet",
            "test-00000-of-00001.parquet",
            "notes.parquet",
        ] {
            std::fs::write(data.join(name), "").unwrap();
        }
        let error = find(dir.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("data/train-*: 1 of 2 Parquet files are there; download the others"),
            "{error}"
        );
        std::fs::write(data.join("train-00001-of-00002-def.parquet"), "").unwrap();
        let found = find(dir.path()).unwrap();
        let splits: Vec<_> = found.iter().map(|(split, _)| *split).collect();
        assert_eq!(splits, [Split::Train, Split::Train, Split::Test]);
    }
}
