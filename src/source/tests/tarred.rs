//! What only a tar can get wrong.

use std::process::Command;

use ::tar::{Builder, EntryType, Header};
use proptest::prelude::*;

use super::*;

fn open_tar(bytes: &[u8]) -> Result<Source, Error> {
    open_archive(bytes, ".tar")
}

/// What the `tar` of this machine makes of `dir`.
fn real_tar(dir: &Path, flags: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(flags)
        .args(["-cf", "-", "."])
        .current_dir(dir)
        .output()
        .expect("tar, as any Linux has it");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// The good tree as a tar, with more entries made by `add`.
fn with(add: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let whole = Files::good().tar("");
    // Without the zeros that end it.
    let mut builder = Builder::new(whole[..whole.len() - 1024].to_vec());
    add(&mut builder);
    builder.into_inner().unwrap()
}

/// A header for `name`, which the builder might not allow.
fn header(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header
}

#[test]
fn tars_of_any_format_are_read() {
    let dir = Files::good().dir();
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        let tar = real_tar(dir.path(), &[&format!("--format={format}")]);
        assert_good(&open_tar(&tar).unwrap());
    }
    // By its content, where it has a name of no meaning: not so the oldest format.
    let tar = real_tar(dir.path(), &["--format=ustar"]);
    assert_good(&open_archive(&tar, ".data").unwrap());

    // Paths that no header has room for, as GNU and as POSIX write them.
    let outer = tempfile::tempdir().unwrap();
    let deep = outer.path().join("a".repeat(120)).join("b".repeat(250));
    fs::create_dir_all(&deep).unwrap();
    fs::rename(dir.keep(), deep.join("set")).unwrap();
    for format in ["gnu", "posix"] {
        let tar = real_tar(outer.path(), &[&format!("--format={format}")]);
        assert_good(&open_tar(&tar).unwrap());
    }
}

#[test]
fn what_is_no_file_is_passed_over() {
    let tar = with(|builder| {
        builder
            .append_pax_extensions([("comment", b"of one entry".as_slice())])
            .unwrap();
        for (name, kind) in [
            ("train/n02/images/pipe.JPEG", EntryType::Fifo),
            ("train/n02/images/disk.JPEG", EntryType::Block),
            ("pax_global_header", EntryType::XGlobalHeader),
            ("train/n02/images/empty", EntryType::Directory),
        ] {
            builder.append(&header(name, kind, 0), io::empty()).unwrap();
        }
    });
    assert_good(&open_tar(&tar).unwrap());
}

