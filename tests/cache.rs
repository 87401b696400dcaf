//! The cache of packed sources, and `tinyres cache`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Tree, failure, files, jpeg, png, tinyres};
use serde_json::Value;
use tinyres::cache::{Error, find, ready};
use tinyres::event::{Event, Observer};
use tinyres_format::{MANIFEST, Manifest, Split};
use turbojpeg::PixelFormat;

#[derive(Default)]
struct Notices(Vec<String>);

impl Observer for Notices {
    fn on(&mut self, event: &Event) {
        if let Event::Notice(text) = event {
            self.0.push(text.clone());
        }
    }
}

/// The directory for `source`, and what was said.
fn get(source: &Path, cache: &Path) -> (PathBuf, String) {
    let mut notices = Notices::default();
    let place = ready(source, &[Split::Train], Some(cache), &mut notices).unwrap();
    assert!(place.starts_with(cache.join("shards")));
    (place, notices.0.join("\n"))
}

/// The error of a source for training.
fn refused(source: &Path, cache: &Path) -> Error {
    let needed = [Split::Train, Split::Val];
    let error = ready(source, &needed, Some(cache), &mut ()).unwrap_err();
    let shards = cache.join("shards");
    let left = shards.exists() && fs::read_dir(shards).unwrap().next().is_some();
    assert!(!left, "{error}");
    error
}

#[test]
fn a_source_is_packed_once_until_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, zip) = (dir.path().join("tree"), dir.path().join("tree.zip"));
    Tree::small().write_dir(&tree);
    Tree::small().write_zip(&zip, "");
    let cache = dir.path().join("cache");
    let shards = dir.path().join("shards");
    let mut pack = tinyres();
    pack.arg("pack").arg(&zip).arg("-o").arg(&shards);
    pack.assert().success();
    let expected = files(&shards);

    let mut places = Vec::new();
    for source in [&tree, &zip] {
        let (place, said) = get(source, &cache);
        assert!(said.contains("packing it to"), "{said}");
        assert!(
            said.contains("25 images of 3x64x64 and 2 classes"),
            "{said}"
        );
        assert!(files(&place) == expected);
        let written = || fs::metadata(place.join(MANIFEST)).unwrap().modified();
        let first = written().unwrap();
        let (again, said) = get(source, &cache);
        assert!(said.contains("using the shards packed to"), "{said}");
        assert_eq!((again, written().unwrap()), (place.clone(), first));
        places.push(place);
    }

    // Another image of the same name and an older time; another label; another archive.
    let image = tree.join("train/n01/images/n01_0.JPEG");
    let old =
        fs::metadata(&image).unwrap().modified().unwrap() - std::time::Duration::from_secs(99);
    let other = dir.path().join("other.JPEG");
    fs::write(&other, jpeg(99, 64, PixelFormat::RGB)).unwrap();
    let file = fs::File::options().write(true).open(&other).unwrap();
    file.set_modified(old).unwrap();
    fs::rename(other, image).unwrap();
    let list = tree.join("val/val_annotations.txt");
    let text = fs::read_to_string(&list).unwrap();
    let (with_image, said) = get(&tree, &cache);
    assert!(said.contains("packing it to"), "{said}");
    fs::write(&list, text.replace("val_0.JPEG\tn02", "val_0.JPEG\tn01")).unwrap();
    let (with_label, said) = get(&tree, &cache);
    assert!(said.contains("packing it to"), "{said}");
    Tree::small().write_zip(&zip, "inside/");
    let (with_prefix, said) = get(&zip, &cache);
    assert!(said.contains("packing it to"), "{said}");
    places.extend([with_image, with_label, with_prefix]);
    // The sets of before are still there.
    for place in &places {
        assert!(place.join(MANIFEST).exists());
        assert_eq!(places.iter().filter(|other| *other == place).count(), 1);
    }
    fs::write(list, text).unwrap();
    assert_eq!(get(&tree, &cache).0, places[2]);

    // A run finds its set by what it holds.
    let manifest = Manifest::load(&places[1]).unwrap();
    fs::remove_file(zip).unwrap();
    let own = |place: &Path| (place == places[1]).then_some(());
    assert_eq!(find(&cache, manifest.fingerprint, own, &mut ()), Some(()));
}

