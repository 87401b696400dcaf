//! Files that are published: what they replace, and what they leave alone.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use tinyres_format::publish::{self, AtomicFile};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A set that was copied from somebody else may hold such a link.
#[test]
fn a_link_in_place_of_the_temporary_file_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let path = dir.path().join("file");
    symlink(&precious, dir.path().join(".file.tmp")).unwrap();
    let file = AtomicFile::create(&path).unwrap();
    file.file().write_all(b"new").unwrap();
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    file.publish().unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}

#[test]
fn a_link_in_place_of_the_file_is_replaced_and_its_target_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (precious, path) = (dir.path().join("precious"), dir.path().join("file"));
    fs::write(&precious, "precious").unwrap();
    fs::set_permissions(&precious, Permissions::from_mode(0o600)).unwrap();
    symlink(&precious, &path).unwrap();
    publish::write(&path, b"new").unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    assert_ne!(mode(&path), 0o600, "nor is its mode taken");
}

#[test]
fn an_output_that_is_a_link_stays_one_and_its_target_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link) = (dir.path().join("disk/target"), dir.path().join("link"));
    fs::create_dir(dir.path().join("disk")).unwrap();
    // Relative, of two steps, and at first to nothing.
    symlink("second", &link).unwrap();
    symlink("disk/target", dir.path().join("second")).unwrap();
    for text in ["new", "newer"] {
        publish::write_output(&link, text.as_bytes()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), text);
    }
    assert_eq!(names(&dir.path().join("disk")), ["target"]);
    assert_eq!(publish::followed(&link), target);

    let loops = dir.path().join("loop");
    symlink("loop", &loops).unwrap();
    assert!(publish::write_output(&loops, b"new").is_err());
    assert!(fs::symlink_metadata(&loops).unwrap().is_symlink());
}

#[test]
fn a_file_has_the_mode_of_the_one_that_it_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for expected in [0o600, 0o444, 0o640] {
        fs::write(dir.path().join("new"), "old").unwrap();
        fs::set_permissions(dir.path().join("new"), Permissions::from_mode(expected)).unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let file = AtomicFile::create(&path).unwrap();
        assert_eq!(
            mode(&dir.path().join(".file.tmp")),
            expected,
            "from the beginning"
        );
        file.file().write_all(b"new").unwrap();
        file.publish().unwrap();
        assert_eq!(mode(&path), expected);
    }
}

#[test]
fn a_fifo_or_a_device_gets_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || {
            let mut bytes = Vec::new();
            fs::File::open(fifo)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            bytes
        }
    });
    publish::write_output(&fifo, b"the bytes").unwrap();
    assert_eq!(reader.join().unwrap(), b"the bytes");
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());

    // Not /dev/null itself: a fault here would replace it.
    let null = dir.path().join("null");
    symlink("/dev/null", &null).unwrap();
    publish::write_output(&null, b"the bytes").unwrap();
    assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
    assert_eq!(names(dir.path()), ["fifo", "null"], "nothing else is left");
}

#[test]
fn a_directory_is_not_an_output() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory");
    fs::create_dir(&path).unwrap();
    assert!(publish::write_output(&path, b"new").is_err());
    assert_eq!(names(dir.path()), ["directory"]);
}
