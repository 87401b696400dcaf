//! Messages of the commands that need libtorch which say what to do, followed: `remedies.toml` lists them.
#![cfg(feature = "torch")]

mod common;
#[path = "../../tests/common/remedies.rs"]
mod remedies;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::fs;
use std::path::Path;

use remedies::Table;
use tinyres::sample;

/// Class folders of three classes, 8 images each in train and 2 in val.
fn photos(dir: &Path) {
    let config = sample::Config {
        classes: 3,
        train_per_class: 10,
        val_per_class: 0,
        test: 0,
        seed: 0,
        threads: 1,
    };
    let set = dir.with_extension("sample");
    sample::write(&set, &config, &mut ()).unwrap();
    for class in fs::read_dir(set.join("train")).unwrap() {
        let class = class.unwrap();
        let mut images: Vec<_> = fs::read_dir(class.path().join("images"))
            .unwrap()
            .map(|image| image.unwrap().path())
            .collect();
        images.sort();
        for (at, image) in images.iter().enumerate() {
            let split = if at < 8 { "train" } else { "val" };
            let folder = dir.join(split).join(class.file_name());
            fs::create_dir_all(&folder).unwrap();
            fs::copy(image, folder.join(format!("{at}.jpg"))).unwrap();
        }
    }
}

#[test]
fn what_messages_say_to_do_works() {
    let programs = assert_cmd::cargo::cargo_bin!("tinyres-torch");
    if !programs.with_file_name("tinyres").exists() {
        return skip::skip("tinyres is not built; cargo build builds it");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    photos(&path("photos"));
    for (name, classes, val) in [("shards", 3, 9), ("other", 4, 9), ("noval", 3, 0)] {
        fs::create_dir(path(name)).unwrap();
        common::write(&path(name), &common::wnids(classes), 24, val);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = Table::read(&root.join("tests/remedies.toml"));
    table.follow(programs.parent().unwrap(), |command| {
        command
            .env("PHOTOS", path("photos"))
            .env("SHARDS", path("shards"))
            .env("OTHER", path("other"))
            .env("NOVAL", path("noval"))
            .env("WEIGHTS", root.join("golden"))
            .env("SHORT", "--max-steps=2 --batch=8 --threads=1 --device=cpu")
            // Whatever is set keeps the program from starting again to set it.
            .env("GOMP_SPINCOUNT", "20000");
    });
}
