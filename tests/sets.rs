//! Directories that hold another set than they say, and shards that change once they are open.

#[path = "common/sets.rs"]
mod sets;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use sets::{CORRUPTIONS, SPEC, SetSpec, write};
use tinyres_format::Split;
use tinyres_load::{Dataset, Result, Verify};

#[expect(unsafe_code, reason = "what is not cut causes no fault")]
fn open(dir: &Path) -> Result<Dataset> {
    // SAFETY: not kept in one test, which checks the bytes read and nothing else.
    unsafe { Dataset::open(dir, Split::Train, Verify::Lazy) }
}

fn inspect(dir: &Path) -> Output {
    let mut inspect = Command::new(assert_cmd::cargo::cargo_bin("tinyres"));
    inspect.arg("inspect").arg(dir).output().unwrap()
}

fn set() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    fs::create_dir(&set).unwrap();
    write(&set, SPEC);
    (dir, set)
}

#[test]
fn wrong_sets_are_refused_before_the_first_batch() {
    for wrong in CORRUPTIONS {
        let (_dir, set) = set();
        assert!(open(&set).is_ok() && inspect(&set).status.success());
        (wrong.make)(&set);
        let error = open(&set).unwrap_err().to_string();
        assert!(error.contains(wrong.says), "{}: {error}", wrong.name);
        assert!(error.starts_with(&*set.to_string_lossy()), "{error}");

        let output = inspect(&set);
        assert_eq!(output.status.code(), Some(1), "{}: {output:?}", wrong.name);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        let expected = wrong.inspect.unwrap_or(wrong.says);
        assert!(said.contains(expected), "{}: {said}", wrong.name);
    }
}

/// What is not listed is no part of the set: it is opened as it was packed, and `inspect` tells.
#[test]
fn a_leftover_is_no_part_of_the_set() {
    let (_dir, set) = set();
    fs::copy(set.join("train-00001.bin"), set.join("train-00002.bin")).unwrap();
    assert_eq!(open(&set).unwrap().len(), 100);
    let output = inspect(&set);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("train-00002.bin: not in dataset.json: a leftover"),
        "{said}"
    );
}

fn pixels(data: &Dataset) -> Result<Vec<u8>> {
    let mut pixels = vec![0; data.len() as usize * data.shape().image_len()];
    let images: Vec<u32> = (0..data.len()).collect();
    data.gather(&images, &mut pixels)?;
    Ok(pixels)
}

#[test]
fn a_set_replaced_or_removed_while_it_is_open_stays_as_it_was() {
    let (dir, set) = set();
    let expected = pixels(&open(&set).unwrap()).unwrap();
    let data = open(&set).unwrap();
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    write(&other, SetSpec { salt: 9, ..SPEC });
    for file in fs::read_dir(&other).unwrap() {
        let file = file.unwrap();
        fs::rename(file.path(), set.join(file.file_name())).unwrap();
    }
    assert!(pixels(&data).unwrap() == expected);
    assert!(pixels(&open(&set).unwrap()).unwrap() != expected);

    let data = open(&set).unwrap();
    let expected = pixels(&data).unwrap();
    let data = open(&set).unwrap();
    fs::remove_dir_all(&set).unwrap();
    assert!(pixels(&data).unwrap() == expected);
}

#[test]
fn a_shard_that_grows_while_it_is_open_stays_as_it_was() {
    let (_dir, set) = set();
    let expected = pixels(&open(&set).unwrap()).unwrap();
    let data = open(&set).unwrap();
    let mut file = File::options()
        .append(true)
        .open(set.join("train-00001.bin"))
        .unwrap();
    file.write_all(&[1; 10_000]).unwrap();
    assert!(pixels(&data).unwrap() == expected);
    let error = open(&set).unwrap_err().to_string();
    assert!(error.contains("train-00001.bin: file is"), "{error}");
}

/// Against the rule of the map: bytes that change before they are read fail their checksum.
#[test]
fn a_shard_written_to_while_it_is_open_is_found_out() {
    let (_dir, set) = set();
    let data = open(&set).unwrap();
    let file = File::options()
        .write(true)
        .open(set.join("train-00001.bin"))
        .unwrap();
    file.write_all_at(&[0xaa; 100], 4096 + 20 * 3072).unwrap();
    let error = pixels(&data).unwrap_err().to_string();
    let expected = "train-00001.bin: image block 1 has checksum";
    assert!(error.contains(expected), "{error}");
}
