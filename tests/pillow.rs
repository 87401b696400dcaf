//! Pictures of every kind, whole and damaged, as `tools/witness/pillow_differential.py` draws them, with Pillow
//! as the witness.

mod common;
#[path = "common/skip.rs"]
mod skip;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use common::tinyres;
use sha2::{Digest as _, Sha256};
use tinyres_format::{Manifest, Shard};

/// True if the warning tells of a conversion alone, and not of damage.
fn converted(warning: &str) -> bool {
    warning.starts_with("CMYK, ") && !warning.contains(';') || warning.starts_with("grey levels ")
}

/// A small sample, of which Pillow's pixels are in the repository.
#[test]
fn drawn_pictures_have_the_pixels_that_pillow_gave() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pictures");
    let expected = std::fs::read(golden.join("drawn.json")).unwrap();
    let expected: BTreeMap<String, Option<String>> = serde_json::from_slice(&expected).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("shards");
    let mut pack = tinyres();
    pack.arg("pack")
        .arg(golden.join("drawn.zip"))
        .arg("-o")
        .arg(&out);
    pack.arg("--skip-bad").assert().success();
    let manifest = Manifest::load(&out).unwrap();
    let mut found = BTreeMap::new();
    let mut warned = BTreeSet::new();
    for listed in manifest.splits.iter().flat_map(|split| &split.shards) {
        let shard = Shard::new(std::fs::read(out.join(&listed.file)).unwrap()).unwrap();
        for at in 0..shard.len() {
            let digest = Sha256::digest(shard.image(at).unwrap());
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            found.insert(shard.name(at).unwrap().unwrap().to_owned(), digest);
        }
        let names = shard
            .metadata()
            .warned
            .iter()
            .filter(|image| !converted(&image.warning))
            .map(|image| image.name.clone());
        warned.extend(names);
    }
    let mut stricter = Vec::new();
    let mut equal = 0;
    for (name, digest) in &expected {
        match (found.get(name), digest) {
            // The script says of which damage this is right.
            (None, Some(_)) if name.contains("-damage/") => stricter.push(name),
            (found, Some(digest)) => {
                assert_eq!(found, Some(digest), "{name}");
                equal += 1;
            }
            (_, None) => {}
        }
    }
    assert!(equal > 250, "{equal} pictures");
    assert!(stricter.len() < 5, "{stricter:?}");
    // Damaged ones are named.
    assert!(warned.len() > 10, "{warned:?}");
    assert!(
        warned.iter().all(|name| name.starts_with("train/jpeg")),
        "{warned:?}"
    );
}

/// More of them, where there is Pillow. `TINYRES_DRAWN` is the number of pictures of each part.
#[test]
fn drawn_pictures_have_the_pixels_of_pillow() {
    let pillow = "import numpy, PIL; assert int(PIL.__version__.split('.')[0]) >= 13";
    let pillow = Command::new("python3").args(["-c", pillow]).output();
    if !pillow.is_ok_and(|output| output.status.success()) {
        skip::skip("python3 has no Pillow 13 here; tools/test installs one");
        return;
    }
    let count = std::env::var("TINYRES_DRAWN").unwrap_or_else(|_| "200".to_owned());
    let root = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("python3")
        .arg(Path::new(root).join("tools/witness/pillow_differential.py"))
        .arg(assert_cmd::cargo::cargo_bin("tinyres"))
        .args(["--count", &count, "--seed", "2"])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    println!("{text}");
}
