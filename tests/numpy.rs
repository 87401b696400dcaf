//! The NumPy reader of SPEC.md, as `examples/numpy_reader.py` has it, reads what `tinyres pack` writes and finds
//! damage.

mod common;
#[path = "common/skip.rs"]
mod skip;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Tree, tinyres};
use tinyres_format::{Manifest, Shard};

const SPEC: &str = include_str!("../format/SPEC.md");
const EXAMPLE: &str = include_str!("../examples/numpy_reader.py");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// Prints what a shard holds, as lines that are easy to compare.
const PRINT: &str = r#"
import hashlib, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from numpy_reader import read_shard
images, labels, boxes, names, metadata = read_shard(sys.argv[2])
assert not images.flags.owndata
print(images.shape, images.dtype, hashlib.sha256(images).hexdigest())
for label, box, name in zip(labels.tolist(), boxes.tolist(), names):
    print(label, *box, name)
print(metadata["split"], [c["id"] for c in metadata["classes"]], metadata["grey"])
"#;

fn reader() -> &'static str {
    let (_, rest) = SPEC.split_once("```python\n").unwrap();
    rest.split_once("```").unwrap().0
}

/// Runs Python with `args`, or gives `None` where there is no NumPy.
fn python(args: &[&OsStr]) -> Option<Result<String, String>> {
    let numpy = Command::new("python3")
        .args(["-c", "import numpy"])
        .output();
    if !numpy.is_ok_and(|output| output.status.success()) {
        skip::skip("python3 has no numpy here; tools/test installs one");
        return None;
    }
    let output = Command::new("python3").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some(if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    })
}

/// Reads a shard with the example's reader.
fn read(shard: &Path) -> Option<Result<String, String>> {
    python(&[
        "-c".as_ref(),
        PRINT.as_ref(),
        EXAMPLES.as_ref(),
        shard.as_ref(),
    ])
}

#[test]
fn example_has_the_reader_of_the_specification() {
    assert!(EXAMPLE.contains(reader()));
}

#[test]
fn example_prints_every_image() {
    let dir = tempfile::tempdir().unwrap();
    let out = pack(dir.path());
    let example = Path::new(EXAMPLES).join("numpy_reader.py");
    let file = out.join("train-00000.bin");
    let Some(printed) = python(&[example.as_ref(), file.as_ref()]) else {
        return;
    };
    let printed = printed.unwrap();
    let (first, images) = printed.split_once('\n').unwrap();
    assert_eq!(first, "(7, 3, 64, 64) uint8 of train");
    let shard = Shard::new(std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(images.lines().count(), shard.len());
    for (image, line) in images.lines().enumerate() {
        let name = shard.name(image).unwrap().unwrap();
        let label = usize::try_from(shard.labels()[image].get()).unwrap();
        let class = &shard.metadata().classes[label].name;
        let bbox = shard.boxes()[image].map(|side| side.get());
        assert_eq!(line, format!("{name} {class} {bbox:?}"));
    }
}

/// Packs a small set, with 7 images to a shard, below `dir`.
fn pack(dir: &Path) -> PathBuf {
    let (set, out) = (dir.join("set"), dir.join("shards"));
    Tree::small().write_dir(&set);
    tinyres()
        .arg("pack")
        .arg(&set)
        .arg("-o")
        .arg(&out)
        .args(["--shard-images", "7"])
        .assert()
        .success();
    out
}

#[test]
fn reader_has_at_most_forty_lines() {
    assert!(reader().lines().count() <= 40);
}

#[test]
fn reader_reads_what_pack_wrote_and_finds_damage() {
    let dir = tempfile::tempdir().unwrap();
    let out = pack(dir.path());
    let manifest = Manifest::load(&out).unwrap();
    for file in manifest
        .splits
        .iter()
        .flat_map(|entry| &entry.shards)
        .map(|shard| out.join(&shard.file))
    {
        let Some(printed) = read(&file) else { return };
        let shard = Shard::new(std::fs::read(&file).unwrap()).unwrap();
        let digest = tinyres_format::Digest::of(shard.images());
        let mut expected = format!("({}, 3, 64, 64) uint8 {digest}\n", shard.len());
        for image in 0..shard.len() {
            let [x0, y0, x1, y1] = shard.boxes()[image].map(|side| side.get());
            let name = shard.name(image).unwrap().unwrap();
            expected += &format!(
                "{} {x0} {y0} {x1} {y1} {name}\n",
                shard.labels()[image].get()
            );
        }
        let metadata = shard.metadata();
        expected += &format!("{} ['n02', 'n01'] {}\n", metadata.split, metadata.grey);
        assert_eq!(printed.unwrap(), expected);
    }
    let file = out.join("train-00000.bin");
    let whole = std::fs::read(&file).unwrap();
    // Header, the first and the last image, a label, the metadata.
    let labels = 4096 + 7 * 12288 + 64;
    for (at, says) in [
        (16, "cut, or of another kind"),
        (100, "header"),
        (4096, "image block 0"),
        (4096 + 7 * 12288 - 1, "image block 0"),
        (labels, "section 2"),
        (whole.len() - 1, "section 6"),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let error = read(&file).unwrap().unwrap_err();
        assert!(error.contains(says), "byte {at}: {error}");
    }
}
