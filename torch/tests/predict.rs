//! Predictions, compared with the network's outputs for the pixels that `pack --size` makes of the same files.
#![cfg(feature = "torch")]

mod common;

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::AtomicBool;

use common::{Recorder, SIDE, config, train};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use tinyres::{pack, source::Source};
use tinyres_format::Split;
use tinyres_torch::input::Normalizer;
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;

const CLASSES: usize = 6;
/// JPEGs and PNGs of many sizes, some of them turned by EXIF.
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/pictures/");

/// A directory with a run of a few steps in `run`.
fn trained() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), CLASSES, 40, 10);
    let config = config("max_steps = 3\nbatch = 10\nsizes = 'full'\nprecision = 'f32'");
    let run = dir.path().join("run");
    let fingerprint = data.train.fingerprint();
    let mut run = Run::create(&run, config, dir.path(), fingerprint).unwrap();
    let stop = AtomicBool::new(false);
    train(&mut run, None, &data, &mut Recorder::default(), &stop).unwrap();
    dir
}

fn tinyres(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
    command.current_dir(dir).args(args);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    tinyres(dir, args).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// The probabilities of each class, by name of the picture, of all pictures in class folders `set`.
fn expected(dir: &Path, set: &Path) -> Vec<(String, Vec<f64>)> {
    let shards = dir.join("packed");
    let config = pack::Config {
        output: shards.clone(),
        shard_images: NonZeroU32::new(64).unwrap(),
        resize: Some(pack::Resize {
            side: NonZeroU32::new(SIDE).unwrap(),
            squash: false,
        }),
        threads: 1,
        skip_bad: None,
        force: false,
        zstd: None,
    };
    pack::pack(&Source::open(set).unwrap(), &config, &mut ()).unwrap();
    let data = common::open(&shards, Split::Train);
    let checkpoint = Checkpoint::load(&Run::weights(&dir.join("run")).unwrap()).unwrap();
    let network = checkpoint.network(Device::Cpu).unwrap();
    let normalizer = Normalizer::new(checkpoint.about.config.normalize, Device::Cpu).unwrap();
    let side = i64::from(SIDE);
    (0..data.len())
        .map(|image| {
            let mut pixels = vec![0; data.shape().image_len()];
            data.gather(&[image], &mut pixels).unwrap();
            let x = Tensor::from_slice(&pixels).view([1, 3, side, side]);
            let x = normalizer.apply(&x).unwrap();
            let logits = tch::no_grad(|| network.forward(&x, false)).unwrap();
            let probabilities = logits.softmax(1, Kind::Double).view([-1]);
            let name = data.name(image).unwrap().to_owned();
            (name, Vec::<f64>::try_from(probabilities).unwrap())
        })
        .collect()
}

#[test]
fn pictures_are_resized_as_pack_does() {
    let dir = trained();
    let set = dir.path().join("set");
    for (class, from) in [
        ("a", "resized/jpg"),
        ("b", "resized/png"),
        ("c", "exact/exif"),
    ] {
        fs::create_dir_all(set.join("train").join(class)).unwrap();
        for file in fs::read_dir(Path::new(PICTURES).join(from)).unwrap() {
            let file = file.unwrap();
            fs::copy(
                file.path(),
                set.join("train").join(class).join(file.file_name()),
            )
            .unwrap();
        }
    }
    let output = run(
        dir.path(),
        &["predict", "run", "set", "--json", "--batch", "5"],
    );
    assert!(output.status.success());
    let printed = lines(&output);
    let expected = expected(dir.path(), &set);
    assert!(printed.len() > 20 && printed.len() == expected.len());
    for line in &printed {
        let name = line["image"]
            .as_str()
            .unwrap()
            .strip_prefix("set/")
            .unwrap();
        let (_, probabilities) = expected.iter().find(|(known, _)| known == name).unwrap();
        let top = line["top"].as_array().unwrap();
        assert_eq!(top.len(), 5);
        let mut last = 1.0;
        for guess in top {
            let label = usize::try_from(guess["label"].as_u64().unwrap()).unwrap();
            let probability = guess["probability"].as_f64().unwrap();
            assert!(
                (probability - probabilities[label]).abs() < 1e-6,
                "{name}: {line}"
            );
            assert!(probability <= last, "{name}: {line}");
            last = probability;
            assert_eq!(guess["id"], common::wnids(CLASSES)[label].id);
        }
        let rest: f64 =
            probabilities.iter().sum::<f64>() - probabilities.iter().copied().fold(1.0, f64::min);
        let sum: f64 = top
            .iter()
            .map(|guess| guess["probability"].as_f64().unwrap())
            .sum();
        assert!((sum - rest).abs() < 1e-6, "{name}: not the likeliest");
        assert!(line.get("box").is_none());
    }
}

#[test]
fn bad_pictures_are_reported_and_the_others_predicted() {
    let dir = trained();
    let good = format!("{PICTURES}exact/exif/1.jpg");
    let bad = format!("{PICTURES}refused/cut.png");
    let images = [&good[..], &bad, &good, "absent.png", &good];
    let mut args = vec!["predict", "run", "--batch", "2", "--top", "1"];
    args.extend(images);
    let output = run(dir.path(), &args);
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(1));
    let printed: Vec<_> = out.lines().collect();
    assert_eq!(printed.len(), 10, "{out}");
    assert_eq!([0, 2, 4, 6, 8].map(|at| printed[at]), images);
    assert_eq!(
        printed[3],
        "  undecodable: broken PNG: the file ends within its pixels"
    );
    assert_eq!(printed[7], "  unreadable: no such file");
    assert!(
        printed[1].contains("%  n00000") && printed[1].contains("  thing "),
        "{out}"
    );
    assert_eq!((printed[1], printed[1]), (printed[5], printed[9]));
    assert!(
        err.contains("2 of 5 pictures could not be predicted"),
        "{err}"
    );
    assert!(
        err.contains("cut.png: undecodable") && err.contains("absent.png: unreadable"),
        "{err}"
    );

    args.push("--json");
    let output = run(dir.path(), &args);
    assert_eq!(output.status.code(), Some(1));
    let printed = lines(&output);
    assert_eq!(printed.len(), 5);
    assert_eq!(
        printed[1]["error"],
        "undecodable: broken PNG: the file ends within its pixels"
    );
    assert!(printed[1].get("top").is_none() && printed[0].get("error").is_none());
}

