//! Decoded and resized pixels, compared with those of Pillow and torchvision, which
//! `tools/witness/pillow_pictures.py` recorded.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Tree, failure, files, jpeg, tinyres};
use sha2::{Digest as _, Sha256};
use tinyres_format::{Manifest, Shard};
use turbojpeg::{Image, PixelFormat, Subsamp};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/pictures")
        .join(name)
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&fs::read(golden(name)).unwrap()).unwrap()
}

fn pack(source: &Path, output: &Path, flags: &[&str]) -> assert_cmd::Command {
    let mut command = tinyres();
    command.arg("pack").arg(source).arg("-o").arg(output);
    command.args(flags);
    command
}

/// A packed image: planar pixels, label and box.
#[derive(Clone, Debug, PartialEq)]
struct Packed {
    pixels: Vec<u8>,
    label: i64,
    bbox: [i32; 4],
}

/// Packs `source`, checks the set, and returns its images by split and name.
fn packed(source: &Path, flags: &[&str]) -> BTreeMap<String, Packed> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("shards");
    pack(source, &out, flags).assert().success();
    let mut inspect = tinyres();
    inspect.arg("inspect").arg(&out).arg("--verify");
    inspect.assert().success();
    let manifest = Manifest::load(&out).unwrap();
    let mut images = BTreeMap::new();
    for entry in &manifest.splits {
        for listed in &entry.shards {
            let shard = Shard::new(fs::read(out.join(&listed.file)).unwrap()).unwrap();
            for at in 0..shard.len() {
                let name = format!("{}: {}", entry.split, shard.name(at).unwrap().unwrap());
                let image = Packed {
                    pixels: shard.image(at).unwrap().to_vec(),
                    label: shard.labels()[at].get(),
                    bbox: shard.boxes()[at].map(|side| side.get()),
                };
                assert!(images.insert(name, image).is_none());
            }
        }
    }
    images
}

/// EXIF of all orientations, and PNG of all kinds of pixels.
#[test]
fn pixels_are_those_of_pillow() {
    let expected: BTreeMap<String, String> = json("exact.json");
    // `--size` does not change an image of that size.
    for flags in [&[][..], &["--size", "16"], &["--size", "16", "--squash"]] {
        let found: BTreeMap<String, String> = packed(&golden("exact"), flags)
            .into_iter()
            .map(|(name, image)| {
                let digest = Sha256::digest(&image.pixels);
                let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                (name.strip_prefix("train: ").unwrap().to_owned(), digest)
            })
            .collect();
        assert_eq!(found, expected);
    }
}

#[derive(serde::Deserialize)]
struct Resized {
    crop: String,
    squash: String,
}

#[test]
fn resized_pixels_are_those_of_torchvision_but_for_one_level() {
    let expected: BTreeMap<String, Resized> = json("resized.json");
    for squash in [false, true] {
        let flags = ["--size", "16", "--squash"];
        let found = packed(&golden("resized"), &flags[..2 + usize::from(squash)]);
        assert_eq!(found.len(), expected.len());
        for (name, resized) in &expected {
            let hex = if squash {
                &resized.squash
            } else {
                &resized.crop
            };
            let levels = hex.as_bytes().chunks(2).map(|digits| {
                let digits = std::str::from_utf8(digits).unwrap();
                u8::from_str_radix(digits, 16).unwrap()
            });
            let pixels = &found[&format!("train: {name}")].pixels;
            assert_eq!(levels.len(), pixels.len());
            let most = levels.zip(pixels).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(
                most <= Some(1),
                "{name} differs by {most:?} levels, squash {squash}"
            );
        }
    }
}

#[test]
fn images_that_cannot_be_packed_are_named() {
    let expected: BTreeMap<String, String> = json("refused.json");
    let dir = tempfile::tempdir().unwrap();
    let train = dir.path().join("set/train");
    fs::create_dir_all(&train).unwrap();
    common::copy(&golden("refused"), &train.join("bad"));
    common::copy(&golden("exact/exif"), &train.join("good"));
    // A class must keep an image.
    let exif = fs::read_dir(golden("exact/exif")).unwrap().next().unwrap();
    fs::copy(exif.unwrap().path(), train.join("bad/whole.jpg")).unwrap();
    let out = dir.path().join("shards");
    let error = failure(&mut pack(&dir.path().join("set"), &out, &[]), 1);
    assert!(
        error.contains(&format!("{} problems", expected.len())),
        "{error}"
    );
    for (name, reason) in &expected {
        let line = error
            .lines()
            .find(|line| line.contains(&format!("bad/{name}: ")));
        assert!(
            line.is_some_and(|line| line.contains(reason)),
            "{name}\n{error}"
        );
    }
    let found = packed(&dir.path().join("set"), &["--skip-bad"]);
    assert_eq!(
        found.len(),
        1 + fs::read_dir(golden("exact/exif")).unwrap().count()
    );
}

