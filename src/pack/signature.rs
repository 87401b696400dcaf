//! Names of files that are not images known here, by their first bytes.

/// Offset, bytes that stand there, and the kind of file.
const KNOWN: [(usize, &[u8], &str); 15] = [
    (4, b"ftypavif", "an AVIF image (convert it to PNG)"),
    (4, b"ftyphei", "a HEIC photograph (convert it to PNG)"),
    (4, b"ftypmif1", "an AVIF or HEIF image (convert it to PNG)"),
    (4, b"ftyp", "a video, AVIF or HEIF file"),
    (
        4,
        b"jP  \r\n\x87\n",
        "a JPEG 2000 image (convert it to PNG)",
    ),
    (
        0,
        b"\xff\x4f\xff\x51",
        "a JPEG 2000 image (convert it to PNG)",
    ),
    (4, b"JXL \r\n\x87\n", "a JPEG XL image (convert it to PNG)"),
    (0, b"\xff\x0a", "a JPEG XL image (convert it to PNG)"),
    (0, b"\0\0\x01\0", "an icon (convert it to PNG)"),
    (0, b"8BPS", "a Photoshop file (convert it to PNG)"),
    (0, b"DDS ", "a DDS texture (convert it to PNG)"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a file compressed by gzip"),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer in place of the image (git lfs pull fetches it)",
    ),
];

/// The kind of a file that begins like `bytes`.
pub(super) fn kind(bytes: &[u8]) -> &'static str {
    if bytes.is_empty() {
        return "an empty file";
    }
    let stands = |&&(at, sign, _): &&(usize, &[u8], _)| {
        bytes.get(at..).is_some_and(|rest| rest.starts_with(sign))
    };
    match KNOWN.iter().find(stands) {
        Some((_, _, kind)) => kind,
        None if bytes.trim_ascii_start().starts_with(b"<") => "a web page or other text",
        None if bytes.iter().all(|&byte| byte == 0) => "a file of zeros alone",
        None => "no kind of image known here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b""[..], "an empty file"),
            (&[0; 5000], "a file of zeros alone"),
            (b"\n <!DOCTYPE html>", "a web page"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF image"),
            (b"\0\0\0\x1cftypheic\0\0\0\0", "a HEIC photograph"),
            (b"\0\0\0\x1cftypisom\0\0\0\0", "a video"),
            (b"\0\0\0\x0cjP  \r\n\x87\n\0\0", "a JPEG 2000 image"),
            (b"\0\0\0\x0cJXL \r\n\x87\n\0\0", "a JPEG XL image"),
            (b"\0\0\x01\0\x01\0", "an icon"),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                "a Git LFS pointer",
            ),
            (b"some text", "no kind of image"),
        ] {
            assert!(
                kind(bytes).starts_with(expected),
                "{bytes:x?}: {}",
                kind(bytes)
            );
        }
    }
}
