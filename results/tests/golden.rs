//! Predictions that pyarrow wrote, and analyses of them compared with those of scikit-learn, cleanlab, NumPy and
//! umap-learn: `results_golden.py` and `umap_golden.py` of `tools/witness` wrote the files.

use std::path::PathBuf;

use serde_json::Value;
use tinyres_results::{
    Calibration, Confusion, Error, Features, Pca, Predictions, by_class, suspects, umap,
};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(golden("expected.json")).unwrap()).unwrap()
}

fn predictions() -> Predictions {
    Predictions::read(&golden("val.parquet")).unwrap()
}

#[test]
fn columns_are_those_that_pyarrow_wrote() {
    let (predictions, expected) = (predictions(), expected());
    assert_eq!((predictions.len(), predictions.classes()), (500, 12));
    assert_eq!(predictions.name[499], expected["name"]);
    assert_eq!(
        predictions.shard[299..301],
        ["val-00000.bin", "val-00001.bin"]
    );
    assert_eq!(predictions.shard_image[300], 0);
    let boxes = predictions.boxes.as_ref().unwrap();
    let y1: Vec<f32> = boxes.predicted.iter().map(|sides| sides[3]).collect();
    let x1: Vec<f32> = predictions
        .bbox
        .iter()
        .map(|sides| sides[2] as f32)
        .collect();
    let rank: Vec<f32> = predictions.rank.iter().map(|&rank| rank as f32).collect();
    for (name, values) in [
        ("confidence", &predictions.confidence),
        ("label_prob", &predictions.label_prob),
        ("loss", &predictions.loss),
        ("margin", &predictions.margin),
        ("entropy", &predictions.entropy),
        ("rank", &rank),
        ("iou", &boxes.iou),
        ("predicted_y1", &y1),
        ("box_x1", &x1),
    ] {
        let values = values.iter().filter(|value| !value.is_nan());
        let sum: f64 = values.map(|&value| f64::from(value)).sum();
        let expected = expected["sums"][name].as_f64().unwrap();
        assert!(
            (sum - expected).abs() < 1e-6 * expected.abs(),
            "{name}: {sum} {expected}"
        );
    }
    let top5 = Value::from(predictions.top5.row(123).to_vec());
    assert_eq!(top5, expected["top5"]);
    assert_eq!(predictions.top1(), expected["top1"].as_f64().unwrap());
    let features = Features::next_to(&predictions.path, 500).unwrap().unwrap();
    let sum: f64 = features.row(321).iter().copied().map(f64::from).sum();
    assert!((sum - expected["features"].as_f64().unwrap()).abs() < 1e-9);
}

#[test]
fn confusions_and_classes_are_those_of_scikit_learn() {
    let (predictions, expected) = (predictions(), expected());
    let confusion = Confusion::of(&predictions);
    let row = |label| -> Vec<u32> { (0..12).map(|class| confusion.count(label, class)).collect() };
    let rows: Vec<_> = (0..12).map(row).collect();
    assert_eq!(serde_json::json!(rows), expected["confusion"]);
    let pairs = confusion.confused();
    let confused: u32 = pairs.iter().map(|pair| pair.images()).sum();
    let right = (0..12)
        .map(|class| confusion.count(class, class))
        .sum::<u32>();
    assert_eq!(confused + right, 500);
    assert!(pairs.is_sorted_by_key(|pair| std::cmp::Reverse(pair.images())));
    for (class, figures) in by_class(&predictions).iter().enumerate() {
        for (name, value) in [
            ("recall", figures.accuracy()),
            ("precision", figures.precision()),
        ] {
            match expected[name][class].as_f64() {
                Some(expected) => assert!((value - expected).abs() < 1e-12, "{name} of {class}"),
                None => assert!(value.is_nan(), "{name} of {class}: {value}"),
            }
        }
    }
}

#[test]
fn groups_of_alike_classes_lie_together_in_the_order() {
    let predictions = predictions();
    let logits = predictions.logits().unwrap();
    // Class 11 has no image.
    let order = Confusion::of(&predictions).order(&predictions, logits.as_ref());
    let groups: Vec<_> = order
        .iter()
        .filter(|&&class| class < 11)
        .map(|class| class % 4)
        .collect();
    assert_eq!(groups.chunk_by(|a, b| a == b).count(), 4, "{order:?}");
    let mut sorted = order;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..12).collect::<Vec<_>>());
}

#[test]
fn calibration_is_that_of_numpy() {
    let (calibration, expected) = (Calibration::of(&predictions()), expected());
    for (bin, expected) in calibration
        .bins
        .iter()
        .zip(expected["bins"].as_array().unwrap())
    {
        let values = [f64::from(bin.images), bin.confidence, bin.accuracy];
        for (value, expected) in values.iter().zip(expected.as_array().unwrap()) {
            assert!(
                (value - expected.as_f64().unwrap()).abs() < 1e-6,
                "{bin:?} {expected}"
            );
        }
    }
    assert!((calibration.expected_error - expected["ece"].as_f64().unwrap()).abs() < 1e-6);
}