/// Files of a few bytes whose headers state more pixels than memory holds.
#[test]
fn decompression_bombs_are_refused_before_allocating() {
    let mut tree = Tree::default();
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 16, 16);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&[0; 16 * 16 * 3])
        .unwrap();
    for size in [65535_u32, 1 << 30] {
        let mut bomb = png.clone();
        bomb[16..20].copy_from_slice(&size.to_be_bytes());
        bomb[20..24].copy_from_slice(&size.to_be_bytes());
        let crc = crc32fast::hash(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        tree.put(&format!("train/a/{size}.png"), bomb);
    }
    let mut bomb = jpeg(1, 16, PixelFormat::RGB);
    frame(&mut bomb)[5..9].fill(0xff);
    tree.put("train/a/bomb.jpg", bomb);
    // Too large only as the intermediate image of a resize.
    let long = Image {
        pixels: &vec![9; 65500][..],
        width: 1,
        pitch: 1,
        height: 65500,
        format: PixelFormat::GRAY,
    };
    let long = turbojpeg::compress(long, 90, Subsamp::Gray).unwrap();
    tree.put("train/a/long.jpg", long.to_vec());
    let dir = tempfile::tempdir().unwrap();
    let (set, out) = (dir.path().join("set"), dir.path().join("shards"));
    tree.write_dir(&set);
    for flags in [
        &[][..],
        &["--size", "4096"],
        &["--size", "4096", "--squash"],
    ] {
        // Limit the process to 1 GB of address space.
        let mut command = std::process::Command::new("sh");
        let script = r#"ulimit -v 1000000 && exec "$0" "$@""#;
        let tinyres = assert_cmd::cargo::cargo_bin("tinyres");
        command
            .args(["-c", script])
            .arg(tinyres)
            .arg("pack")
            .arg(&set)
            .arg("-o")
            .arg(&out);
        let output = command
            .args(["--threads", "1"])
            .args(flags)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let bombs = error.matches("too large, at most 178956970").count();
        match flags {
            [] => assert!(
                error.contains("long.jpg: 1x65500 pixels, the most frequent size"),
                "{error}"
            ),
            _ => {
                assert_eq!(bombs, 3, "{error}");
                let long = "long.jpg: 1x65500 pixels: too large for a resize to this size; use --size 2732 or less";
                assert!(error.contains(long), "{error}");
            }
        }
    }
}

/// Bytes of `jpeg` from its frame header, marker FFC0 to FFC2, on.
fn frame(jpeg: &mut [u8]) -> &mut [u8] {
    let at = (jpeg.windows(2)).position(|pair| matches!(pair, [0xff, 0xc0..=0xc2]));
    &mut jpeg[at.unwrap()..]
}

/// A few good images, and `bad` ones that come first.
fn with_bad(bad: Vec<(&str, Vec<u8>)>, dir: &Path) -> PathBuf {
    let mut tree = Tree::default();
    for at in 0..2 + bad.len() {
        tree.put(
            &format!("train/a/z{at}.jpg"),
            jpeg(at, 16, PixelFormat::RGB),
        );
    }
    for (name, bytes) in bad {
        tree.put(&format!("train/a/{name}"), bytes);
    }
    let set = dir.join("set");
    tree.write_dir(&set);
    set
}

#[test]
fn images_of_zero_pixels_are_bad_images() {
    let dir = tempfile::tempdir().unwrap();
    let mut flat = jpeg(1, 16, PixelFormat::RGB);
    frame(&mut flat)[5..7].fill(0);
    let mut thin = jpeg(1, 16, PixelFormat::RGB);
    frame(&mut thin)[7..9].fill(0);
    let mut png = common::png(&[0; 16 * 16 * 3], 16);
    png[20..24].fill(0);
    let crc = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let gif = b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\x10\0\0\0\0\x02\x01\0\0;".to_vec();
    let bad = vec![
        ("flat.jpg", flat),
        ("gif.jpg", gif),
        ("png.png", png),
        ("pnm.ppm", b"P6\n16 0\n255\n".to_vec()),
        ("thin.jpg", thin),
    ];
    let set = with_bad(bad, dir.path());
    let out = dir.path().join("shards");
    let error = failure(&mut pack(&set, &out, &[]), 1);
    assert!(error.contains("5 problems"), "{error}");
    assert!(
        error.contains("train/a/flat.jpg: undecodable: an image of 16x0 pixels"),
        "{error}"
    );
    assert!(
        error.contains("train/a/thin.jpg: undecodable: an image of 0x16 pixels"),
        "{error}"
    );
    for flags in [&["--skip-bad"][..], &["--skip-bad", "--size", "16"]] {
        assert_eq!(packed(&set, flags).len(), 7);
    }
}

