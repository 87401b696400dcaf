//! Reads files of `torch.save`: a pickle that describes tensors, and the storages that they are views of. The
//! two forms are a zip, since PyTorch 1.6, and a sequence of pickles before. Lists every group of tensors in
//! the file, however deep; which one is a network is decided in `resnet`.

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read};

use safetensors::tensor::Dtype;
use tinyres::pickle::{self, MAX_VALUES, Pickle};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::objects::{self, Object, StridedView, object};
use super::{Group, TensorData, TensorEntry};

/// The start of a file of PyTorch before 1.6: a pickled magic number. Before 0.1.10 the files were tar files,
/// with the magic of those at [`TAR_MAGIC_AT`].
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
const TAR_MAGIC: &[u8] = b"ustar";
const TAR_MAGIC_AT: usize = 257;

/// Dictionaries deeper than this are not searched.
const MAX_DEPTH: usize = 16;

fn is_tar(bytes: &[u8]) -> bool {
    let tar = bytes.get(TAR_MAGIC_AT..).unwrap_or_default();
    tar.starts_with(TAR_MAGIC)
}

/// True if `bytes` start as a file of `torch.save`, of any version.
#[must_use]
pub fn is_pth(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(LEGACY_MAGIC) || is_tar(bytes)
}

/// A file of `torch.save`, whose tensors are read on demand.
pub(super) struct Pth<'a> {
    pickle: Pickle,
    files: Files<'a>,
    /// The storages read so far.
    storages: HashMap<String, Vec<u8>>,
    /// Bytes of storages that may still be read: those of the file, of which each is in one storage at most.
    unread: usize,
}

/// The bytes of the storages.
enum Files<'a> {
    Zip {
        zip: Box<ZipArchive<Cursor<&'a [u8]>>>,
        /// The directory that all files of the zip are in.
        directory: String,
    },
    Legacy(HashMap<String, &'a [u8]>),
}

impl<'a> Pth<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let (pickle, files) = if is_tar(bytes) {
            return Err(
                "is in the format of torch.save before PyTorch 0.1.10: save it again, in Python, with \
                 torch.save(torch.load(FILE, map_location=\"cpu\"), FILE)"
                    .into(),
            );
        } else if bytes.starts_with(LEGACY_MAGIC) {
            legacy(&bytes[LEGACY_MAGIC.len()..])?
        } else {
            let mut files = Files::zip(bytes)?;
            let (pickle, _) = parse(&files.read("data.pkl")?)?;
            (pickle, files)
        };
        Ok(Self {
            pickle,
            files,
            storages: HashMap::new(),
            unread: bytes.len(),
        })
    }

    /// Every dictionary or module in the file that holds tensors under names.
    pub(super) fn groups(&self) -> Result<Vec<Group>, String> {
        let mut search = Search {
            pickle: &self.pickle,
            seen: HashSet::new(),
            found: Vec::new(),
            left: 4 * MAX_VALUES,
        };
        search.value(self.pickle.root(), "", 0)?;
        Ok(search.found)
    }

    /// The class of the object that the file holds instead of a dictionary.
    pub(super) fn root_class(&self) -> Option<String> {
        match object(&self.pickle, self.pickle.root()) {
            Ok(Object::Instance(class, _)) => Some(class),
            _ => None,
        }
    }

    /// The tensor with index `at`, of a [`TensorEntry`] of this file.
    pub(super) fn tensor(&mut self, at: usize) -> Result<TensorData<'_>, String> {
        let Object::Tensor(view) = object(&self.pickle, at)? else {
            return Err("which is not a tensor".into());
        };
        let dtype =
            dtype(&view.class).ok_or_else(|| format!("a {}, which no ResNet18 has", view.class))?;
        let storage: &[u8] = match &mut self.files {
            Files::Legacy(storages) => (storages.get(&view.key))
                .ok_or_else(|| format!("whose storage {} is missing: it is damaged", view.key))?,
            files @ Files::Zip { .. } => {
                if !self.storages.contains_key(&view.key) {
                    let storage = files.read(&format!("data/{}", view.key))?;
                    self.unread = (self.unread.checked_sub(storage.len()))
                        .ok_or("whose storage overlaps another one: the file is damaged")?;
                    self.storages.insert(view.key.clone(), storage);
                }
                &self.storages[&view.key]
            }
        };
        let (size, bytes) = (dtype.bitsize() / 8, storage.len());
        let elements = i64::try_from(bytes / size).unwrap_or(i64::MAX);
        let range = range(&view, elements).ok_or("which reaches beyond its storage")?;
        Ok(TensorData {
            dtype,
            bytes: &storage[range.start * size..range.end * size],
            shape: view.size,
            stride: view.stride,
        })
    }
}