#[test]
fn a_damaged_or_unrecorded_set_is_packed_again() {
    let dir = tempfile::tempdir().unwrap();
    let (zip, cache) = (dir.path().join("tree.zip"), dir.path().join("cache"));
    Tree::small().write_zip(&zip, "");
    let (place, _) = get(&zip, &cache);
    let whole = files(&place);
    let damage: [fn(&Path); 3] = [
        |place| fs::remove_file(place.join("val-00000.bin")).unwrap(),
        |place| fs::write(place.join(MANIFEST), "{").unwrap(),
        |place| fs::remove_file(place.with_extension("json")).unwrap(),
    ];
    for damage in damage {
        damage(&place);
        let (again, said) = get(&zip, &cache);
        assert!(said.contains("packing it to"), "{said}");
        assert_eq!(again, place);
        assert!(files(&place) == whole);
        assert!(get(&zip, &cache).1.contains("using the shards"));
    }
}

#[test]
fn several_at_once_pack_once() {
    let dir = tempfile::tempdir().unwrap();
    let (zip, cache) = (dir.path().join("tree.zip"), dir.path().join("cache"));
    Tree::small().write_zip(&zip, "");
    let said: Vec<_> = std::thread::scope(|scope| {
        let runs = [0, 1, 2].map(|_| scope.spawn(|| get(&zip, &cache)));
        runs.map(|run| run.join().unwrap()).into()
    });
    let packed = said
        .iter()
        .filter(|(_, said)| said.contains("packing it to") && said.contains("images/s"));
    assert_eq!(packed.count(), 1, "{said:?}");
    assert!(said.iter().all(|(place, _)| *place == said[0].0));
}

/// Writes to a source while it is packed.
struct Writer(Option<PathBuf>);

impl Observer for Writer {
    fn on(&mut self, event: &Event) {
        if let Event::Begin { .. } = event
            && let Some(path) = self.0.take()
        {
            fs::write(path, jpeg(77, 64, PixelFormat::RGB)).unwrap();
        }
    }
}

#[test]
fn a_source_that_changes_while_it_is_packed_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, cache) = (dir.path().join("tree"), dir.path().join("cache"));
    Tree::small().write_dir(&tree);
    for image in ["train/n01/images/n01_0.JPEG", "test/images/test_0.JPEG"] {
        let mut writer = Writer(Some(tree.join(image)));
        let error = ready(&tree, &[], Some(&cache), &mut writer).unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
        assert_eq!(fs::read_dir(cache.join("shards")).unwrap().count(), 0);
    }
    assert!(get(&tree, &cache).1.contains("packing it to"));
}

/// Runs the command that an error names in backticks, in `dir`.
#[track_caller]
fn follow(error: &Error, dir: &Path) {
    let text = error.to_string();
    let command = text.split('`').find(|part| part.ends_with(" -o shards"));
    let command = command.unwrap_or_else(|| panic!("{text}"));
    let program = assert_cmd::cargo::cargo_bin!("tinyres");
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .env("PATH", program.parent().unwrap())
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    let shards = dir.join("shards");
    let set = Manifest::load(&shards).unwrap();
    assert!(set.split(Split::Train).is_some() && set.split(Split::Val).is_some());
    fs::remove_dir_all(shards).unwrap();
}

#[test]
fn what_cannot_be_packed_without_flags_names_the_command_that_can() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let set = |name: &str, side: fn(usize) -> usize, splits: &[&str]| {
        let mut tree = Tree::default();
        for (class, split) in
            (0..2).flat_map(|class| splits.iter().map(move |split| (class, split)))
        {
            for image in 0..6 {
                let side = side(image);
                let path = format!("{split}/{class}/{image}.png");
                tree.put(&path, png(&vec![7; side * side * 2 * 3], side * 2));
                tree.put(
                    &path.replace(".png", ".jpg"),
                    jpeg(image, side, PixelFormat::RGB),
                );
            }
        }
        let dir = dir.path().join(name);
        tree.write_dir(&dir);
        dir
    };
    let odd = set("it's my set", |image| 40 + image, &["train", "val"]);
    let error = refused(&odd, &cache);
    assert!(error.to_string().contains("--size resizes all"), "{error}");
    follow(&error, dir.path());
    let wide = set("wide", |_| 40, &["train", "val"]);
    for name in ["train/0/0.jpg", "train/0/1.jpg", "train/1/0.jpg"] {
        fs::remove_file(wide.join(name)).unwrap();
    }
    let error = refused(&wide, &cache);
    assert!(error.to_string().contains("--size 64, say"), "{error}");
    follow(&error, dir.path());
    fs::write(odd.join("train/0/bad.jpg"), "no JPEG").unwrap();
    follow(&refused(&odd, &cache), dir.path());

    let bare = dir.path().join("bare");
    let mut tree = Tree::default();
    for image in 0..40 {
        tree.put(
            &format!("{}/{image}.jpg", image % 2),
            jpeg(image, 16, PixelFormat::RGB),
        );
    }
    tree.write_dir(&bare);
    let error = refused(&bare, &cache);
    assert!(
        error.to_string().contains("bare: no val split, only train"),
        "{error}"
    );
    follow(&error, dir.path());
    // The same for a set that is in the cache, since evaluation took it.
    let place = ready(&bare, &[Split::Train], Some(&cache), &mut ()).unwrap();
    let error = ready(&bare, &[Split::Train, Split::Val], Some(&cache), &mut ()).unwrap_err();
    follow(&error, dir.path());
    assert!(place.join(MANIFEST).exists());
    fs::remove_dir_all(&cache).unwrap();

    let bad = dir.path().join("bad");
    let mut tree = Tree::small();
    tree.text("train/n01/images/n01_0.JPEG", "no JPEG");
    tree.write_dir(&bad);
    let error = refused(&bad, &cache);
    assert!(error.to_string().contains("--skip-bad"), "{error}");
    follow(&error, dir.path());

    let nothing = dir.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    let error = refused(&nothing, &cache).to_string();
    assert!(
        error.contains("nothing: not a packed set, since it has no dataset.json"),
        "{error}"
    );
    let error = ready(&bad, &[], None, &mut ()).unwrap_err().to_string();
    assert!(error.contains("set TINYRES_CACHE"), "{error}");
}