/// A scan of a few bytes takes as long as any other.
#[test]
fn jpegs_of_very_many_scans_are_refused() {
    let noise: Vec<u8> = (0..64 * 64 * 3_u32)
        .map(|at| (at * at / 7).to_le_bytes()[0])
        .collect();
    let image = Image {
        pixels: &noise[..],
        width: 64,
        pitch: 64 * 3,
        height: 64,
        format: PixelFormat::RGB,
    };
    let mut compressor = turbojpeg::Compressor::new().unwrap();
    compressor.set_progressive(true).unwrap();
    let whole = compressor.compress_to_vec(image).unwrap();
    let last = whole.windows(2).rposition(|pair| pair == [0xff, 0xda]);
    let (head, scan) = whole[..whole.len() - 2].split_at(last.unwrap());
    // The last scan again and again, which libjpeg warns of, and reads.
    let scans = |count| [head, &scan.repeat(count), &[0xff, 0xd9]].concat();
    let bad = vec![
        ("bomb.jpg", scans(500)),
        ("many.jpg", scans(400)),
        ("some.jpg", whole.clone()),
    ];
    let dir = tempfile::tempdir().unwrap();
    let set = with_bad(bad, dir.path());
    let error = failure(
        &mut pack(&set, &dir.path().join("shards"), &["--size", "16"]),
        1,
    );
    assert!(error.contains("1 problem\n"), "{error}");
    assert!(
        error.contains(
            "train/a/bomb.jpg: undecodable: Progressive JPEG image has more than 500 scans"
        ),
        "{error}"
    );
    assert_eq!(packed(&set, &["--size", "16", "--skip-bad"]).len(), 7);
}

#[test]
fn conversions_that_lose_colours_are_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("shards");
    let mut command = pack(&golden("exact"), &out, &[]);
    let text = String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap();
    for line in [
        "1 image of CMYK, converted to RGB without a colour profile; --json names all, the first is other/cmyk.jpg",
        "1 image of grey levels of more than 8 bits, of which those above 255 became 255; --json names all, the first is other/grey16.png",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("damaged"), "{text}");
    // Neither is lost when the set is there already.
    let mut command = pack(&golden("exact"), &out, &["--json"]);
    let report = command.assert().success().get_output().stdout.clone();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["unchanged"], true);
    let warned = report["warned"].as_array().unwrap();
    let names: Vec<_> = warned.iter().map(|image| &image["name"]).collect();
    assert_eq!(names, ["other/cmyk.jpg", "other/grey16.png"]);
    assert_eq!(report["splits"][0]["warned"], 2);
}

/// A TIFF of one strip or tile, grey, with `entries` more or others: a tag and a number each, `u32::MAX` to leave it
/// out.
fn tiff(side: u32, entries: &[(u16, u32)], data: &[u8]) -> Vec<u8> {
    let usual = [
        (256, side),
        (257, side),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (279, 0),
    ];
    let mut all: BTreeMap<u16, u32> = usual.into();
    all.insert(279, u32::try_from(data.len()).unwrap());
    all.extend(entries.iter().copied());
    all.retain(|_, number| *number != u32::MAX);
    let start = 8 + u32::try_from(data.len()).unwrap();
    let count = u16::try_from(all.len()).unwrap();
    let mut file = [
        b"II*\0",
        &start.to_le_bytes()[..],
        data,
        &count.to_le_bytes(),
    ]
    .concat();
    for (tag, number) in all {
        file.extend([tag.to_le_bytes(), 4_u16.to_le_bytes()].as_flattened());
        file.extend([1, number].map(u32::to_le_bytes).as_flattened());
    }
    // The next directory is this one.
    file.extend(start.to_le_bytes());
    file
}

fn deflated(zeros: u64) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(
        &mut std::io::Read::take(std::io::repeat(0), zeros),
        &mut encoder,
    )
    .unwrap();
    encoder.finish().unwrap()
}