/// The elements of a storage of `elements` from the first to the last of `view`. `None` if they are not all there.
fn range(view: &StridedView, elements: i64) -> Option<std::ops::Range<usize>> {
    let plain = view.size.len() == view.stride.len()
        && view.size.iter().all(|&size| size > 0)
        && view.stride.iter().all(|&stride| stride >= 0);
    let mut last = view.offset;
    for (&size, &stride) in view.size.iter().zip(&view.stride) {
        last = last.checked_add((size - 1).checked_mul(stride)?)?;
    }
    let inside = plain && view.offset >= 0 && last < elements;
    let range = usize::try_from(view.offset).ok()?..usize::try_from(last).ok()?.checked_add(1)?;
    inside.then_some(range)
}

/// The pickle that begins `bytes`, and the bytes after it.
fn parse(bytes: &[u8]) -> Result<(Pickle, &[u8]), String> {
    let read = Pickle::of_bytes(bytes);
    let (pickle, len) = read.map_err(|error: pickle::Error| error.to_string())?;
    Ok((pickle, &bytes[len..]))
}

/// A search for tensors in a pickle. It visits each value once, so neither cycles nor parts that are shared
/// many times make it long.
struct Search<'a> {
    pickle: &'a Pickle,
    seen: HashSet<usize>,
    found: Vec<Group>,
    /// Entries that may still be visited: several dictionaries can be made of one list.
    left: usize,
}

