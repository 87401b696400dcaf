//! The Rust examples: one writes a set, and the other reads it.

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
