//! Small Tiny ImageNet trees, and the real binary to run on them.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use assert_cmd::Command;
use turbojpeg::{Image, PixelFormat, Subsamp};

/// A tree as paths and contents, to be written as a directory or as a zip.
#[derive(Clone, Default)]
pub struct Tree(pub BTreeMap<String, Vec<u8>>);

/// The pixels that image `seed` is encoded from.
fn rgb(seed: usize, side: usize) -> Vec<u8> {
    (0..side * side * 3)
        .map(|at| u8::try_from((at * (seed + 3) / 7 + seed * 29) % 256).unwrap())
        .collect()
}

pub fn jpeg(seed: usize, side: usize, format: PixelFormat) -> Vec<u8> {
    let channels = format.size();
    let pixels = rgb(seed, side);
    let pixels: Vec<u8> = pixels
        .iter()
        .copied()
        .cycle()
        .take(side * side * channels)
        .collect();
    let image = Image {
        pixels: &pixels[..],
        width: side,
        pitch: side * channels,
        height: side,
        format,
    };
    let subsamp = if format == PixelFormat::GRAY {
        Subsamp::Gray
    } else {
        Subsamp::Sub2x2
    };
    turbojpeg::compress(image, 90, subsamp).unwrap().to_vec()
}

impl Tree {
    /// Two classes, listed in an order that sorting would change, with 5 train images each, one of
    /// them greyscale; 3 val images and 12 test images, whose natural order is not that of their bytes.
    pub fn small() -> Self {
        let mut tree = Self::default();
        tree.text("wnids.txt", "n02\nn01\n");
        tree.text(
            "words.txt",
            "n01\tgoldfish, Carassius auratus\nn02\tEgyptian cat\nn03\tnobody\n",
        );
        for (class, wnid) in ["n02", "n01"].into_iter().enumerate() {
            let mut boxes = String::new();
            for image in 0..5 {
                let format = if image == 3 {
                    PixelFormat::GRAY
                } else {
                    PixelFormat::RGB
                };
                let name = format!("{wnid}_{image}.JPEG");
                boxes += &format!("{name}\t{image}\t0\t63\t{}\n", 60 - image);
                tree.put(
                    &format!("train/{wnid}/images/{name}"),
                    jpeg(class * 10 + image, 64, format),
                );
            }
            tree.text(&format!("train/{wnid}/{wnid}_boxes.txt"), &boxes);
        }
        tree.text(
            "val/val_annotations.txt",
            "val_2.JPEG\tn01\t0\t0\t63\t63\nval_0.JPEG\tn02\t5\t6\t5\t9\nval_1.JPEG\tn01\t1\t2\t3\t4\n",
        );
        for image in 0..3 {
            tree.put(
                &format!("val/images/val_{image}.JPEG"),
                jpeg(50 + image, 64, PixelFormat::RGB),
            );
        }
        for image in 0..12 {
            tree.put(
                &format!("test/images/test_{image}.JPEG"),
                jpeg(70 + image, 64, PixelFormat::RGB),
            );
        }
        tree
    }

    pub fn put(&mut self, path: &str, bytes: Vec<u8>) {
        self.0.insert(path.to_owned(), bytes);
    }

    pub fn text(&mut self, path: &str, text: &str) {
        self.put(path, text.as_bytes().to_vec());
    }

    pub fn write_dir(&self, dir: &Path) {
        for (path, bytes) in &self.0 {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    pub fn write_tar(&self, path: &Path, prefix: &str) {
        let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
        for (name, bytes) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            let name = format!("{prefix}{name}");
            tar.append_data(&mut header, name, bytes.as_slice())
                .unwrap();
        }
        tar.finish().unwrap();
    }

    pub fn write_zip(&self, path: &Path, prefix: &str) {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (at, (name, bytes)) in self.0.iter().enumerate() {
            // Both methods, as in the wild.
            let method = [
                zip::CompressionMethod::Stored,
                zip::CompressionMethod::Deflated,
            ][at % 2];
            let options = zip::write::SimpleFileOptions::default().compression_method(method);
            zip.start_file(format!("{prefix}{name}"), options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        fs::write(path, zip.finish().unwrap().into_inner()).unwrap();
    }
}

/// A PNG of these interleaved RGB pixels.
pub fn png(rgb: &[u8], width: usize) -> Vec<u8> {
    let mut png = Vec::new();
    let [width, height] = [width, rgb.len() / width / 3].map(|side| u32::try_from(side).unwrap());
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(rgb).unwrap();
    writer.finish().unwrap();
    png
}

/// Copies the files of a directory to another, which is made.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for (name, bytes) in files(from) {
        fs::write(to.join(name), bytes).unwrap();
    }
}

pub fn tinyres() -> Command {
    Command::cargo_bin("tinyres").unwrap()
}

/// What a command that must fail with exit code `code` says on stderr.
pub fn failure(command: &mut Command, code: i32) -> String {
    let output = command.assert().failure().code(code).get_output().clone();
    assert!(output.stdout.is_empty(), "a failure has no result");
    String::from_utf8(output.stderr).unwrap()
}

/// The files of a directory, by name.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}