impl Search<'_> {
    /// What the value `at` stands for. Counts its entries.
    fn object(&mut self, at: usize) -> Result<Object, String> {
        let object = object(self.pickle, at)?;
        let entries = match &object {
            Object::Dict(entries) => entries.len(),
            Object::List(items) => items.len(),
            _ => 0,
        };
        let left = self.left.checked_sub(entries);
        self.left = left.ok_or_else(|| pickle::Error::TooMany.to_string())?;
        Ok(object)
    }

    /// Adds the groups in the value `at`, whose place in the file is `key`.
    fn value(&mut self, at: usize, key: &str, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH || !self.seen.insert(at) {
            return Ok(());
        }
        let inside = |name: &str| match key {
            "" => name.to_owned(),
            _ => format!("{key}.{name}"),
        };
        match self.object(at)? {
            Object::Dict(entries) => {
                let mut own = Vec::new();
                for (name, value) in entries {
                    let name = match (self.pickle.text(name), self.pickle.int(name)) {
                        (Some(name), _) => name.to_owned(),
                        (_, Some(number)) => number.to_string(),
                        _ => continue,
                    };
                    match self.object(value)? {
                        Object::Tensor(view) => own.push(entry(name, view, value)),
                        _ => self.value(value, &inside(&name), depth + 1)?,
                    }
                }
                self.add(key, own);
            }
            Object::List(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    self.value(item, &inside(&index.to_string()), depth + 1)?;
                }
            }
            Object::Instance(_, Some(state)) => match self.attribute(state, "_modules")? {
                Some(_) => {
                    let mut own = Vec::new();
                    self.module(state, "", depth, &mut own)?;
                    self.add(key, own);
                }
                None => self.value(state, key, depth + 1)?,
            },
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, key: &str, entries: Vec<TensorEntry>) {
        if !entries.is_empty() {
            let key = key.to_owned();
            self.found.push(Group { key, entries });
        }
    }

    /// Adds to `own` what `state_dict()` of a pickled module would have, from its attributes `state`.
    fn module(
        &mut self,
        state: usize,
        prefix: &str,
        depth: usize,
        own: &mut Vec<TensorEntry>,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH || !self.seen.insert(state) {
            return Ok(());
        }
        for kind in ["_parameters", "_buffers", "_modules"] {
            for (name, at) in self.attribute(state, kind)?.unwrap_or_default() {
                let name = format!("{prefix}{name}");
                match self.object(at)? {
                    Object::Tensor(view) => own.push(entry(name, view, at)),
                    Object::Instance(_, Some(inner)) => {
                        self.module(inner, &format!("{name}."), depth + 1, own)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The entries of the dictionary `name` among the attributes `state` of an object.
    fn attribute(
        &mut self,
        state: usize,
        name: &str,
    ) -> Result<Option<Vec<(String, usize)>>, String> {
        let Object::Dict(attributes) = self.object(state)? else {
            return Ok(None);
        };
        let mut all = attributes.into_iter();
        let Some((_, value)) = all.find(|&(key, _)| self.pickle.text(key) == Some(name)) else {
            return Ok(None);
        };
        let Object::Dict(entries) = self.object(value)? else {
            return Ok(None);
        };
        let named = |(key, value)| Some((self.pickle.text(key)?.to_owned(), value));
        Ok(Some(entries.into_iter().filter_map(named).collect()))
    }
}

fn entry(name: String, view: StridedView, at: usize) -> TensorEntry {
    TensorEntry {
        name,
        shape: view.size,
        at,
    }
}

/// The pickle and the storages of a file of PyTorch before 1.6, from the byte after the magic number: the
/// protocol's version, the system's properties, the value, the names of the storages, each a pickle; then
/// each storage, its length in elements before it.
fn legacy(bytes: &[u8]) -> Result<(Pickle, Files<'_>), String> {
    let (_, bytes) = parse(bytes)?;
    let (_, bytes) = parse(bytes)?;
    let (pickle, bytes) = parse(bytes)?;
    let (keys, mut bytes) = parse(bytes)?;
    let mut sizes = HashMap::new();
    for at in 0..pickle.values().len() {
        if let Some(storage) = objects::storage(&pickle, at) {
            sizes.insert(storage.key, element_size(&storage.class));
        }
    }
    let names = (keys.list(keys.root())).ok_or("has no list of its storages: it is damaged")?;
    let mut storages = HashMap::new();
    for &name in names {
        let name = (keys.text(name)).ok_or("has a storage without a name: it is damaged")?;
        let size = (sizes.get(name).copied().flatten())
            .ok_or_else(|| format!("has a storage {name} of an unknown type"))?;
        let cut = || "is damaged: it is cut short".to_owned();
        let (len, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
        let len = usize::try_from(i64::from_le_bytes(*len)).ok();
        let len = len.and_then(|len| len.checked_mul(size)).ok_or_else(cut)?;
        let (storage, rest) = rest.split_at_checked(len).ok_or_else(cut)?;
        storages.insert(name.to_owned(), storage);
        bytes = rest;
    }
    drop(sizes);
    Ok((pickle, Files::Legacy(storages)))
}

/// Type of the elements of the storage class `class`, if a ResNet18 can have it.
fn dtype(class: &str) -> Option<Dtype> {
    match class.strip_prefix("torch.")? {
        "FloatStorage" => Some(Dtype::F32),
        "DoubleStorage" => Some(Dtype::F64),
        "HalfStorage" => Some(Dtype::F16),
        "BFloat16Storage" => Some(Dtype::BF16),
        "LongStorage" => Some(Dtype::I64),
        "IntStorage" => Some(Dtype::I32),
        _ => None,
    }
}

/// Bytes of an element of the storage class `class`.
fn element_size(class: &str) -> Option<usize> {
    Some(
        match class.strip_prefix("torch.")?.strip_suffix("Storage")? {
            "Byte" | "Char" | "Bool" | "QInt8" | "QUInt8" => 1,
            "Half" | "BFloat16" | "Short" => 2,
            "Float" | "Int" | "QInt32" => 4,
            "Double" | "Long" | "ComplexFloat" => 8,
            "ComplexDouble" => 16,
            _ => return None,
        },
    )
}

impl<'a> Files<'a> {
    fn zip(bytes: &'a [u8]) -> Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
        let named = |end: &str| {
            let names = zip.file_names().filter_map(Result::ok);
            names
                .filter_map(|name| Some(name.strip_suffix(end)?.to_owned()))
                .next()
        };
        if named("/constants.pkl").is_some() {
            return Err(
                "is a TorchScript module: save its tensors, in Python, with \
                 torch.save(torch.jit.load(FILE).state_dict(), FILE)"
                    .into(),
            );
        }
        let directory = named("/data.pkl")
            .ok_or("is a zip without a data.pkl: it was not written by torch.save")?;
        let mut files = Self::Zip {
            zip: Box::new(zip),
            directory,
        };
        match files.read("byteorder").as_deref() {
            Ok(b"big") => Err("holds big-endian tensors, expected little-endian".into()),
            // Files of PyTorch before 2.1 do not have this entry, and are little-endian.
            _ => Ok(files),
        }
    }

    /// Reads a file of the archive. `torch.save` does not compress, so a file is not larger than the archive.
    fn read(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let Self::Zip { zip, directory } = self else {
            return Err(format!("has no file {name}"));
        };
        let name = format!("{directory}/{name}");
        let mut file = zip.by_name(&name).map_err(|error| damaged(&error))?;
        if file.compression() != CompressionMethod::Stored {
            return Err(format!(
                "was not written by torch.save: {name} is compressed"
            ));
        }
        let mut bytes = Vec::new();
        // Reading to the end also compares the checksum.
        (file.read_to_end(&mut bytes)).map_err(|error| format!("is damaged: {name}: {error}"))?;
        Ok(bytes)
    }
}

fn damaged(error: &ZipError) -> String {
    format!("is damaged: {error}: copy or download it again")
}