#[test]
fn stdin_lists_pictures_and_png_draws_them() {
    let dir = trained();
    let list = format!("{PICTURES}exact/exif/1.jpg\n\n{PICTURES}exact/exif/6.png\n");
    let list_file = dir.path().join("list");
    fs::write(&list_file, list).unwrap();
    let ask = |args: &[&str]| {
        let stdin = fs::File::open(&list_file).unwrap();
        let mut command = tinyres(dir.path(), args);
        let output = command.stdin(Stdio::from(stdin)).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        lines(&output)
    };
    let printed = ask(&[
        "predict",
        "run",
        "-",
        "--json",
        "--png",
        "sheet.png",
        "--top",
        "99",
    ]);
    assert_eq!(printed.len(), 2);
    assert_eq!(printed[0]["top"].as_array().unwrap().len(), CLASSES);
    let one = format!("{PICTURES}exact/exif/1.jpg");
    let alone = ask(&[
        "predict", "run", &one, "--json", "--png", "one.png", "--top", "99",
    ]);
    assert_eq!(alone[0]["image"], printed[0]["image"]);
    // Width and height, as a PNG's header has them: images, gaps of 8 and a line of 16.
    let size = |name: &str| {
        let png = fs::read(dir.path().join(name)).unwrap();
        [16, 20].map(|at| u32::from_be_bytes(png[at..at + 4].try_into().unwrap()))
    };
    assert_eq!(size("sheet.png"), [2 * 200 + 8, 192 + 16 + 2 * 8]);
    assert_eq!(size("one.png"), [512 + 2 * 8, 512 + 16 + 2 * 8]);
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let dir = trained();
    fs::create_dir(dir.path().join("empty")).unwrap();
    for (args, code, part) in [
        (&["predict", "run"][..], 2, "<IMAGE>"),
        (&["predict", "run", "a.png", "--top", "0"], 2, "--top"),
        (&["predict", "run", "a.png", "--size", "0"], 2, "--size"),
        (&["predict", "nowhere", "a.png"], 1, "nowhere"),
        (
            &["predict", "run", "empty"],
            1,
            "empty: no file in this folder has the extension of a picture",
        ),
        (
            &["predict", "run", "-", "a.png"],
            1,
            "give no other pictures with it",
        ),
        (
            &["predict", "run", "-"],
            1,
            "standard input named no picture",
        ),
        (
            &["predict", "run", "a.png", "--device", "cuda:77"],
            1,
            "cuda:77",
        ),
    ] {
        let mut command = tinyres(dir.path(), args);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}
