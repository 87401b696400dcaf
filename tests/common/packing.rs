//! A set that is packed or expanded many times while something goes wrong, and checks of the files that
//! are left.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tinyres_format::{MANIFEST, Manifest, shards_in};
use turbojpeg::PixelFormat;

use super::common::{Tree, files, jpeg};

pub type Files = BTreeMap<String, Vec<u8>>;

/// The set that a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// No set, or one that says that it is not finished.
    None,
    /// The set that was there before.
    Old,
    /// The set that was packed.
    New,
}

/// Command that fails or is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `pack`, with `--force` over an older set.
    Pack,
    /// The same with `--zstd`.
    PackZstd,
    /// `expand` in place: the older set is the compressed one.
    Expand,
}

/// A new source and an older one, and the files that they are packed to when nothing goes wrong. Both have
/// the same names, so that the sets have the same fingerprint and differ only in pixels.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub new: Files,
    pub old: Files,
    operation: Operation,
    shard_images: &'static str,
}

impl Fixture {
    /// Three small shards, in memory: for many runs.
    pub fn small(operation: Operation) -> Self {
        let memory = tempfile::tempdir_in(Path::new("/dev/shm"));
        let dir = memory.or_else(|_| tempfile::tempdir()).unwrap();
        Self::new(dir, operation, 0, "8")
    }

    /// Sources of 13 images and `more`, in shards of `shard_images`.
    pub fn new(
        dir: tempfile::TempDir,
        operation: Operation,
        more: usize,
        shard_images: &'static str,
    ) -> Self {
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
            operation,
            shard_images,
        };
        let (first, then) = match operation {
            Operation::Pack => (fixture.pack("old", &[]), fixture.command(true)),
            Operation::PackZstd => (fixture.pack("old", &["--zstd"]), fixture.command(true)),
            Operation::Expand => (fixture.pack("new", &["--zstd"]), fixture.command(true)),
        };
        for mut command in [first, then] {
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let there = files(&fixture.out());
            fixture.old = std::mem::replace(&mut fixture.new, there);
        }
        // Pack records the sources of finished shards only if their change times are some seconds old.
        // Waiting makes every later pack do so, and thus make the same calls.
        std::thread::sleep(Duration::from_millis(3100));
        let both = fixture.new.iter().zip(&fixture.old);
        for ((name, new), (same_name, old)) in both {
            let named = name == same_name || operation == Operation::Expand;
            assert!(named && new != old, "{name} and {same_name}");
        }
        fixture
    }

    /// The directory that is packed to.
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    pub fn pack(&self, source: &str, flags: &[&str]) -> Command {
        let mut command = tinyres();
        // On two cores, one thread leaves a core idle, and another thread writes.
        let threads = if flags.contains(&"--force") { "1" } else { "2" };
        command
            .args(["pack", "--threads", threads])
            .args(["--shard-images", self.shard_images])
            .arg(self.dir.path().join(source))
            .arg("-o")
            .arg(self.out())
            .args(flags);
        command
    }

    /// The command: `over` an older set, or into an empty directory.
    pub fn command(&self, over: bool) -> Command {
        let force: &[&str] = if over { &["--force"] } else { &[] };
        match self.operation {
            Operation::Pack => self.pack("new", force),
            Operation::PackZstd => self.pack("new", &[force, &["--zstd"]].concat()),
            Operation::Expand => {
                assert!(over, "there must be something to expand");
                let mut command = tinyres();
                command.arg("expand").arg(self.out());
                command
            }
        }
    }

    /// Empties the output directory; if `over`, puts the older set there.
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

    /// The set that a reader finds. A set that passes for whole must be whole, and so must each file with
    /// the name of a shard.
    pub fn found(&self) -> Result<Found, String> {
        let out = self.out();
        let mut there = if out.exists() {
            files(&out)
        } else {
            Files::new()
        };
        there.retain(|name, _| !name.starts_with('.'));
        // Files of the one form may lie beside a set of the other.
        let is = |set: &Files| match self.operation {
            Operation::Expand => set
                .iter()
                .all(|(name, bytes)| there.get(name) == Some(bytes)),
            _ => there == *set,
        };
        match Manifest::load_any(&out) {
            Ok(found) if found == manifest(&self.new) && is(&self.new) => return Ok(Found::New),
            Ok(found) if found == manifest(&self.old) && is(&self.old) => return Ok(Found::Old),
            Ok(_) => return Err("what is there passes for whole, and is not".into()),
            Err(_) => {}
        }
        for path in shards_in(&out).unwrap_or_default() {
            let name = path.file_name().unwrap().to_str().unwrap();
            let whole = [&self.new, &self.old].map(|set| set.get(name));
            if !whole.contains(&there.get(name)) {
                return Err(format!("{name} has the name of a shard, but is not one"));
            }
        }
        Ok(Found::None)
    }

    /// Checks that every file of the older set is still somewhere: at its place, or where it was moved to.
    pub fn is_kept(&self) -> Result<(), String> {
        let out = self.out();
        let places = [out.clone(), out.join(".packing/replaced")];
        for (name, bytes) in &self.old {
            let is_here = |dir: &PathBuf| fs::read(dir.join(name)).is_ok_and(|it| it == *bytes);
            if !places.iter().any(is_here) {
                return Err(format!("{name} of the older set is lost"));
            }
        }
        Ok(())
    }

    /// Runs the command again, undisturbed: then the set is complete, and nothing else is left.
    pub fn complete(&self) -> Result<(), String> {
        let out = self.out();
        let there = out.join(MANIFEST).exists();
        let again = self.command(there).output().unwrap();
        if !again.status.success() || files(&out) != self.new {
            return Err(format!("run again, it does not complete: {again:?}"));
        }
        let left = fs::read_dir(&out).unwrap().count();
        if left != self.new.len() {
            return Err(format!("run again, it leaves {left} files"));
        }
        Ok(())
    }
}

pub fn tinyres() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin("tinyres"))
}

fn manifest(set: &Files) -> Manifest {
    Manifest::parse(&set[MANIFEST]).unwrap()
}
