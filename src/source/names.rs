//! Rules on file names: which are junk, which are images, and their natural order.

use std::cmp::Ordering;

/// Returns whether a file manager made `name`, so that it is not part of any data set.
pub(super) fn is_junk(name: &str) -> bool {
    name.starts_with('.') || ["__MACOSX", "Thumbs.db", "desktop.ini"].contains(&name)
}

/// Returns whether `name` ends in `.jpeg` or `.jpg`, in any case.
pub(super) fn is_image(name: &str) -> bool {
    ends_in(name, &["jpeg", "jpg"])
}

/// Returns whether torchvision's `ImageFolder` treats `name` as an image. Only JPEG and PNG can be packed;
/// the others are accepted here so that they are reported as errors later, not skipped in silence.
pub(super) fn is_picture(name: &str) -> bool {
    let known = [
        "jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp",
    ];
    ends_in(name, &known)
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
        for name in ["a.JPEG", "a.jpg", "a.b.Jpg"] {
            assert!(is_image(name), "{name}");
        }
        for name in ["a.png", "a.JPEG.bak", "jpeg", "", "Thumbs.db"] {
            assert!(!is_image(name), "{name}");
        }
        for name in ["a.JPEG", "a.jpg", "a.b.Png", "a.WEBP"] {
            assert!(is_picture(name), "{name}");
        }
        for name in ["a.gif", "a.png.txt", "png", ""] {
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

    proptest! {
        #[test]
        fn natural_order_agrees_with_numbers_of_any_length(a: u64, b: u64) {
            let (x, y) = (format!("test_{a}.JPEG"), format!("test_{b}.JPEG"));
            prop_assert_eq!(natural(&x, &y), a.cmp(&b));
        }
    }
}
