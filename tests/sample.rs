//! Reads a sample set back with a parser that shares nothing with its writer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use tinyres::event::{Event, Observer};
use tinyres::sample::{self, AtomicDirError, Config, Error, MAX_CLASSES, SampleReport};

const SMALL: Config = Config {
    classes: 12,
    train_per_class: 30,
    val_per_class: 5,
    test: 7,
    seed: 3,
    threads: 2,
};

/// Keeps what it is told.
#[derive(Default)]
struct Log(Vec<Event>);

impl Observer for Log {
    fn on(&mut self, event: &Event) {
        self.0.push(event.clone());
    }
}

fn write(dir: &Path, config: &Config) -> Result<SampleReport, Error> {
    sample::write(dir, config, &mut ())
}

/// A set in a directory that vanishes with it.
fn set(config: &Config) -> (tempfile::TempDir, PathBuf, SampleReport) {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("set");
    let report = write(&root, config).unwrap();
    (temporary, root, report)
}

/// Every file below `root`, by its path from there.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(
                    path.strip_prefix(root).unwrap().to_owned(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    found
}

fn lines(root: &Path, path: impl AsRef<Path>) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root.join(path)).unwrap();
    assert!(text.ends_with('\n'));
    text.lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

/// Checks the four fields of a box: inclusive pixels.
fn check_box(fields: &[String]) {
    let [x0, y0, x1, y1] = [0, 1, 2, 3].map(|i| fields[i].parse::<u32>().unwrap());
    assert!(
        fields.len() == 4 && x0 <= x1 && y0 <= y1 && x1 < 64 && y1 < 64,
        "{fields:?}"
    );
}

#[test]
fn layout_is_that_of_tiny_imagenet() {
    let (_temporary, root, report) = set(&SMALL);
    let mut rest = files(&root);
    let mut take = |path: String| {
        rest.remove(Path::new(&path))
            .unwrap_or_else(|| panic!("no {path}"))
    };

    let wnids: Vec<String> = lines(&root, "wnids.txt")
        .into_iter()
        .map(|mut line| line.remove(0))
        .collect();
    assert_eq!(wnids.iter().collect::<HashSet<_>>().len(), 12);
    assert!(!wnids.is_sorted());
    take("wnids.txt".into());
    let words: HashMap<_, _> = lines(&root, "words.txt")
        .into_iter()
        .map(|line| (line[0].clone(), line[1].clone()))
        .collect();
    assert_eq!(words.len(), 300);
    assert_eq!(words[&wnids[1]], "yellow striped star");
    take("words.txt".into());

    let mut jpegs = Vec::new();
    for wnid in &wnids {
        assert!(words.contains_key(wnid));
        let boxes = format!("train/{wnid}/{wnid}_boxes.txt");
        let found = lines(&root, &boxes);
        assert_eq!(found.len(), 30);
        for (i, fields) in found.iter().enumerate() {
            assert_eq!(fields[0], format!("{wnid}_{i}.JPEG"));
            check_box(&fields[1..]);
            jpegs.push(take(format!("train/{wnid}/images/{}", fields[0])));
        }
        take(boxes);
    }
    let found = lines(&root, "val/val_annotations.txt");
    let mut of_class = HashMap::new();
    for (i, fields) in found.iter().enumerate() {
        assert_eq!(fields[0], format!("val_{i}.JPEG"));
        *of_class.entry(fields[1].clone()).or_insert(0) += 1;
        check_box(&fields[2..]);
        jpegs.push(take(format!("val/images/{}", fields[0])));
    }
    assert_eq!(
        of_class,
        wnids.iter().map(|wnid| (wnid.clone(), 5)).collect()
    );
    take("val/val_annotations.txt".into());
    jpegs.extend((0..7).map(|i| take(format!("test/images/test_{i}.JPEG"))));
    assert_eq!(rest.keys().collect::<Vec<_>>(), Vec::<&PathBuf>::new());

    let mut grey = 0;
    for jpeg in &jpegs {
        let header = turbojpeg::read_header(jpeg).unwrap();
        assert_eq!((header.width, header.height), (64, 64));
        grey += u64::from(header.subsamp == turbojpeg::Subsamp::Gray);
    }
    assert!(grey > 0);
    let bytes = jpegs.iter().map(|jpeg| jpeg.len() as u64).sum();
    assert_eq!(
        report,
        SampleReport {
            classes: 12,
            train: 360,
            val: 60,
            test: 7,
            grey,
            bytes
        }
    );
}

