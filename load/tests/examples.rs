//! The Rust examples: one writes a set, and the others read it.

#[allow(dead_code, reason = "its main is for users")]
#[path = "../examples/epoch.rs"]
mod epoch;
#[allow(dead_code, reason = "its main is for users")]
#[path = "../examples/read_batches.rs"]
mod read_batches;
#[allow(dead_code, reason = "its main is for users")]
#[path = "../../format/examples/write_set.rs"]
mod write_set;

#[test]
fn read_batches_reads_what_write_set_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    let manifest = write_set::write(&set).unwrap();
    let images = manifest.splits.iter().map(|split| split.images);
    assert_eq!(images.collect::<Vec<_>>(), [600, 60]);
    // A square of 12 x 12 pixels is 144 of 1,024: its colour times 0.14.
    let lines = read_batches::read(&set).unwrap();
    assert_eq!(
        lines,
        [
            "red: 200 images, mean RGB [30, 5, 5]",
            "green: 200 images, mean RGB [5, 28, 5]",
            "blue: 200 images, mean RGB [5, 5, 30]",
        ]
    );
}

#[test]
fn epoch_measures_each_form_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    write_set::write(&set).unwrap();
    let lines = epoch::measure(&set, 1, 2).unwrap();
    assert_eq!(lines.len(), 8);
    let rate = |line: &String| line.ends_with(" images/s");
    assert!(lines.iter().all(rate), "{lines:?}");
}
