//! The header of a NumPy array in a file, and arrays of integers.
//!
//! Source: `numpy.lib.format`, versions 1 to 3 of `.npy`.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// More bytes than the header of any array of images or labels has.
pub const MAX_HEAD: u64 = 1 << 16;

/// An array in C order, by its header.
#[derive(Debug)]
pub struct Npy {
    /// Such as `|u1` for bytes.
    pub dtype: String,
    /// Its sides.
    pub shape: Vec<u64>,
    /// Offset of the first value in the file.
    pub start: u64,
}

impl Npy {
    /// Parses the header that begins `head`, of a file of `len` bytes, and checks that the values fill the rest.
    ///
    /// # Errors
    /// The fault, in words that follow the name of the file.
    pub fn parse(head: &[u8], len: u64) -> Result<Self, String> {
        let &[
            b'\x93',
            b'N',
            b'U',
            b'M',
            b'P',
            b'Y',
            version,
            _,
            l0,
            l1,
            l2,
            l3,
            ..,
        ] = head
        else {
            return Err("not a whole .npy file".to_owned());
        };
        let (first, size) = match version {
            1 => (10, u32::from(u16::from_le_bytes([l0, l1]))),
            _ => (12, u32::from_le_bytes([l0, l1, l2, l3])),
        };
        let start = first + u64::from(size);
        let text = usize::try_from(start)
            .ok()
            .and_then(|start| head.get(if version == 1 { 10 } else { 12 }..start));
        let text = String::from_utf8_lossy(text.ok_or("its header is cut short or very long")?);
        let after = |key: &str| text.split_once(key).map(|(_, after)| after.trim_start());
        let dtype = after("'descr':")
            .and_then(|it| it.split('\'').nth(1))
            .unwrap_or_default()
            .to_owned();
        let shape = after("'shape':").and_then(|it| it.strip_prefix('(')?.split(')').next());
        let shape: Option<Vec<u64>> = shape.and_then(|shape| {
            let sizes = shape
                .split(',')
                .map(str::trim)
                .filter(|size| !size.is_empty());
            sizes.map(|size| size.parse().ok()).collect()
        });
        let is_c = after("'fortran_order':").is_some_and(|it| it.starts_with("False"));
        let shape = shape
            .filter(|_| is_c)
            .ok_or("its header is not that of an array in C order")?;
        let width: u64 = dtype
            .get(2..)
            .and_then(|width| width.parse().ok())
            .unwrap_or(0);
        let needed = shape
            .iter()
            .try_fold(width, |len, &size| len.checked_mul(size));
        if needed.is_none() || needed != len.checked_sub(start) {
            return Err(format!("its data is not that of {dtype} {shape:?}"));
        }
        Ok(Self {
            dtype,
            shape,
            start,
        })
    }

    /// The values of `[N]` or `[N, 1]` integers of a file whose content is `range` of `file`. One that is too
    /// large for an `i64` becomes the largest.
    ///
    /// # Errors
    /// The fault, in words that follow the name of the file.
    pub fn integers(&self, file: &File, range: Range<u64>) -> Result<Vec<i64>, String> {
        let failed = || {
            format!(
                "holds {} {:?}, expected integers [N] or [N, 1]",
                self.dtype, self.shape
            )
        };
        if !matches!(self.shape[..], [_] | [_, 1]) {
            return Err(failed());
        }
        let start = range.start.saturating_add(self.start);
        let len = usize::try_from(range.end.saturating_sub(start)).map_err(|it| it.to_string())?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, start)
            .map_err(|error| error.to_string())?;
        integers(&self.dtype, &bytes).ok_or_else(failed)
    }
}

/// The values in `bytes`, if `dtype` is one of integers. One that is too large for an `i64` becomes the largest.
#[must_use]
pub fn integers(dtype: &str, bytes: &[u8]) -> Option<Vec<i64>> {
    let (signed, width) = match dtype {
        "|u1" => (false, 1),
        "|i1" => (true, 1),
        "<u2" => (false, 2),
        "<i2" => (true, 2),
        "<u4" => (false, 4),
        "<i4" => (true, 4),
        "<u8" => (false, 8),
        "<i8" => (true, 8),
        _ => return None,
    };
    let value = |bytes: &[u8]| {
        let is_negative = signed && bytes.last().is_some_and(|&last| last >= 0x80);
        let mut whole = [if is_negative { 0xff } else { 0 }; 8];
        whole[..width].copy_from_slice(bytes);
        match signed {
            true => i64::from_le_bytes(whole),
            false => i64::try_from(u64::from_le_bytes(whole)).unwrap_or(i64::MAX),
        }
    };
    Some(bytes.chunks_exact(width).map(value).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn npy(dtype: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let text =
            format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let mut bytes = b"\x93NUMPY\x01\0".to_vec();
        bytes.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
        bytes.extend(text.bytes());
        bytes.extend(values);
        bytes
    }

    fn integers(bytes: &[u8]) -> Result<Vec<i64>, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        file.write_all(bytes).unwrap();
        let array = Npy::parse(bytes, bytes.len() as u64)?;
        array.integers(&file, 6..6 + bytes.len() as u64)
    }

    #[test]
    fn integers_of_every_width_have_their_sign() {
        let values = [
            ("|u1", "2,", vec![0, 255], [0, 255]),
            ("|i1", "2, 1", vec![1, 255], [1, -1]),
            ("<u2", "2,", vec![0, 1, 255, 255], [256, 65535]),
            ("<i2", "2,", vec![0, 1, 254, 255], [256, -2]),
            ("<i4", "2,", [[9, 0, 0, 0], [255; 4]].concat(), [9, -1]),
            ("<u8", "2,", [[0; 8], [255; 8]].concat(), [0, i64::MAX]),
            ("<i8", "2,", [[0; 8], [255; 8]].concat(), [0, -1]),
        ];
        for (dtype, shape, bytes, expected) in values {
            assert_eq!(
                integers(&npy(dtype, shape, &bytes)).unwrap(),
                expected,
                "{dtype}"
            );
        }
    }

    #[test]
    fn other_arrays_are_refused_by_what_they_hold() {
        for (bytes, reason) in [
            (
                npy("<f4", "1,", &[0; 4]),
                "holds <f4 [1], expected integers",
            ),
            (npy("|u1", "2, 2", &[0; 4]), "holds |u1 [2, 2], expected"),
            (npy("|u1", "3,", &[0; 4]), "its data is not that of |u1 [3]"),
            (npy("|u1", "18446744073709551615, 9", &[]), "its data"),
            (b"PK\x03\x04".to_vec(), "not a whole .npy file"),
            (
                npy("|u1", "4,", &[0; 4])[..20].to_vec(),
                "its header is cut",
            ),
        ] {
            let error = integers(&bytes).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