fn cache(dir: &Path, args: &[&str]) -> Value {
    let mut command = tinyres();
    command.env("TINYRES_CACHE", dir).arg("cache").args(args);
    let output = command
        .arg("--json")
        .assert()
        .success()
        .get_output()
        .clone();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn sets_are_listed_and_removed_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("cache");
    assert_eq!(cache(&home, &[])["sets"], Value::Array(Vec::new()));
    let zips = ["a.zip", "b.zip", "c.zip"].map(|name| dir.path().join(name));
    let places = zips.each_ref().map(|zip| {
        Tree::small().write_zip(zip, "");
        get(zip, &home).0
    });
    // Of a tool of its own, and of the user.
    fs::create_dir_all(home.join("libtorch")).unwrap();
    fs::create_dir_all(home.join("shards/mine")).unwrap();
    let days = |days: u64| {
        std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400 + 60)
    };
    for (place, age) in places.iter().zip([0, 2, 40]) {
        let record = place.with_extension("json");
        let record = fs::File::options().write(true).open(record).unwrap();
        record.set_modified(days(age)).unwrap();
    }
    let all = cache(&home, &[]);
    let sets = all["sets"].as_array().unwrap();
    let of = |key: &str| sets.iter().map(|set| set[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("unused_days"), [0, 2, 40]);
    assert_eq!(of("images"), [25; 3]);
    let origins = zips.each_ref().map(|zip| zip.canonicalize().unwrap());
    assert_eq!(
        of("origin"),
        origins.map(|path| path.to_str().unwrap().to_owned())
    );
    let bytes: usize = files(&places[0]).values().map(Vec::len).sum();
    assert_eq!(
        (&of("bytes")[0], &all["bytes"]),
        (&bytes.into(), &(3 * bytes).into())
    );
    let text = tinyres()
        .env("TINYRES_CACHE", &home)
        .arg("cache")
        .assert()
        .success();
    let text = String::from_utf8(text.get_output().stdout.clone()).unwrap();
    let line = format!(
        "        25  {:>9}  40 days ago   ",
        tinyres::text::Bytes(bytes as u64).to_string()
    );
    assert!(text.contains(&line), "{text}");

    // One that is being made stays.
    let lock = fs::File::open(&places[1]).unwrap();
    lock.lock().unwrap();
    assert_eq!(
        cache(&home, &["--clear", "--unused", "30"])["sets"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert!(!places[2].exists() && !places[2].with_extension("json").exists());
    assert_eq!(
        cache(&home, &["--clear"])["sets"].as_array().unwrap().len(),
        1
    );
    assert!(!places[0].exists() && places[1].join(MANIFEST).exists());
    drop(lock);
    assert_eq!(cache(&home, &["--clear"])["removed"], true);
    assert!(!places[1].exists());
    assert!(home.join("libtorch").exists() && home.join("shards/mine").exists());
    // A user of the last one makes it again.
    assert_eq!(get(&zips[0], &home).0, places[0]);
    let mut command = tinyres();
    command
        .env_remove("TINYRES_CACHE")
        .env_remove("HOME")
        .env_remove("XDG_CACHE_HOME");
    let said = failure(command.arg("cache"), 1);
    assert!(said.contains("set TINYRES_CACHE"), "{said}");
}