#[test]
fn a_picture_depends_on_seed_split_class_and_number_alone() {
    let (_a, root, _) = set(&SMALL);
    let whole = files(&root);
    let (_b, other, _) = set(&Config {
        threads: 1,
        ..SMALL
    });
    assert!(whole == files(&other), "another number of threads");

    let (_c, other, _) = set(&Config {
        classes: 3,
        train_per_class: 4,
        val_per_class: 1,
        test: 1,
        ..SMALL
    });
    for (path, bytes) in files(&other)
        .iter()
        .filter(|(path, _)| path.extension().unwrap() == "JPEG")
    {
        assert!(*bytes == whole[path], "{} in a smaller set", path.display());
    }
    let (_d, other, _) = set(&Config { seed: 4, ..SMALL });
    let path = Path::new("test/images/test_0.JPEG");
    assert_ne!(whole[path], files(&other)[path]);
    let kinds: HashSet<_> = whole.values().collect();
    assert!(kinds.len() > 426, "no two pictures are the same");
}

#[test]
fn progress_ends_at_the_total() {
    let temporary = tempfile::tempdir().unwrap();
    let mut log = Log::default();
    sample::write(&temporary.path().join("set"), &SMALL, &mut log).unwrap();
    let [
        Event::Begin { total, .. },
        ..,
        Event::Advance { done },
        Event::End,
    ] = &log.0[..]
    else {
        panic!("{:?}", log.0);
    };
    assert_eq!((*total, *done), (427, 427));
}

#[test]
fn nothing_is_overwritten() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("a").join("set");
    fs::create_dir_all(&dir).unwrap();
    write(&dir, &SMALL).unwrap(); // an empty directory is no obstacle

    fs::write(dir.join("wnids.txt"), "mine").unwrap();
    let error = write(&dir, &SMALL).unwrap_err();
    assert!(
        matches!(&error, Error::Directory(AtomicDirError::Exists(path)) if *path == dir),
        "{error}"
    );
    let error = write(&dir.join("wnids.txt"), &SMALL).unwrap_err();
    assert!(
        matches!(error, Error::Directory(AtomicDirError::Exists(_))),
        "{error}"
    );
    assert_eq!(fs::read_to_string(dir.join("wnids.txt")).unwrap(), "mine");
    assert_eq!(
        fs::read_dir(dir.parent().unwrap()).unwrap().count(),
        1,
        "nothing else is left"
    );
}

#[test]
fn leftovers_of_a_killed_run_are_replaced() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("set");
    let leftover = temporary.path().join(".set.tmp");
    fs::create_dir_all(leftover.join("train/old")).unwrap();
    fs::write(leftover.join("old.txt"), "old").unwrap();

    let running = fs::File::open(&leftover).unwrap();
    running.lock().unwrap();
    let error = write(&dir, &SMALL).unwrap_err();
    assert!(
        matches!(error, Error::Directory(AtomicDirError::Busy(_))),
        "{error}"
    );
    drop(running);

    write(&dir, &SMALL).unwrap();
    assert!(!dir.join("old.txt").exists() && !dir.join("train/old").exists());
    assert!(!leftover.exists());
}

#[test]
fn class_counts_are_bounded() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("set");
    for classes in [0, MAX_CLASSES + 1] {
        let error = write(&dir, &Config { classes, ..SMALL }).unwrap_err();
        assert!(
            matches!(error, Error::Classes { got } if got == classes),
            "{error}"
        );
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}
