//! Messages of `tinyres` that say what to do, followed: `remedies.toml` lists them.

mod common;
#[path = "common/remedies.rs"]
mod remedies;
#[path = "common/skip.rs"]
mod skip;

use std::fs;
use std::path::Path;

use common::{Tree, jpeg, png};
use remedies::{Table, check_complete};
use turbojpeg::PixelFormat;

/// Class folders of two classes, with 5 images each in train and 2 in val.
fn photos() -> Tree {
    let mut tree = Tree::default();
    for (at, class) in ["cat", "dog"].into_iter().enumerate() {
        for image in 0..7 {
            let (split, number) = if image < 5 {
                ("train", image)
            } else {
                ("val", image - 5)
            };
            let bytes = jpeg(at * 10 + image, 64, PixelFormat::RGB);
            tree.put(&format!("{split}/{class}/{number}.jpg"), bytes);
        }
    }
    tree
}

/// A PNG of 64x64 greys of 16 bits.
fn grey16() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 64, 64);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Sixteen);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[9; 64 * 64 * 2]).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn what_messages_say_to_do_works() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    Tree::small().write_dir(&path("tiny"));
    photos().write_dir(&path("photos"));
    photos().write_zip(&path("photos.zip"), "");
    let grey = [100; 96 * 64 * 3];
    for (name, bytes) in [
        ("small.jpg", jpeg(1, 32, PixelFormat::RGB)),
        ("wide.png", png(&grey, 96)),
        ("square.png", png(&grey[..64 * 64 * 3], 64)),
        ("grey16.png", grey16()),
    ] {
        fs::write(path(name), bytes).unwrap();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = assert_cmd::cargo::cargo_bin!("tinyres");
    let table = Table::read(&root.join("tests/remedies.toml"));
    table.follow(programs.parent().unwrap(), |command| {
        command
            .env("TINY", path("tiny"))
            .env("PHOTOS", path("photos"))
            .env("SMALL", path("small.jpg"))
            .env("WIDE", path("wide.png"))
            .env("PNG", path("square.png"))
            .env("GREY16", path("grey16.png"))
            .env("SERVE", root.join("tests/common/serve.py"))
            .env("GOLDEN", root.join("tests/golden/sources"));
    });
}

#[test]
fn every_message_that_says_what_to_do_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tables =
        ["tests", "torch/tests"].map(|tests| Table::read(&root.join(tests).join("remedies.toml")));
    let sources = [
        "src",
        "format/src",
        "load/src",
        "results/src",
        "view/src",
        "remote/src",
        "torch/src",
    ]
    .map(|folder| root.join(folder));
    check_complete(&tables, &sources.each_ref().map(|folder| folder.as_path()));
}