#[test]
fn entries_that_cannot_be_read() {
    let dir = Files::good().dir();
    let image = dir.path().join(CAT_IMAGE);
    let link = dir.path().join("val/images/val_1.JPEG");
    fs::remove_file(&link).unwrap();
    symlink(&image, &link).unwrap();
    insta::assert_snapshot!(problems(open_tar(&real_tar(dir.path(), &[]))), @r"
    1 problem
      val/images/val_1.JPEG: a link in the archive; archive the file that it stands for (tar has --dereference --hard-dereference)
    ");
    assert!(
        open_tar(&real_tar(
            dir.path(),
            &["--dereference", "--hard-dereference"]
        ))
        .is_ok()
    );

    fs::remove_file(&link).unwrap();
    fs::hard_link(&image, &link).unwrap();
    assert!(matches!(
        problems(open_tar(&real_tar(dir.path(), &["--sort=name"]))).first(),
        [TreeProblem::Unreadable {
            reason: ReadError::Link,
            ..
        }]
    ));
    assert!(open_tar(&real_tar(dir.path(), &["--hard-dereference"])).is_ok());

    fs::remove_file(&link).unwrap();
    fs::File::create(&link).unwrap().set_len(1 << 20).unwrap();
    for format in ["--format=gnu", "--format=posix"] {
        let tar = real_tar(dir.path(), &[format, "--sparse"]);
        assert!(tar.len() < 1 << 20, "it is not sparse");
        let problems = problems(open_tar(&tar)).to_string();
        assert!(
            problems.contains("val/images/val_1.JPEG: a sparse file in the tar"),
            "{problems}"
        );
    }

    fs::remove_file(&link).unwrap();
    fs::File::create(&link)
        .unwrap()
        .set_len(MAX_FILE + 1)
        .unwrap();
    let problems = problems(open_tar(&real_tar(dir.path(), &[])));
    assert!(matches!(
        problems.first(),
        [TreeProblem::Unreadable {
            reason: ReadError::TooLarge { .. },
            ..
        }]
    ));
}

#[test]
fn names_in_the_tar() {
    for name in [
        "../secret.JPEG",
        "/etc/secret.JPEG",
        "train/../../secret.JPEG",
        "train/..",
    ] {
        let tar = with(|builder| {
            let header = header(name, EntryType::Regular, 0);
            builder.append(&header, io::empty()).unwrap();
        });
        assert!(
            matches!(problems(open_tar(&tar)).first(), [TreeProblem::EntryName { name: got }] if got == name)
        );
    }
    let tar = with(|builder| {
        let mut header = header("val/images/x.JPEG", EntryType::Regular, 0);
        header.as_old_mut().name[11] = 0xff;
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
    });
    insta::assert_snapshot!(problems(open_tar(&tar)), @r#"
    1 problem
      val/images/%FF.JPEG: val/val_annotations.txt does not list it; add a line there or remove the image
    "#);

    // As `tar --append` leaves them.
    let tar = with(|builder| {
        let header = header(CAT_IMAGE, EntryType::Regular, 4);
        builder.append(&header, b"anew".as_slice()).unwrap();
    });
    assert!(
        matches!(problems(open_tar(&tar)).first(), [TreeProblem::RepeatedEntry { name }] if name == CAT_IMAGE)
    );
}

#[test]
fn a_tar_cut_anywhere_is_refused() {
    let whole = Files::good().tar("");
    for length in (0..=whole.len() - 1024).step_by(64) {
        assert!(
            matches!(open_tar(&whole[..length]), Err(Error::Tar { .. })),
            "cut to {length} bytes"
        );
    }
    assert_good(&open_tar(&whole[..whole.len() - 512]).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tar");
    fs::write(&path, &whole[..whole.len() - 1024]).unwrap();
    let error = message(&path, &Source::open(&path).unwrap_err());
    insta::assert_snapshot!(error, @"PATH: not a whole tar, at byte 18432: the file ends before the zeros that end a tar; copy or download it again");
    let mut damaged = whole;
    damaged[0] ^= 1;
    fs::write(&path, damaged).unwrap();
    let error = message(&path, &Source::open(&path).unwrap_err());
    insta::assert_snapshot!(error, @"PATH: not a whole tar, at byte 512: archive header checksum mismatch; copy or download it again");
}

#[test]
fn a_forged_length_fills_no_memory() {
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let mut bytes = header("././@LongLink", kind, 1 << 32).as_bytes().to_vec();
        bytes.resize(4 << 20, b'a');
        let Err(Error::Tar { offset, reason, .. }) = open_tar(&bytes) else {
            panic!("it opens");
        };
        assert_eq!(reason.to_string(), "a header is longer than 1048576 bytes");
        assert_eq!(offset, 1 << 20);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_it_panic(
        at: prop::sample::Index,
        garbage in prop::collection::vec(any::<u8>(), 0..64),
        end: prop::sample::Index,
    ) {
        let mut bytes = Files::good().tar("t/");
        let at = at.index(bytes.len());
        let length = garbage.len().min(bytes.len() - at);
        bytes[at..at + length].copy_from_slice(&garbage[..length]);
        for tar in [&bytes[..], &bytes[end.index(bytes.len())..], &garbage] {
            let Ok(source) = open_tar(tar) else { continue };
            for item in source.splits.iter().flat_map(|(_, items)| items) {
                let _ = source.reader().read(item);
            }
        }
    }

    /// Headers whose checksum is right, so that what they say is looked at.
    #[test]
    fn no_header_makes_it_panic(
        place in 0..512_usize,
        garbage in prop::collection::vec(any::<u8>(), 1..24),
    ) {
        let tar = with(|builder| {
            let mut header = header(CAT_IMAGE, EntryType::GNUSparse, 512);
            let bytes = header.as_mut_bytes();
            let length = garbage.len().min(512 - place);
            bytes[place..place + length].copy_from_slice(&garbage[..length]);
            header.set_cksum();
            builder.append(&header, [1; 512].as_slice()).unwrap();
        });
        let _ = open_tar(&tar);
    }
}
