//! What reaches the terminal: verdicts, whoever reads them; names of others without their escape sequences; paths
//! of any bytes.

mod common;
#[path = "common/sets.rs"]
mod sets;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::Tree;
use sets::{SPEC, write};
use tinyres_format::{Class, Digest, SetOptions, SetWriter, Shape, Split};

fn tinyres() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin("tinyres"))
}

/// Runs a command whose standard output nobody reads.
fn unread(command: &mut Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

#[test]
fn a_closed_pipe_hides_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let [good, bad] = ["good", "bad"].map(|name| dir.path().join(name));
    for set in [&good, &bad] {
        fs::create_dir(set).unwrap();
        write(set, SPEC);
    }
    let shard = File::options()
        .write(true)
        .open(bad.join("train-00001.bin"));
    shard.unwrap().write_all_at(&[0xaa; 100], 5000).unwrap();
    for (paths, code) in [
        (&[&good][..], 0),
        (&[&bad], 1),
        (&[&good, &bad], 1),
        (&[&bad, &good], 1),
    ] {
        let output = unread(tinyres().args(["inspect", "--verify"]).args(paths));
        assert_eq!(output.status.code(), Some(code), "{paths:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            said.contains("bad: not as it was packed"),
            code == 1,
            "{said}"
        );
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = tinyres()
        .arg("inspect")
        .arg(&good)
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("error: standard output: No space left on device"),
        "{said}"
    );
}

/// Clears the screen, sets the title, turns text around, and forges a line.
const EVIL: &str =
    "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}gpj\r\nall are as they were written";

fn is_harmless(output: &Output) -> bool {
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    !said.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}')
}

#[test]
fn names_in_a_set_reach_the_terminal_without_escape_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    let options = SetOptions {
        shape: Shape::rgb(2),
        classes: vec![Class {
            id: EVIL.into(),
            name: EVIL.into(),
        }],
        creator: EVIL.into(),
        fingerprint: Digest::of(b"a set"),
        shard_images: NonZeroU32::new(8).unwrap(),
    };
    let mut writer = SetWriter::create(&set, options).unwrap();
    writer
        .image(Split::Train, &[7; 12], 0, [-1; 4], EVIL)
        .unwrap();
    writer.finish().unwrap();
    for flags in [
        &[][..],
        &["--classes"],
        &["--image", "0"],
        &["--classes", "--json"],
        &["--image", "0", "--json"],
    ] {
        let output = tinyres()
            .arg("inspect")
            .arg(&set)
            .args(flags)
            .output()
            .unwrap();
        assert!(
            output.status.success() && is_harmless(&output),
            "{flags:?}: {output:?}"
        );
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("gpj"), "{flags:?}");
        assert!(!said.contains("\nall are"), "{flags:?}: {said}");
        if flags.contains(&"--json") {
            let value: serde_json::Value = serde_json::from_str(&said).unwrap();
            let name = match &value["per_class"][0]["name"] {
                serde_json::Value::Null => &value["name"],
                name => name,
            };
            assert_eq!(name, EVIL, "JSON keeps every character");
        }
    }
}

#[test]
fn names_in_a_source_reach_the_terminal_without_escape_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Tree::default();
    let evil = EVIL.replace('/', "");
    tree.put(
        &format!("train/{evil}/good.jpg"),
        common::jpeg(1, 64, turbojpeg::PixelFormat::RGB),
    );
    tree.put(&format!("train/dog/{evil}.jpg"), b"no image".to_vec());
    tree.put(&format!("train/dog/{evil}.xyz"), b"passed over".to_vec());
    tree.put(
        "train/dog/good.jpg",
        common::jpeg(2, 64, turbojpeg::PixelFormat::RGB),
    );
    let source = dir.path().join("source");
    tree.write_dir(&source);
    for flags in [
        &[][..],
        &["--skip-bad"],
        &["--skip-bad", "--force", "--json"],
    ] {
        let mut pack = tinyres();
        pack.arg("pack")
            .arg(&source)
            .arg("-o")
            .arg(dir.path().join("out"))
            .args(flags);
        let output = pack.output().unwrap();
        assert_eq!(output.status.success(), !flags.is_empty(), "{output:?}");
        assert!(is_harmless(&output), "{flags:?}: {output:?}");
    }
}

