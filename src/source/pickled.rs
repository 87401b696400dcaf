//! Pickled batches of images: a dictionary of NumPy arrays of bytes and of lists. The arrays stay in the
//! file; only their place is kept.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::npy;
use crate::pickle::{Call, Pickle, Value};

/// A pickled dictionary.
#[derive(Debug)]
pub(super) struct Pickled(Pickle);

/// A `[rows, columns]` array, or the place of its bytes. One of `[rows]` has one column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Array {
    /// The type as `.npy` files have it: `|u1`, `<i8`.
    pub dtype: String,
    pub rows: u64,
    pub columns: u64,
    pub place: Range<u64>,
}

impl Pickled {
    /// Reads the pickle in `range` of `file`.
    pub fn read(file: &File, range: Range<u64>) -> Result<Self, String> {
        let pickle = Pickle::of_file(file, range).map_err(|error| error.to_string())?;
        Ok(Self(pickle))
    }

    fn get(&self, key: &str) -> Option<usize> {
        self.0.get(self.0.root(), key)
    }

    /// The integers at `key`, a list or an array in `file`, which the pickle was read from.
    pub fn integers(&self, key: &str, file: &File) -> Option<Vec<i64>> {
        if let Some(array) = self.array(key).filter(|array| array.columns == 1) {
            let mut bytes = vec![0; usize::try_from(array.place.end - array.place.start).ok()?];
            file.read_exact_at(&mut bytes, array.place.start).ok()?;
            return npy::integers(&array.dtype, &bytes);
        }
        let items = self.0.list(self.get(key)?)?;
        items.iter().map(|&at| self.0.int(at)).collect()
    }

    /// The list of texts at `key`.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let items = self.0.list(self.get(key)?)?;
        let text = |&at: &usize| self.0.text(at).map(str::to_owned);
        items.iter().map(text).collect()
    }

    fn call(&self, at: usize) -> Option<&Call> {
        match self.0.at(at) {
            Value::Call(call) => Some(call),
            _ => None,
        }
    }

    /// The array at `key`.
    pub fn array(&self, key: &str) -> Option<Array> {
        let pickle = &self.0;
        let call = self.call(self.get(key)?)?;
        // NumPy 2 calls its modules by other names.
        let is = |module: &str, name: &str| {
            ["numpy.core", "numpy._core"]
                .iter()
                .any(|core| pickle.is_global(call.callable, &format!("{core}.{module}"), name))
        };
        let (shape, dtype, bytes, is_c) = if is("multiarray", "_reconstruct") {
            // (version, shape, dtype, is_fortran, bytes)
            let &[_, shape, dtype, fortran, bytes] = pickle.list(call.state?)? else {
                return None;
            };
            (shape, dtype, bytes, pickle.int(fortran) == Some(0))
        } else if is("numeric", "_frombuffer") {
            let &[bytes, dtype, shape, order] = pickle.list(call.arguments)? else {
                return None;
            };
            (shape, dtype, bytes, pickle.text(order) == Some("C"))
        } else {
            return None;
        };
        let dtype = self.call(dtype)?;
        let is_dtype = pickle.is_global(dtype.callable, "numpy", "dtype");
        let kind = pickle.text(*pickle.list(dtype.arguments)?.first()?)?;
        let width: u64 = kind.get(1..)?.parse().ok()?;
        // (version, byte order, ...)
        let order = pickle.text(*pickle.list(dtype.state?)?.get(1)?)?;
        let size = |at: usize| u64::try_from(pickle.int(at)?).ok();
        let (rows, columns) = match *pickle.list(shape)? {
            [rows] => (size(rows)?, 1),
            [rows, columns] => (size(rows)?, size(columns)?),
            _ => return None,
        };
        let Value::Bytes { place, .. } = pickle.at(bytes) else {
            return None;
        };
        let place = place.clone();
        let len = rows.checked_mul(columns)?.checked_mul(width)?;
        let fits = len == place.end - place.start;
        (is_dtype && is_c && fits).then(|| Array {
            dtype: format!("{order}{kind}"),
            rows,
            columns,
            place,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Pickled, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Pickled::read(&file, 0..bytes.len() as u64)
    }

    /// `pickle.dumps({b"labels": [1, 300, 2**40], "n": numpy.zeros((1, 2), "u1")}, 4)` of NumPy 2.
    const WHOLE: &[u8] = b"\x80\x04}(C\x06labels](K\x01M,\x01\x8a\x06\x00\x00\x00\x00\x00\x01e\x8c\x01n\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x01K\x02\x86\x94\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02u1\x89\x88\x87R(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C\x02\x07\x08tbu.";

    #[test]
    fn arrays_and_lists_are_data() {
        let pickle = parse(WHOLE).unwrap();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(pickle.integers("labels", &file).unwrap(), [1, 300, 1 << 40]);
        let array = pickle.array("n").unwrap();
        assert_eq!(
            (array.dtype.as_str(), array.rows, array.columns),
            ("|u1", 1, 2)
        );
        let place = usize::try_from(array.place.start).unwrap();
        assert_eq!(WHOLE[place..place + 2], [7, 8]);
        assert!(pickle.array("labels").is_none() && pickle.texts("absent").is_none());
    }

    #[test]
    fn prefixes_fail_and_changed_bytes_do_not_panic() {
        for end in 0..WHOLE.len() {
            assert!(parse(&WHOLE[..end]).is_err(), "{end}");
        }
        for at in 0..WHOLE.len() {
            let mut other = WHOLE.to_vec();
            for byte in [0, 1, 0x7f, 0x80, 0xff, b'(', b'R', b'b', b'.', b'u', 0x93] {
                other[at] = byte;
                if let Ok(pickle) = parse(&other) {
                    let file = tempfile::tempfile().unwrap();
                    let _ = (pickle.integers("labels", &file), pickle.array("n"));
                }
            }
        }
    }
}
