//! Rules on file names: which are junk, which are images, which name a split, and their natural order.

use std::cmp::Ordering;

use super::Split;

/// Returns whether a file manager or another tool made `name`, so that it is not part of any data set.
pub(super) fn is_junk(name: &str) -> bool {
    let known = ["__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini"];
    name.starts_with('.') || known.contains(&name)
}

/// Returns whether `name` has the extension of an image: those that torchvision's `ImageFolder` takes, and
/// more of JPEG, GIF and PNM. An extension that no decoder knows leads to an error later, not to a silent loss.
pub(super) fn is_picture(name: &str) -> bool {
    let known = [
        "jpg", "jpeg", "jpe", "jfif", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp", "gif",
        "pbm", "pnm",
    ];
    ends_in(name, &known)
}

/// How clearly a name names a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Clarity {
    /// `Train`, `testing`, `VALID`: a word for the split.
    Word,
    /// `seg_train`, `test-images`, `val2017`: a word for the split among others.
    Part,
}

/// The words for each split.
const SPLITS: [(Split, &[&str]); 3] = [
    (Split::Train, &["train", "training"]),
    (Split::Val, &["val", "valid", "validation", "dev"]),
    (Split::Test, &["test", "testing"]),
];

/// The words for `split`, the shortest first.
pub(super) fn words_of(split: Split) -> &'static [&'static str] {
    let words = SPLITS.iter().find(|(known, _)| *known == split);
    words.map_or(&[], |(_, words)| words)
}

/// The split that a folder of this name may hold, in any case; `None` if it names none, or two.
pub(super) fn split_of(name: &str) -> Option<(Split, Clarity)> {
    let of_word = |word: &str| {
        let is_word = |known: &&str| known.eq_ignore_ascii_case(word);
        let found = SPLITS.iter().find(|(_, words)| words.iter().any(is_word));
        found.map(|(split, _)| *split)
    };
    if let Some(split) = of_word(name) {
        return Some((split, Clarity::Word));
    }
    let mut splits = name.split(|c: char| !c.is_alphabetic()).filter_map(of_word);
    let split = splits.next()?;
    splits
        .all(|other| other == split)
        .then_some((split, Clarity::Part))
}

/// The extension of `name` in lower case with its dot, or `no extension`: the kind under which a file that
/// is passed over is counted.
pub(super) fn extension(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && extension.len() <= 12 => {
            format!(".{}", extension.to_lowercase())
        }
        _ => "no extension".to_owned(),
    }
}

fn ends_in(name: &str, extensions: &[&str]) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| {
        extensions
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// Natural order of names: runs of digits compare as numbers, so that `test_2` comes before `test_10`.
/// Names that differ only in leading zeros are ordered by their bytes.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    runs(a).cmp(runs(b)).then_with(|| a.cmp(b))
}

/// The runs of digits and of other bytes in `name`, as keys to compare. A number is keyed by its length
/// without leading zeros, then by its digits.
fn runs(name: &str) -> impl Iterator<Item = (bool, usize, &[u8])> {
    let runs = name
        .as_bytes()
        .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit());
    runs.map(|run| {
        if !run[0].is_ascii_digit() {
            return (true, 0, run);
        }
        let zeros = run.iter().take_while(|&&digit| digit == b'0').count();
        (false, run.len() - zeros, &run[zeros..])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn natural_order_compares_digits_as_numbers() {
        let mut names = [
            "b1",
            "a10",
            "a2",
            "a02",
            "a",
            "a1b10",
            "a1b9",
            "7",
            "a99999999999999999999999",
            "a100000000000000000000000",
        ];
        names.sort_by(|a, b| natural(a, b));
        let expected = [
            "7",
            "a",
            "a1b9",
            "a1b10",
            "a02",
            "a2",
            "a10",
            "a99999999999999999999999",
            "a100000000000000000000000",
            "b1",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn names_of_images_and_junk_are_recognized() {
        for name in ["a.JPEG", "a.jpg", "a.b.Png", "a.WEBP", "a.jfif", "a.JPE"] {
            assert!(is_picture(name), "{name}");
        }
        for name in ["a.heic", "a.png.txt", "a.JPG_large", "png", "jpeg", ""] {
            assert!(!is_picture(name), "{name}");
        }
        assert!(
            is_junk("._a.JPEG")
                && is_junk(".DS_Store")
                && is_junk("__MACOSX")
                && is_junk("Thumbs.db")
        );
        assert!(!is_junk("a.JPEG") && !is_junk("train"));
    }

    #[test]
    fn names_of_splits_are_recognized_in_any_case() {
        for (name, expected) in [
            ("train", Some((Split::Train, Clarity::Word))),
            ("TRAINING", Some((Split::Train, Clarity::Word))),
            ("Dev", Some((Split::Val, Clarity::Word))),
            ("validation", Some((Split::Val, Clarity::Word))),
            ("Testing", Some((Split::Test, Clarity::Word))),
            ("seg_train", Some((Split::Train, Clarity::Part))),
            ("Test-Images", Some((Split::Test, Clarity::Part))),
            ("val2017", Some((Split::Val, Clarity::Part))),
            ("train_val", None),
            ("trains", None),
            ("contest", None),
            ("images", None),
            ("", None),
        ] {
            assert_eq!(split_of(name), expected, "{name}");
        }
    }

    #[test]
    fn files_are_counted_by_extension() {
        for (name, expected) in [
            ("a.GIF", ".gif"),
            ("b.jpg.part", ".part"),
            ("IMG_0007", "no extension"),
            ("a. a sentence with a dot", "no extension"),
        ] {
            assert_eq!(extension(name), expected);
        }
    }

    proptest! {
        #[test]
        fn natural_order_agrees_with_numbers_of_any_length(a: u64, b: u64) {
            let (x, y) = (format!("test_{a}.JPEG"), format!("test_{b}.JPEG"));
            prop_assert_eq!(natural(&x, &y), a.cmp(&b));
        }
    }
}
