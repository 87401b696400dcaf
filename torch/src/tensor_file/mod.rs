//! Files of tensors, read as data: safetensors files, and those of `torch.save`, in which nothing is run. Lists every
//! group of tensors in a file, however deep, and gives the bytes of each. Knows no network, and needs no libtorch, so
//! that it can be fuzzed by itself.

mod objects;
mod pth;

use safetensors::SafeTensors;
pub use safetensors::tensor::Dtype;

use pth::Pth;
pub use pth::is_pth;

/// Bytes that [`is_pth`] looks at.
pub const START_BYTES: u64 = 512;

/// How many elements all tensors that are read may have beyond those of their storages: 64 Mi. Views whose elements
/// overlap, such as those of `expand`, cost nothing in a file, but memory when they are used. A ResNet18 has 12 million.
const MAX_EXPANDED: u64 = 1 << 26;

/// A dictionary of a file that holds tensors.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// The keys that lead to it, with dots between; empty for the whole file.
    pub key: String,
    /// Its tensors.
    pub entries: Vec<TensorEntry>,
}

/// A tensor of a file, not read yet.
#[derive(Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name in the group.
    pub name: String,
    /// Its shape. Nothing is checked yet.
    pub shape: Vec<i64>,
    /// Index in the file.
    pub at: usize,
}

/// The elements of a tensor. Element `(i, j, ...)` is number `i * stride[0] + j * stride[1] + ...` of `bytes`, and all
/// of these are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorData<'a> {
    /// Type of the elements, little-endian.
    pub dtype: Dtype,
    /// From the first element to the last.
    pub bytes: &'a [u8],
    /// Elements in each direction, none of them 0 or less for a file of `torch.save`.
    pub shape: Vec<i64>,
    /// Distance of neighbours in each direction, in elements; not negative.
    pub stride: Vec<i64>,
}

/// A file whose tensors are read on demand.
pub struct TensorFile<'a> {
    form: FileForm<'a>,
    /// The rest of [`MAX_EXPANDED`].
    expandable: u64,
}

enum FileForm<'a> {
    Pth(Pth<'a>),
    Safetensors(Vec<(String, safetensors::tensor::TensorView<'a>)>),
}

impl<'a> TensorFile<'a> {
    /// Opens a file with these bytes.
    ///
    /// # Errors
    /// The file is damaged, of another format, or too large for what it says. The text continues a sentence that names
    /// the file.
    pub fn open(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.starts_with(b"version https://git-lfs") {
            return Err("is a pointer of Git LFS, not the file itself: run `git lfs pull`".into());
        }
        let form = match is_pth(bytes) {
            true => FileForm::Pth(Pth::open(bytes)?),
            false => {
                let file = SafeTensors::deserialize(bytes).map_err(|error| {
                    format!("is neither a safetensors file nor one of torch.save, or is damaged: {error}")
                })?;
                FileForm::Safetensors(file.tensors())
            }
        };
        Ok(Self {
            form,
            expandable: MAX_EXPANDED,
        })
    }

    /// True if it is a safetensors file.
    #[must_use]
    pub fn is_safetensors(&self) -> bool {
        matches!(self.form, FileForm::Safetensors(_))
    }

    /// The class of the object that the file holds instead of a dictionary, if it does.
    #[must_use]
    pub fn root_class(&self) -> Option<String> {
        match &self.form {
            FileForm::Pth(file) => file.root_class(),
            FileForm::Safetensors(_) => None,
        }
    }

    /// Every dictionary or module in the file that holds tensors under names. Of a safetensors file, names with a slash
    /// are left out: those of the optimizer and the average in tinyres's checkpoints.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn groups(&self) -> Result<Vec<Group>, String> {
        match &self.form {
            FileForm::Pth(file) => file.groups(),
            FileForm::Safetensors(tensors) => {
                let own = (0..)
                    .zip(tensors)
                    .filter(|(_, (name, _))| !name.contains('/'));
                let entries = own.map(|(at, (name, view))| TensorEntry {
                    name: name.clone(),
                    shape: dims(view.shape()),
                    at,
                });
                Ok(vec![Group {
                    key: String::new(),
                    entries: entries.collect(),
                }])
            }
        }
    }

    /// Reads a tensor, as it is.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn tensor(&mut self, entry: &TensorEntry) -> Result<TensorData<'_>, String> {
        let name = &entry.name;
        let read = match &mut self.form {
            FileForm::Pth(file) => file.tensor(entry.at),
            FileForm::Safetensors(tensors) => match tensors.get(entry.at) {
                // safetensors has checked that the number of bytes agrees with shape and type.
                Some((_, view)) => {
                    let shape = dims(view.shape());
                    Ok(TensorData {
                        dtype: view.dtype(),
                        bytes: view.data(),
                        stride: contiguous(&shape),
                        shape,
                    })
                }
                None => Err("which is not a tensor".into()),
            },
        };
        let data = read.map_err(|what| format!("has {name}, {what}"))?;
        let beyond = data.elements()?.saturating_sub(data.stored());
        self.expandable = self.expandable.checked_sub(beyond).ok_or_else(|| {
            format!(
                "has {name} of shape {:?}, whose elements are only {} in the file: too many share one place",
                data.shape,
                data.stored()
            )
        })?;
        Ok(data)
    }
}

impl TensorData<'_> {
    /// Number of elements.
    fn elements(&self) -> Result<u64, String> {
        let sides = self.shape.iter().map(|&side| u64::try_from(side).ok());
        let product = sides
            .into_iter()
            .try_fold(1_u64, |product, side| product.checked_mul(side?));
        product.ok_or_else(|| format!("has a tensor of shape {:?}: it is damaged", self.shape))
    }

    /// Number of elements that are stored.
    fn stored(&self) -> u64 {
        (self.bytes.len() * 8 / self.dtype.bitsize().max(1)) as u64
    }
}

