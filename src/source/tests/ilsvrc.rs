//! ImageNet as the ILSVRC has it: what its own files do not show.

use super::*;

const TRAIN: &str = "ILSVRC/Data/CLS-LOC/train";
const VAL: &str = "ILSVRC/Data/CLS-LOC/val";
const XML: &str = "ILSVRC/Annotations/CLS-LOC";

fn xml(wnid: &str, [x0, y0, x1, y1]: [i32; 4]) -> String {
    format!(
        "<annotation><size><width>64</width><height>64</height></size><object><name>{wnid}</name><bndbox>\
         <xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object></annotation>"
    )
}

/// Two classes of two images, of which one has a box, two val images and one of test.
fn good() -> Files {
    let mut files = Files::default();
    for wnid in ["n01", "n02"] {
        files.image(&format!("{TRAIN}/{wnid}/{wnid}_1.JPEG"));
        files.image(&format!("{TRAIN}/{wnid}/{wnid}_2.JPEG"));
        let xml = xml(wnid, [1, 2, 3, 4]);
        files.set(&format!("{XML}/train/{wnid}/{wnid}_1.xml"), &xml);
    }
    for (number, wnid) in [(1, "n02"), (2, "n01")] {
        files.image(&format!("{VAL}/val_{number}.JPEG"));
        files.set(
            &format!("{XML}/val/val_{number}.xml"),
            &xml(wnid, [0, 0, 9, 9]),
        );
    }
    files.image("ILSVRC/Data/CLS-LOC/test/test_1.JPEG");
    files.set(
        "LOC_synset_mapping.txt",
        "n01 tench, Tinca tinca\nn02 goldfish\n",
    );
    files
}

/// Label and box of each item of a split.
fn items(source: &Source, split: Split) -> Vec<(Option<u32>, Option<[i32; 4]>)> {
    let (_, items) = source.splits.iter().find(|(of, _)| *of == split).unwrap();
    items.iter().map(|item| (item.label, item.bbox)).collect()
}

#[test]
fn every_storage_gives_the_same() {
    let files = good();
    let [dir, zip, tar] =
        [files.open_dir(), files.open_zip(), files.open_tar()].map(Result::unwrap);
    for source in [&dir, &zip, &tar] {
        assert_eq!(source.layout, "ILSVRC");
        assert_eq!(source.splits, dir.splits);
        let names: Vec<_> = source
            .classes
            .iter()
            .map(|class| class.name.as_str())
            .collect();
        assert_eq!(names, ["tench, Tinca tinca", "goldfish"]);
    }
    let bbox = Some([1, 2, 3, 4]);
    let train = [
        (Some(0), bbox),
        (Some(0), None),
        (Some(1), bbox),
        (Some(1), None),
    ];
    assert_eq!(items(&dir, Split::Train), train);
    let whole = Some([0, 0, 9, 9]);
    assert_eq!(
        items(&dir, Split::Val),
        [(Some(1), whole), (Some(0), whole)]
    );
    assert_eq!(items(&dir, Split::Test), [(None, None)]);
    let note = "2 images of train without an annotation: packed without a box";
    assert_eq!(dir.notes, [note]);
}

#[test]
fn a_val_in_class_folders_is_labelled_by_them() {
    let mut files = good();
    for (number, wnid) in [(1, "n02"), (2, "n01")] {
        let image = files.0.remove(&format!("{VAL}/val_{number}.JPEG")).unwrap();
        files
            .0
            .insert(format!("{VAL}/{wnid}/val_{number}.JPEG"), image);
    }
    let source = files.open_dir().unwrap();
    let whole = Some([0, 0, 9, 9]);
    assert_eq!(
        items(&source, Split::Val),
        [(Some(0), whole), (Some(1), whole)]
    );
    files.remove("ILSVRC/Annotations/CLS-LOC/val");
    let source = files.open_dir().unwrap();
    assert_eq!(
        items(&source, Split::Val),
        [(Some(0), None), (Some(1), None)]
    );
}

