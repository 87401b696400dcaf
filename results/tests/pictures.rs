//! The pictures of golden predictions, with images that were made for it.

mod common;

use std::fs;

use common::golden;
use tinyres_format::Split;
use tinyres_results::{Analysis, Error, Predictions, Subject, pictures};

/// Whole pixels of a PNG file: its width, and its bytes.
fn decoded(file: &[u8]) -> (usize, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    (reader.info().width as usize, pixels)
}

#[test]
fn pictures_show_the_images_they_are_about_and_are_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    // Image n is plain, of colour (n, n / 256, 200).
    let plain = |number: u32| {
        (
            common::image(move |colour, _, _| [number % 256, number / 256, 200][colour as usize]),
            0,
        )
    };
    let images = (0..500).map(plain).collect();
    let sets = common::set(&dir.path().join("set"), &[(Split::Val, images)]);
    let predictions = Predictions::read(&golden("val.parquet")).unwrap();
    let analysis = Analysis::new(predictions, &[]).unwrap();
    let subject = Subject {
        name: "golden",
        metrics: None,
        analysis: &analysis,
        images: Some(&sets[0]),
        sets: &[],
        run: None,
    };
    let out = dir.path().join("out");
    let paths = pictures::write(&subject, &out).unwrap();
    let names: Vec<_> = paths
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap())
        .collect();
    let expected = [
        "confusion_matrix",
        "confused_pairs",
        "classes",
        "reliability",
        "confident_mistakes",
        "suspect_labels",
        "boxes",
    ];
    assert_eq!(names, expected);
    let first: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    // The middle of the first photograph of each sheet.
    for (sheet, row) in [(4, analysis.mistakes()[0]), (5, analysis.suspects[0].row)] {
        let (width, pixels) = decoded(&first[sheet]);
        assert_eq!(width, 1600);
        let at = 3 * ((2 * 129) * width + 2 * 83);
        let (low, high) = (
            u8::try_from(row % 256).unwrap(),
            u8::try_from(row / 256).unwrap(),
        );
        assert_eq!(pixels[at..at + 3], [low, high, 200], "{}", names[sheet]);
    }
    // A picture that there is nothing to draw for does not stay; duplicates do.
    for stale in ["results.png", "duplicates.png"] {
        fs::write(out.join(stale), "old").unwrap();
    }
    assert_eq!(pictures::write(&subject, &out).unwrap(), paths);
    for (path, first) in paths.iter().zip(&first) {
        assert!(fs::read(path).unwrap() == *first, "{}", path.display());
    }
    assert!(!out.join("results.png").exists() && out.join("duplicates.png").exists());
    let error = pictures::write(&subject, &paths[0]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}
