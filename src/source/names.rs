//! What a file's name tells.

use std::cmp::Ordering;

/// Whether `name` is left behind by a file manager and no part of any data set.
pub(super) fn is_junk(name: &str) -> bool {
    name.starts_with('.') || ["__MACOSX", "Thumbs.db", "desktop.ini"].contains(&name)
}

/// Whether `name` is that of an image: it ends in `.jpeg` or `.jpg`, in any case.
pub(super) fn is_image(name: &str) -> bool {
    ends_in(name, &["jpeg", "jpg"])
}

/// Whether torchvision's `ImageFolder` takes `name` for that of an image, in any case. Not all of
/// these can be packed; who has such a file is to know that.
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

/// Orders names as people do: runs of digits compare as numbers, so that `test_2` comes before
/// `test_10`. Names that differ in leading zeros alone keep the order of their bytes.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    runs(a).cmp(runs(b)).then_with(|| a.cmp(b))
}

/// The runs of digits and of other bytes. A number without its zeros compares by its length first.
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
    fn digits_compare_as_numbers() {
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
    fn images_and_junk() {
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
        fn numbers_of_any_length_keep_their_order(a: u64, b: u64) {
            let (x, y) = (format!("test_{a}.JPEG"), format!("test_{b}.JPEG"));
            prop_assert_eq!(natural(&x, &y), a.cmp(&b));
        }
    }
}
