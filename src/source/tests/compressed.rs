//! What only a compressed tar can get wrong.

use std::io::Read;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_tar_is_read_by_its_content() {
    let tar = Files::good().tar("tiny/");
    for bytes in [gzip(&tar), zstd(&tar)] {
        for suffix in [".tgz", ".data", ".zip"] {
            assert_good(&open_archive(&bytes, suffix).unwrap());
        }
    }
}

#[test]
fn what_gnu_tar_compresses_is_read() {
    let dir = Files::good().dir();
    let tar = Command::new("tar")
        .args(["-czf", "-", "."])
        .current_dir(dir.path())
        .output()
        .expect("tar, as any Linux has it");
    assert!(tar.status.success());
    assert_good(&open_archive(&tar.stdout, ".tar.gz").unwrap());
}

#[test]
fn members_of_a_gzip_file_follow_each_other() {
    let tar = Files::good().tar("");
    let (first, second) = tar.split_at(1000);
    let members = [gzip(first), gzip(second)].concat();
    assert_good(&open_archive(&members, ".tgz").unwrap());
    // Zeros at the end are a tape's.
    let padded = [&members[..], &[0; 100_000]].concat();
    assert_good(&open_archive(&padded, ".tgz").unwrap());
    let garbage = [&members[..], b"garbage"].concat();
    assert!(matches!(
        open_archive(&garbage, ".tgz"),
        Err(Error::Damaged { .. })
    ));
    let frames = [zstd(first), zstd(second)].concat();
    assert_good(&open_archive(&frames, ".tar.zst").unwrap());
}

#[test]
fn a_compressed_tar_cut_anywhere_is_refused() {
    let tar = Files::good().tar("");
    for whole in [gzip(&tar), zstd(&tar)] {
        for length in (4..whole.len()).step_by(7) {
            assert!(
                matches!(
                    open_archive(&whole[..length], ".tgz"),
                    Err(Error::Damaged { .. })
                ),
                "cut to {length} bytes"
            );
        }
    }
}

#[test]
fn errors_of_compressed_files_name_file_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tgz");
    let mut bytes = gzip(&Files::good().tar(""));
    let end = bytes.len();
    bytes[end - 5] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = message(&path, &Source::open(&path).unwrap_err());
    insta::assert_snapshot!(error, @"PATH: not a whole gzip file (corrupt gzip stream does not have a matching checksum); copy or download it again");

    for (magic, program) in [(b"BZh9".as_slice(), "bunzip2"), (b"\xfd7zXZ\0", "unxz")] {
        fs::write(&path, magic).unwrap();
        let error = message(&path, &Source::open(&path).unwrap_err());
        assert!(
            error.ends_with(&format!("decompress it first: {program} PATH")),
            "{error}"
        );
    }
}

/// A gibibyte of zeros in some 30 KiB, and one more.
#[test]
fn a_bomb_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    io::copy(&mut io::repeat(0).take((1 << 30) + 1), &mut encoder).unwrap();
    let bytes = encoder.finish().unwrap();
    let error = open_archive(&bytes, ".tar.zst").unwrap_err().to_string();
    assert!(error.contains("expand to more than 1073741824"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_it_panic(
        at: prop::sample::Index,
        garbage in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let tar = Files::good().tar("t/");
        for mut bytes in [gzip(&tar), zstd(&tar)] {
            let at = at.index(bytes.len());
            let length = garbage.len().min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&garbage[..length]);
            let _ = open_archive(&bytes, ".tgz");
        }
    }
}