/// A PNG chunk.
fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let rest = [&kind[..], body].concat();
    [&length[..], &rest, &crc32fast::hash(&rest).to_be_bytes()].concat()
}

/// Files that expand to far more than their image, or state far more than they have.
#[test]
fn small_files_cost_little_memory() {
    let bomb = deflated(32 << 20);
    let png = common::png(&[9; 16 * 16 * 3], 16);
    let with = |piece: &[u8]| [&png[..33], piece, &png[33..]].concat();
    let text = [b"XML:com.adobe.xmp\0\0", &bomb[..]].concat();
    let profile = [b"x\0\0", &bomb[..]].concat();
    // Codes of more pixels than the frame has: clear, 0, 1, and so on without an end.
    let mut gif =
        b"GIF89a\x10\0\x10\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x10\0\x10\0\0\x02".to_vec();
    for _ in 0..4000 {
        gif.push(255);
        gif.extend([0x04, 0x41, 0x10].repeat(85)); // 4 0 1 4 0 1 in 3 bits each, shifted.
    }
    gif.push(0);
    let good = vec![
        ("deflate.tif", tiff(16, &[(259, 8)], &bomb)),
        ("frames.png", with(&chunk(b"acTL", &[0x7f; 8]))),
        ("gif.gif", gif),
        ("profile.png", with(&chunk(b"iCCP", &profile))),
        (
            "tile.tif",
            tiff(
                16,
                &[
                    (322, 4096),
                    (323, 4096),
                    (273, u32::MAX),
                    (324, 8),
                    (325, 99),
                ],
                &[7; 1 << 16],
            ),
        ),
    ];
    let bad = vec![
        ("empty.tif", tiff(8000, &[], &[])),
        ("fax.tif", tiff(8000, &[(258, 1), (259, 3)], &[0; 99])),
        ("pixels.png", {
            let size = 8000_u32.to_be_bytes();
            let head = [&size[..], &size, &[8, 2, 0, 0, 0]].concat();
            [&png[..8], &chunk(b"IHDR", &head), &png[33..]].concat()
        }),
        ("text.png", with(&chunk(b"zTXt", &text))),
        (
            "tiles.tif",
            tiff(
                16,
                &[
                    (322, 1 << 30),
                    (323, 1 << 30),
                    (273, u32::MAX),
                    (324, 8),
                    (325, 99),
                ],
                &[7; 99],
            ),
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<_> = bad.iter().map(|(name, _)| *name).collect();
    let mut tree = Tree::default();
    for (name, bytes) in good.into_iter().chain(bad) {
        tree.put(&format!("train/a/{name}"), bytes);
    }
    let (set, out) = (dir.path().join("set"), dir.path().join("shards"));
    tree.write_dir(&set);
    // A gigabyte of address space.
    let output = std::process::Command::new("sh")
        .args(["-c", r#"ulimit -v 1000000 && exec "$0" "$@""#])
        .arg(assert_cmd::cargo::cargo_bin("tinyres"))
        .arg("pack")
        .args([&set, Path::new("-o"), &out])
        .args(["--threads", "1", "--size", "16", "--skip-bad", "--json"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let refused = report["refused"].as_array().unwrap().iter();
    let refused: Vec<_> = refused.map(|bad| bad["name"].as_str().unwrap()).collect();
    let names: Vec<_> = names.iter().map(|name| format!("train/a/{name}")).collect();
    assert_eq!(refused, names, "{report}");
}

/// Images of the given sizes, one of them a PNG.
fn photos(tree: &mut Tree, split: &str, classes: &[&str], sizes: &[(usize, usize)]) {
    for (label, class) in classes.iter().enumerate() {
        for (at, &(width, height)) in sizes.iter().enumerate() {
            let pixels: Vec<u8> = (0..width * height * 3)
                .map(|byte| u8::try_from((byte * (at + 3) / 7 + label * 90) % 256).unwrap())
                .collect();
            let image = Image {
                pixels: &pixels[..],
                width,
                pitch: width * 3,
                height,
                format: PixelFormat::RGB,
            };
            let path = format!("{split}/{class}/{at}.JPEG");
            if at % 3 == 2 {
                tree.put(&path.replace("JPEG", "png"), common::png(&pixels, width));
            } else {
                let jpeg = turbojpeg::compress(image, 90, Subsamp::Sub2x2).unwrap();
                tree.put(&path, jpeg.to_vec());
            }
        }
    }
}

#[test]
fn directory_zip_and_tar_give_the_same_bytes() {
    let mut tree = Tree::default();
    let sizes = [(160, 213), (213, 160), (160, 160), (500, 375), (90, 300)];
    let classes = ["n01440764", "n02102040"];
    photos(&mut tree, "train", &classes, &sizes);
    photos(&mut tree, "val", &classes, &sizes[1..4]);
    let dir = tempfile::tempdir().unwrap();
    let [set, zip, tar] = ["set", "set.zip", "set.tar"].map(|name| dir.path().join(name));
    tree.write_dir(&set);
    tree.write_zip(&zip, "imagenette2-160/");
    tree.write_tar(&tar, "imagenette2-160/");
    for size in ["128", "160"] {
        let mut sets = Vec::new();
        for (at, source) in [&set, &zip, &tar, &set].into_iter().enumerate() {
            let out = dir.path().join(format!("shards-{size}-{at}"));
            let threads = ["1", "2", "3", "5"][at];
            pack(source, &out, &["--size", size, "--threads", threads])
                .assert()
                .success();
            sets.push(files(&out));
        }
        assert_eq!(sets[0].len(), 3);
        assert!(sets.iter().all(|set| *set == sets[0]));
        let images = packed(&tar, &["--size", size]);
        assert_eq!(images.len(), 16);
        assert!(images.values().all(|image| image.bbox == [-1; 4]));
        let labelled = |label| images.values().filter(|image| image.label == label).count();
        assert_eq!([0, 1].map(labelled), [8, 8]);
    }
}

/// PNGs of 32 pixels, like those of CIFAR-10, need no flag for their size.
#[test]
fn size_of_shards_is_that_of_the_images() {
    let mut tree = Tree::default();
    for class in ["airplane", "automobile", "bird"] {
        for at in 0..40_usize {
            let pixels: Vec<u8> = (0..32 * 32 * 3)
                .map(|byte| u8::try_from((byte * at + class.len()) % 256).unwrap())
                .collect();
            tree.put(&format!("train/{class}/{at}.png"), common::png(&pixels, 32));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    tree.write_dir(&set);
    let images = packed(&set, &[]);
    assert_eq!(images.len(), 120);
    for (name, image) in &images {
        let path = set.join(name.strip_prefix("train: ").unwrap());
        let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()))
            .read_info()
            .unwrap();
        let mut rgb = vec![0; 32 * 32 * 3];
        reader.next_frame(&mut rgb).unwrap();
        let planar: Vec<u8> = (0..3)
            .flat_map(|channel| rgb.iter().skip(channel).step_by(3).copied())
            .collect();
        assert_eq!(image.pixels, planar, "{name}");
    }

    // Held-out images are in val and not in train.
    let held = packed(&set, &["--val-fraction", "0.25"]);
    let names = |images: &BTreeMap<String, Packed>| {
        let mut names: Vec<_> = images
            .keys()
            .map(|name| name.split_once(": ").unwrap().1.to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&held), names(&images));
    let val = held.keys().filter(|name| name.starts_with("val: ")).count();
    assert!((15..45).contains(&val), "{val}");

    // An image of another size is refused without --size, and resized with it.
    let mut photo = Tree::default();
    photos(&mut photo, "train", &["bird"], &[(48, 31)]);
    photo.write_dir(&set);
    let out = dir.path().join("shards");
    let error = failure(&mut pack(&set, &out, &[]), 1);
    assert!(
        error.contains(
            "train/bird/0.JPEG: 48x31 pixels, expected 32x32 as most images have; --size"
        ),
        "{error}"
    );
    assert_eq!(packed(&set, &["--size", "32"]).len(), 121);

    // One odd image does not decide the size, even if it is the first.
    photos(&mut photo, "train", &["aardvark"], &[(48, 31)]);
    photo.write_dir(&set);
    let error = failure(&mut pack(&set, &out, &[]), 1);
    assert!(
        error.contains("train/aardvark/0.JPEG: 48x31 pixels, expected 32x32 as most images have"),
        "{error}"
    );

    // Where most are not squares, the message counts the sizes, and its remedy works.
    let mut wide = Tree::default();
    let sizes = [(48, 31), (32, 32), (48, 31), (48, 31), (32, 32)];
    photos(&mut wide, "train", &["bird", "cat"], &sizes);
    let set = dir.path().join("wide");
    wide.write_dir(&set);
    let error = failure(&mut pack(&set, &out, &[]), 1);
    assert!(
        error.contains(
            "48x31 pixels, the most frequent size of those looked at (6 of 48x31, 4 of 32x32)"
        ) && error.contains("must be resized: --size 64"),
        "{error}"
    );
    assert_eq!(packed(&set, &["--size", "64"]).len(), 10);
}

#[test]
fn boxes_follow_the_pixels() {
    let mut tree = Tree::default();
    tree.text("wnids.txt", "n01\n");
    photos(
        &mut tree,
        "train",
        &["n01/images"],
        &[(80, 40), (40, 80), (64, 64)],
    );
    let boxes = "0.JPEG\t20\t0\t39\t39\n1.JPEG\t0\t0\t39\t9\n2.png\t1\t2\t62\t63\n";
    tree.text("train/n01/n01_boxes.txt", boxes);
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    tree.write_dir(&set);
    let boxes = |flags: &[&str]| {
        packed(&set, flags)
            .into_values()
            .map(|image| image.bbox)
            .collect::<Vec<_>>()
    };
    // Halved, and of the first image the middle half kept; the second's box is outside its middle.
    assert_eq!(
        boxes(&["--size", "20"]),
        [[0, 0, 9, 19], [-1; 4], [0, 0, 19, 19]]
    );
    assert_eq!(
        boxes(&["--size", "20", "--squash"]),
        [[5, 0, 9, 19], [0, 0, 19, 2], [0, 0, 19, 19]]
    );
    assert_eq!(boxes(&["--size", "64", "--squash"])[2], [1, 2, 62, 63]);
    tree.text(
        "train/n01/n01_boxes.txt",
        "0.JPEG\t20\t0\t80\t39\n1.JPEG\t0\t0\t39\t9\n2.png\t1\t2\t62\t63\n",
    );
    tree.write_dir(&set);
    let error = failure(
        &mut pack(&set, &dir.path().join("out"), &["--size", "20"]),
        1,
    );
    assert!(
        error.contains("box [20, 0, 80, 39] is not inside 80x40 pixels"),
        "{error}"
    );
}

#[test]
fn resize_is_part_of_the_fingerprint() {
    let mut tree = Tree::default();
    photos(&mut tree, "train", &["a", "b"], &[(16, 16), (16, 16)]);
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    tree.write_dir(&set);
    let fingerprint = |flags: &[&str]| {
        let out = dir.path().join("shards");
        pack(&set, &out, &[flags, &["--force"]].concat())
            .assert()
            .success();
        Manifest::load(&out).unwrap().fingerprint.to_string()
    };
    // The rule of section 6 of SPEC.md, implemented a second time.
    let expected = |resize: &str| {
        let mut lines = format!(
            "tinyres 1\nshape\t3\t16\t16\n{resize}shard_images\t8192\nclass\ta\ta\nclass\tb\tb\nsplit\ttrain\t4\n"
        );
        for (label, class) in ["a", "b"].iter().enumerate() {
            for at in 0..2 {
                lines += &format!("image\ttrain/{class}/{at}.JPEG\t{label}\t-\n");
            }
        }
        Sha256::digest(lines)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(fingerprint(&[]), expected(""));
    assert_eq!(
        fingerprint(&["--size", "16"]),
        expected("resize\tcrop\ttriangle\n")
    );
    assert_eq!(
        fingerprint(&["--size", "16", "--squash"]),
        expected("resize\tsquash\ttriangle\n")
    );
}

#[test]
fn conflicting_flags_are_a_usage_error() {
    let mut tree = Tree::default();
    photos(&mut tree, "train", &["a"], &[(16, 16)]);
    photos(&mut tree, "val", &["a"], &[(16, 16)]);
    let dir = tempfile::tempdir().unwrap();
    let (set, out) = (dir.path().join("set"), dir.path().join("shards"));
    tree.write_dir(&set);
    for (flags, says) in [
        (
            &["--val-fraction", "0.1"][..],
            "has a validation split already",
        ),
        (&["--val-fraction", "0"], "more than 0 and less than 1"),
        (&["--val-fraction", "1"], "more than 0 and less than 1"),
        (&["--val-fraction", "NaN"], "more than 0 and less than 1"),
        (&["--val-fraction", "x"], "not a number"),
        (&["--squash"], "--size"),
        (&["--size", "0"], "0 is not in 1..=4096"),
        (&["--size", "4097"], "4097 is not in 1..=4096"),
    ] {
        let error = failure(&mut pack(&set, &out, flags), 2);
        assert!(error.contains(says), "{flags:?}: {error}");
    }
}