#[test]
fn suspected_labels_are_those_of_cleanlab() {
    let predictions = predictions();
    let logits = predictions.logits().unwrap().unwrap();
    let rows: Vec<_> = suspects(&predictions, &logits)
        .iter()
        .map(|suspect| suspect.row)
        .collect();
    assert_eq!(serde_json::json!(rows), expected()["suspects"]);
}

/// The fraction of the 15 nearest others of each place that are of its cluster, `number % 12`.
fn purity(places: &[[f32; 2]]) -> f64 {
    let mut same = 0;
    for (at, own) in places.iter().enumerate() {
        let distance = |other: usize| {
            let [x, y] = places[other];
            (x - own[0]).powi(2) + (y - own[1]).powi(2)
        };
        let mut others: Vec<_> = (0..places.len()).filter(|&other| other != at).collect();
        others.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        same += others[..15]
            .iter()
            .filter(|&&other| other % 12 == at % 12)
            .count();
    }
    same as f64 / (15 * places.len()) as f64
}

#[test]
fn neighbourhoods_on_the_map_are_as_pure_as_those_of_umap_learn() {
    let text = std::fs::read(golden("clusters.json")).unwrap();
    let witness: Value = serde_json::from_slice(&text).unwrap();
    let table = golden("clusters.parquet");
    let features = Features::next_to(&table, 600).unwrap().unwrap();
    let told = std::sync::Mutex::new(Vec::new());
    let places = umap(&features, 0, &|done| told.lock().unwrap().push(done));
    let own = purity(&places);
    for theirs in witness["umap"].as_array().unwrap() {
        let theirs = theirs.as_f64().unwrap();
        assert!(own > theirs - 0.05, "{own} {theirs}");
    }
    // The measure tells maps apart: that of NumPy's PCA and ours have the same value, a lower one.
    let pca = purity(&Pca::of(&features).places);
    assert!(
        (pca - witness["pca"].as_f64().unwrap()).abs() < 0.01,
        "{pca}"
    );
    assert!(pca < own - 0.1, "{pca} {own}");
    let told = told.into_inner().unwrap();
    assert_eq!(told.last(), Some(&1.0));
    assert!(told.iter().all(|done| (0.0..=1.0).contains(done)));
    assert_eq!(umap(&features, 0, &|_| ()), places);
    assert_ne!(umap(&features, 1, &|_| ()), places);
}

#[test]
fn few_images_and_equal_ones_have_places_on_the_map() {
    for rows in [0, 1, 2, 3, 20] {
        let places = umap(&Features::new(vec![0.5; rows * 4], 4), 0, &|_| ());
        assert_eq!(places.len(), rows);
        assert!(
            places.iter().flatten().all(|side| side.is_finite()),
            "{rows}: {places:?}"
        );
    }
}

#[test]
fn a_damaged_file_never_panics() {
    let whole = std::fs::read(golden("val.parquet")).unwrap();
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        // Knuth's generator of 64 bits.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..600 {
        let mut bytes = whole.clone();
        for _ in 0..1 + draw(4) {
            // The metadata at the end, half of the time.
            let at = if draw(2) == 0 {
                draw(bytes.len())
            } else {
                bytes.len() - 1 - draw(6000)
            };
            bytes[at] = u8::try_from(draw(256)).unwrap();
        }
        let _ = Predictions::parse(&golden("val.parquet"), bytes);
    }
}

#[test]
fn faults_of_a_file_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("val.parquet");
    assert!(matches!(
        Predictions::read(&path),
        Err(Error::NoPredictions { .. })
    ));
    let whole = std::fs::read(golden("val.parquet")).unwrap();
    let fault = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Predictions::read(&path).unwrap_err().to_string()
    };
    let error = fault(&whole[..whole.len() / 2]);
    assert!(
        error.contains("val.parquet: not a whole Parquet file"),
        "{error}"
    );
    // A page of the first column.
    let mut damaged = whole;
    damaged[20..60].fill(0xff);
    let error = fault(&damaged);
    assert!(error.contains("column image is damaged"), "{error}");
    // Logits of another split.
    std::fs::copy(golden("val.parquet"), &path).unwrap();
    std::fs::copy(
        golden("val.features.npy"),
        dir.path().join("val.logits.npy"),
    )
    .unwrap();
    let error = Predictions::read(&path)
        .unwrap()
        .logits()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("val.logits.npy: holds <f2 [500, 6], expected <f4"),
        "{error}"
    );
}