#[test]
fn a_directory_whose_name_is_not_utf8_is_reported_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"ch\xe2teau");
    let (source, out) = (dir.path().join("source"), dir.path().join(name));
    Tree::small().write_dir(&source);
    let json = |command: &mut Command| -> serde_json::Value {
        let output = command.arg("--json").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let is_named = |value: &serde_json::Value| value.as_str().unwrap().contains("/ch%E2teau");
    let report = json(
        tinyres()
            .args(["pack", "--zstd"])
            .arg(&source)
            .arg("-o")
            .arg(&out),
    );
    assert!(is_named(&report["output"]), "{report}");
    let report = json(tinyres().arg("expand").arg(&out));
    assert!(is_named(&report["output"]), "{report}");
    let report = json(tinyres().args(["inspect", "--verify"]).arg(&out));
    assert!(is_named(&report["path"]), "{report}");
    let report = json(tinyres().args(["inspect", "--image", "0"]).arg(&out));
    assert!(is_named(&report["shard"]), "{report}");
    let sheet = out.join(Path::new(OsStr::from_bytes(b"sheet\xff.png")));
    let report = json(tinyres().arg("inspect").arg(&out).arg("--sheet").arg(sheet));
    assert!(is_named(&report["file"]), "{report}");
}

/// Output of a command on a terminal of 90 columns and 50 rows that shows 24 bits of colour.
fn on_a_terminal(command: &str, environment: &[(&str, &str)]) -> String {
    let mut script = Command::new("script");
    script.args([
        "-qec",
        &format!("stty cols 90 rows 50; {command}"),
        "/dev/null",
    ]);
    script
        .env("TERM", "xterm-256color")
        .env("COLORTERM", "truecolor");
    for name in [
        "NO_COLOR",
        "CLICOLOR",
        "TERM_PROGRAM",
        "LC_TERMINAL",
        "KONSOLE_VERSION",
    ] {
        script.env_remove(name);
    }
    let output = script
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_terminal_shows_an_image_pixel_for_pixel() {
    let dir = tempfile::tempdir().unwrap();
    let options = SetOptions {
        shape: Shape::rgb(6),
        classes: Vec::new(),
        creator: "tests".to_owned(),
        fingerprint: Digest::of(b"terminal"),
        shard_images: NonZeroU32::new(8).unwrap(),
    };
    let mut set = SetWriter::create(dir.path(), options).unwrap();
    let pixels: Vec<u8> = (0..3 * 36).map(|at| 2 * at).collect();
    set.image(Split::Train, &pixels, -1, [-1; 4], "image")
        .unwrap();
    set.finish().unwrap();
    let program = assert_cmd::cargo::cargo_bin("tinyres");
    let inspect = format!(
        "{} inspect {} --image 0",
        program.display(),
        dir.path().display()
    );
    let shown = on_a_terminal(&inspect, &[]);
    let (picture, text) = shown.split_at(shown.find("train image 0").unwrap());
    assert!(text.contains("name   image"), "{text}");
    // Two rows in each line: the upper one is the ground of the half block, the lower one its colour.
    let colour = |x: usize, y: usize| {
        let [r, g, b] = [0, 1, 2].map(|channel| pixels[channel * 36 + y * 6 + x]);
        format!("2;{r};{g};{b}")
    };
    let cell = |x, y| format!("\x1b[48;{};38;{}m\u{2584}", colour(x, y), colour(x, y + 1));
    let line = |y| (0..6).map(|x| cell(x, y)).collect::<String>();
    for y in [0, 2, 4] {
        assert!(picture.contains(&line(y)), "row {y}: {picture:?}");
    }
    assert_eq!(picture.matches('\u{2584}').count(), 18);
    let png = on_a_terminal(&inspect, &[("TERM_PROGRAM", "iTerm.app")]);
    assert!(png.contains("\x1b]1337;File=inline=1;"), "{png:?}");
    for (flags, environment) in [
        (" --no-picture", &[][..]),
        (" --json", &[]),
        ("", &[("NO_COLOR", "1")]),
        (" | cat", &[]),
    ] {
        let shown = on_a_terminal(&format!("{inspect}{flags}"), environment);
        assert!(
            !shown.contains('\u{2584}') && shown.contains("train"),
            "{flags}: {shown:?}"
        );
    }
}