fn dims(shape: &[usize]) -> Vec<i64> {
    let side = |&side: &usize| i64::try_from(side).unwrap_or(i64::MAX);
    shape.iter().map(side).collect()
}

/// The strides of a tensor that lies in the order of its indices.
fn contiguous(shape: &[i64]) -> Vec<i64> {
    let mut stride = vec![1_i64; shape.len()];
    for at in (1..shape.len()).rev() {
        stride[at - 1] = stride[at].saturating_mul(shape[at].max(1));
    }
    stride
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    /// A tuple of integers of four bytes.
    fn tuple(items: &[i32]) -> Vec<u8> {
        let mut bytes = b"(".to_vec();
        for item in items {
            bytes.push(b'J');
            bytes.extend(item.to_le_bytes());
        }
        bytes.push(b't');
        bytes
    }

    /// Name, storage, offset, size and stride of an `f32` tensor.
    type View<'a> = (&'a str, &'a str, i32, &'a [i32], &'a [i32]);

    /// A file of `torch.save` with a dictionary of tensors. Storage `0` has one element, `1` has six.
    fn saved(tensors: &[View<'_>]) -> Vec<u8> {
        let mut pickle = b"\x80\x02}".to_vec();
        let text = |text: &str| {
            let len = u8::try_from(text.len()).unwrap();
            [b"\x8c", &[len][..], text.as_bytes()].concat()
        };
        for (name, storage, offset, size, stride) in tensors {
            pickle.extend(text(name));
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            pickle.extend(text("storage"));
            pickle.extend(b"ctorch\nFloatStorage\n");
            pickle.extend(text(storage));
            pickle.extend(text("cpu"));
            pickle.extend(b"K\x06tQJ");
            pickle.extend(offset.to_le_bytes());
            pickle.extend(tuple(size));
            pickle.extend(tuple(stride));
            pickle.extend(b"tRs");
        }
        pickle.push(b'.');
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let numbers = (0..6_u8).flat_map(|number| f32::from(number).to_le_bytes());
        let numbers: Vec<_> = numbers.collect();
        for (name, bytes) in [
            ("data.pkl", &pickle[..]),
            ("data/0", &[0; 4]),
            ("data/1", &numbers),
        ] {
            zip.start_file(format!("archive/{name}"), options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// The data of each tensor of `file`, or why it is refused.
    fn read(bytes: &[u8]) -> Vec<Result<(Vec<i64>, usize), String>> {
        let mut file = TensorFile::open(bytes).unwrap();
        let groups = file.groups().unwrap();
        let entries = groups.iter().flat_map(|group| &group.entries);
        let read = entries.map(|entry| {
            let data = file.tensor(entry)?;
            Ok((data.shape, data.bytes.len()))
        });
        read.collect()
    }

    #[test]
    fn views_have_the_bytes_from_their_first_element_to_their_last() {
        let bytes = saved(&[
            ("whole", "1", 0, &[2, 3], &[3, 1]),
            ("column", "1", 1, &[2], &[3]),
            ("scalar", "1", 5, &[], &[]),
            ("expanded", "0", 0, &[64, 3, 7, 7], &[0, 0, 0, 0]),
        ]);
        let expected = [
            (vec![2, 3], 24),
            (vec![2], 16),
            (vec![], 4),
            (vec![64, 3, 7, 7], 4),
        ];
        assert_eq!(read(&bytes), expected.map(Ok));
    }

    #[test]
    fn views_beyond_their_storage_are_refused() {
        let bytes = saved(&[
            ("long", "1", 0, &[7], &[1]),
            ("late", "1", 6, &[1], &[1]),
            ("negative", "1", 5, &[2], &[-1]),
            ("before", "1", -1, &[1], &[1]),
            ("empty", "1", 0, &[0], &[1]),
            ("unlike", "1", 0, &[2, 2], &[1]),
            (
                "wrapping",
                "1",
                0,
                &[i32::MAX, i32::MAX, i32::MAX],
                &[i32::MAX, i32::MAX, i32::MAX],
            ),
            ("absent", "2", 0, &[1], &[1]),
        ]);
        for refused in read(&bytes) {
            let error = refused.unwrap_err();
            let known = ["reaches beyond its storage", "not found in archive"];
            assert!(known.iter().any(|part| error.contains(part)), "{error}");
        }
    }

    /// A file of a few hundred bytes must not take gigabytes when its tensors are used.
    #[test]
    fn elements_that_share_a_place_are_bounded() {
        let huge: &[i32] = &[1 << 17, 513];
        let none: &[i32] = &[0, 0];
        let [huge] = &read(&saved(&[("fc.weight", "0", 0, huge, none)]))[..] else {
            panic!("one tensor")
        };
        let error = huge.as_ref().unwrap_err();
        assert!(
            error.starts_with(
                "has fc.weight of shape [131072, 513], whose elements are only 1 in the file"
            ),
            "{error}"
        );
        // More than fit in a count, too.
        let sides = &[i32::MAX; 3];
        assert!(read(&saved(&[("w", "0", 0, sides, &[0; 3])]))[0].is_err());
        // All together.
        let part: View<'_> = ("w", "0", 0, &[1 << 15, 512], none);
        let all = read(&saved(&[part; 5]));
        let good: Vec<_> = all.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, true, true, true, false]);
        // What overlaps only in part, as the windows of `unfold`.
        let windows = read(&saved(&[("windows", "1", 0, &[4, 3], &[1, 1])]));
        assert_eq!(windows[0], Ok((vec![4, 3], 24)));
    }
}