#[test]
fn solutions_of_kaggle_stand_in_for_annotations_that_are_not_there() {
    let mut files = good();
    files.remove("ILSVRC/Annotations");
    files.set(
        "LOC_val_solution.csv",
        "ImageId,PredictionString\nval_2,n01 1 1 2 2 n01 3 3 9 9\nval_1,n02 0 0 5 5 \n",
    );
    files.set(
        "LOC_train_solution.csv",
        "ImageId,PredictionString\nn02_2,n02 5 5 6 6\n",
    );
    let source = files.open_zip().unwrap();
    let val = [(Some(1), Some([0, 0, 5, 5])), (Some(0), Some([3, 3, 9, 9]))];
    assert_eq!(items(&source, Split::Val), val);
    assert_eq!(
        items(&source, Split::Train)[3],
        (Some(1), Some([5, 5, 6, 6]))
    );
    assert_eq!(
        source.notes[1],
        "1 image of val with several boxes of the class, of which the largest is kept"
    );
}

#[test]
fn boxes_of_another_class_or_beyond_the_image_are_none() {
    let mut files = good();
    files.set(
        &format!("{XML}/train/n01/n01_1.xml"),
        &xml("n02", [0, 0, 9, 9]),
    );
    files.set(
        &format!("{XML}/train/n01/n01_2.xml"),
        &xml("n01", [60, 60, 70, 70]),
    );
    files.set(
        &format!("{XML}/train/n02/n02_1.xml"),
        &xml("n02", [64, 0, 70, 9]),
    );
    let source = files.open_dir().unwrap();
    let train: Vec<_> = items(&source, Split::Train)
        .into_iter()
        .map(|it| it.1)
        .collect();
    assert_eq!(train, [None, Some([60, 60, 63, 63]), None, None]);
    let notes = "2 images of train without a box of the class inside the image: packed without one";
    assert_eq!(source.notes[0], notes);
}

#[test]
fn classes_without_a_folder_and_annotations_without_an_image_are_counted() {
    let mut files = good();
    files.set(
        "LOC_synset_mapping.txt",
        "n01 tench\nn02 goldfish\nn03 shark\n",
    );
    files.set(&format!("{XML}/train/n03/n03_7.xml"), &xml("n03", [0; 4]));
    files.set("LOC_sample_submission.csv", "");
    files.set("ILSVRC/ImageSets/CLS-LOC/val.txt", "");
    files.set(&format!("{TRAIN}/readme.md"), "");
    let source = files.open_dir().unwrap();
    assert_eq!(source.classes.len(), 2);
    let note = "1 class of LOC_synset_mapping.txt without a folder in train/, so without a label";
    assert_eq!(source.notes[0], note);
    let passed_over: Vec<_> = source
        .passed_over
        .iter()
        .map(|it| it.kind.as_str())
        .collect();
    assert_eq!(
        passed_over,
        [
            ".csv",
            ".md",
            "annotation without an image",
            "folder that is not used"
        ]
    );
}

#[test]
fn problems_of_annotations_are_named() {
    let mut files = good();
    files.set(
        &format!("{XML}/train/n01/n01_1.xml"),
        "<annotation><object>",
    );
    files.set(&format!("{XML}/val/val_1.xml"), &xml("n09", [0; 4]));
    files.remove(&format!("{XML}/val/val_2.xml"));
    files.remove(&format!("{TRAIN}/n02"));
    files.set(&format!("{TRAIN}/n02/notes.txt"), "");
    files.set("LOC_val_solution.csv", "val_7,n01 0 0 x 1\n");
    files.image(&format!("{TRAIN}/loose.JPEG"));
    insta::assert_snapshot!(problems(files.open_dir()), @"
    6 problems
      ILSVRC/Data/CLS-LOC/train/loose.JPEG: lies beside the class folders; move it into one or remove it
      ILSVRC/Data/CLS-LOC/train/n02: no image in this class folder; add some or remove the folder
      ILSVRC/Annotations/CLS-LOC/train/n01/n01_1.xml: at byte 20: the file ends too early; mend the annotation, or remove it to pack the image without a box
      LOC_val_solution.csv:1: a coordinate that is not a number of pixels; mend the annotation, or remove it to pack the image without a box
      ILSVRC/Data/CLS-LOC/val/val_1.JPEG: of class n09, which has no folder in train/; add it there or remove the image
      ILSVRC/Data/CLS-LOC/val/val_2.JPEG: no label: no XML file in Annotations/CLS-LOC/val, no line in LOC_val_solution.csv; restore one of them or remove the image
    ");
    let mut files = good();
    files.remove(TRAIN);
    insta::assert_snapshot!(problems(files.open_zip()), @"
    1 problem
      ILSVRC/Data/CLS-LOC/train/ is missing: it holds the images to train on; restore it
    ");
}
