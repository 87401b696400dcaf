//! Parts of files side by side in memory, against the bytes that were written.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tinyres_format::{Error, Map, PAGE, Piece, Region};

/// A file of so many bytes, no two of which repeat within a page.
fn file(dir: &Path, name: &str, len: usize) -> PathBuf {
    let path = dir.join(name);
    let seed = name.len() * 7;
    let bytes: Vec<u8> = (0..len)
        .map(|at| u8::try_from((at * 31 + at / 251 + seed) % 256).unwrap())
        .collect();
    fs::write(&path, bytes).unwrap();
    path
}

#[expect(unsafe_code, reason = "a test's own files, which nobody else touches")]
fn map(path: &Path) -> Map {
    // SAFETY: the file lies in a fresh temporary directory, and nothing writes to it while it is mapped.
    unsafe { Map::open(path) }.unwrap()
}

fn piece<'a>(map: &'a Map, path: &'a Path, range: Range<usize>) -> Piece<'a> {
    Piece { map, path, range }
}

#[expect(unsafe_code, reason = "a test's own files, which nobody else touches")]
fn region(pieces: &[Piece<'_>]) -> Result<Region, Error> {
    // SAFETY: as above.
    unsafe { Region::open(pieces) }
}

#[test]
#[expect(unsafe_code, reason = "a test's own files, which nobody else touches")]
fn private_region_is_written_to_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "a", 5 * PAGE);
    let (map, whole) = (map(&path), fs::read(&path).unwrap());
    let pieces = [
        piece(&map, &path, 3 * PAGE..5 * PAGE),
        piece(&map, &path, PAGE..2 * PAGE),
    ];
    let shared = region(&pieces).unwrap();
    // SAFETY: as above.
    let mut private = unsafe { Region::open_private(&pieces) }.unwrap();
    let expected = [&whole[3 * PAGE..], &whole[PAGE..2 * PAGE]].concat();
    assert_eq!(private[..], expected);
    private[2 * PAGE + 1] ^= 1;
    assert_ne!(private[..], expected);
    assert_eq!(shared[..], expected);
    assert_eq!(map[..], whole);
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn pieces_lie_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [
        file(dir.path(), "a", 5 * PAGE),
        file(dir.path(), "bb", 4 * PAGE + 10),
    ];
    let maps = paths.each_ref().map(|path| map(path));
    let whole = paths.each_ref().map(|path| fs::read(path).unwrap());
    let (first, second) = (PAGE..3 * PAGE, PAGE..4 * PAGE + 10);
    let all = region(&[
        piece(&maps[0], &paths[0], first.clone()),
        piece(&maps[1], &paths[1], PAGE..PAGE),
        piece(&maps[1], &paths[1], second.clone()),
    ])
    .unwrap();
    assert_eq!(all[..], [&whole[0][first], &whole[1][second]].concat());
    assert!(all.as_ptr().addr().is_multiple_of(PAGE));
    // The region outlives the maps that it was made from, and a file's name.
    drop(maps);
    fs::remove_file(&paths[0]).unwrap();
    assert_eq!(all[..2 * PAGE], whole[0][PAGE..3 * PAGE]);
}

#[test]
fn region_of_nothing_is_empty() {
    assert!(region(&[]).unwrap().is_empty());
}

#[test]
fn pieces_that_are_not_whole_pages_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "a", 3 * PAGE);
    let own = map(&path);
    for pieces in [
        vec![
            piece(&own, &path, PAGE..2 * PAGE + 1),
            piece(&own, &path, PAGE..2 * PAGE),
        ],
        vec![piece(&own, &path, 100..PAGE)],
    ] {
        let error = region(&pieces).unwrap_err();
        let Error::At { source, .. } = &error else {
            panic!("{error}")
        };
        assert!(matches!(**source, Error::Apart { .. }), "{error}");
        assert!(error.to_string().contains("--shard-images 8192"), "{error}");
    }
    // The last one may end anywhere.
    assert_eq!(
        region(&[piece(&own, &path, PAGE..PAGE + 1)]).unwrap().len(),
        1
    );
}

#[test]
fn replaced_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "a", 2 * PAGE);
    let own = map(&path);
    let other = file(dir.path(), "b", 2 * PAGE);
    fs::rename(other, &path).unwrap();
    let error = region(&[piece(&own, &path, PAGE..2 * PAGE)]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a: was replaced by another file"),
        "{error}"
    );
}
