//! A set that is packed again and again while something goes wrong, and what must hold of what is left.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tinyres_format::{MANIFEST, Manifest, Shard, shards_in};
use turbojpeg::PixelFormat;

use super::common::{Tree, files, jpeg};

pub type Files = BTreeMap<String, Vec<u8>>;

/// What a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// No set, or one that says that it is not finished.
    None,
    /// The set that was there before.
    Old,
    /// The set that was packed.
    New,
}

/// A source and an older one of the same names, so that the sets have the same fingerprint and only
/// their pixels differ; and how they look when nothing goes wrong.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub new: Files,
    pub old: Files,
    shard_images: &'static str,
}

impl Fixture {
    /// Sources of 13 images and `more`, in shards of `shard_images`.
    pub fn new(dir: tempfile::TempDir, more: usize, shard_images: &'static str) -> Self {
        let mut tree = Tree::small();
        tree.0.retain(|path, _| !path.starts_with("test/"));
        let mut boxes = String::from_utf8(tree.0["train/n01/n01_boxes.txt"].clone()).unwrap();
        for image in 5..5 + more {
            let name = format!("n01_{image}.JPEG");
            boxes += &format!("{name}\t0\t0\t63\t63\n");
            let path = format!("train/n01/images/{name}");
            tree.put(&path, jpeg(image % 97, 64, PixelFormat::RGB));
        }
        tree.text("train/n01/n01_boxes.txt", &boxes);
        tree.write_dir(&dir.path().join("new"));
        for (image, path) in tree.0.keys().cloned().enumerate().collect::<Vec<_>>() {
            if path.ends_with(".JPEG") {
                tree.put(&path, jpeg(image % 101 + 1, 64, PixelFormat::RGB));
            }
        }
        tree.write_dir(&dir.path().join("old"));
        let mut fixture = Self {
            dir,
            new: Files::new(),
            old: Files::new(),
            shard_images,
        };
        for set in ["old", "new"] {
            let packed = fixture.pack(set, &["--force"]).output().unwrap();
            assert!(packed.status.success(), "{packed:?}");
            let packed = files(&fixture.out());
            fixture.old = std::mem::replace(&mut fixture.new, packed);
        }
        let both = fixture.new.iter().zip(&fixture.old);
        for ((name, new), (same_name, old)) in both {
            assert!(name == same_name && new != old, "{name} and {same_name}");
        }
        fixture
    }

    /// The directory that is packed to.
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    pub fn pack(&self, source: &str, flags: &[&str]) -> Command {
        let mut command = tinyres();
        command
            .args(["pack", "--threads", "2"])
            .args(["--shard-images", self.shard_images])
            .arg(self.dir.path().join(source))
            .arg("-o")
            .arg(self.out())
            .args(flags);
        command
    }

    /// Leaves nothing in the output directory, or `over` which to pack: the older set.
    pub fn begin(&self, over: bool) {
        let out = self.out();
        if out.exists() {
            fs::remove_dir_all(&out).unwrap();
        }
        if over {
            fs::create_dir(&out).unwrap();
            for (name, bytes) in &self.old {
                fs::write(out.join(name), bytes).unwrap();
            }
        }
    }

    /// What a reader finds: a set that passes for whole must be, and so must every single file that
    /// has the name of a shard.
    pub fn seen(&self) -> Result<Seen, String> {
        let out = self.out();
        let mut there = if out.exists() {
            files(&out)
        } else {
            Files::new()
        };
        there.retain(|name, _| !name.starts_with('.'));
        match Manifest::load(&out) {
            Ok(_) if there == self.new => return Ok(Seen::New),
            Ok(_) if there == self.old => return Ok(Seen::Old),
            Ok(_) => return Err("what is there passes for whole, and is not".into()),
            Err(_) => {}
        }
        for path in shards_in(&out).unwrap_or_default() {
            let shard = Shard::new(fs::read(&path).unwrap());
            let verified = shard.and_then(|shard| shard.verify());
            verified.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(Seen::None)
    }

    /// Packs once more, with nothing in the way: the set is complete then, and nothing else is left.
    pub fn complete(&self) -> Result<(), String> {
        let out = self.out();
        let force: &[&str] = match out.join(MANIFEST).exists() {
            true => &["--force"],
            false => &[],
        };
        let again = self.pack("new", force).output().unwrap();
        if !again.status.success() || files(&out) != self.new {
            return Err(format!("packed again, it does not complete: {again:?}"));
        }
        let left = fs::read_dir(&out).unwrap().count();
        if left != self.new.len() {
            return Err(format!("packed again, it leaves {left} files"));
        }
        Ok(())
    }
}

pub fn tinyres() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin("tinyres"))
}

/// Where many small runs are quick: in memory, where forcing a file to the disk takes no time.
pub fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in(Path::new("/dev/shm"))
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}
