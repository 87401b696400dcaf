//! Reads files of `torch.save`: a pickle that describes tensors, and the storages that they are views of. The
//! two forms are a zip, since PyTorch 1.6, and a sequence of pickles before. Lists every group of tensors in
//! the file, however deep; which one is a network is decided in `resnet`.

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read};

use tch::{Kind, Tensor};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Pickle, PickleValue, StridedView};
use super::{Group, TensorEntry};

/// The start of a file of PyTorch before 1.6: a pickled magic number. Before 0.1.10 the files were tar files,
/// with the magic of those at [`TAR_MAGIC_AT`].
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
const TAR_MAGIC: &[u8] = b"ustar";
const TAR_MAGIC_AT: usize = 257;

/// Bytes that [`is_pth`] looks at.
pub(super) const START_BYTES: u64 = 512;

/// Dictionaries deeper than this are not searched.
const MAX_DEPTH: usize = 16;

fn is_tar(bytes: &[u8]) -> bool {
    let tar = bytes.get(TAR_MAGIC_AT..).unwrap_or_default();
    tar.starts_with(TAR_MAGIC)
}

/// True if `bytes` start as a file of `torch.save`, of any version.
pub(super) fn is_pth(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(LEGACY_MAGIC) || is_tar(bytes)
}

/// A file of `torch.save`, whose tensors are read on demand.
pub(super) struct Pth<'a> {
    pickle: Pickle,
    files: Files<'a>,
    /// The storages read so far.
    storages: HashMap<String, Tensor>,
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
            (Pickle::parse(&files.read("data.pkl")?)?, files)
        };
        Ok(Self {
            pickle,
            files,
            storages: HashMap::new(),
        })
    }

    /// Every dictionary or module in the file that holds tensors under names.
    pub(super) fn groups(&self) -> Vec<Group> {
        let mut search = Search {
            pickle: &self.pickle,
            seen: HashSet::new(),
            found: Vec::new(),
        };
        search.value(self.pickle.root_index(), "", 0);
        search.found
    }

    /// What the file holds instead of a dictionary, for an error.
    pub(super) fn root_class(&self) -> Option<&str> {
        match self.pickle.root() {
            PickleValue::Opaque(class) | PickleValue::Object(class, _) => Some(class),
            _ => None,
        }
    }

    /// The tensor with index `at`, of a [`TensorEntry`] of this file.
    pub(super) fn tensor(&mut self, at: usize) -> Result<Tensor, String> {
        let PickleValue::Tensor(view) = self.pickle.at(at) else {
            return Err("which is not a tensor".into());
        };
        let storage = match self.storages.get(&view.key) {
            Some(storage) => storage,
            None => {
                let storage = self.files.storage(view)?;
                self.storages.entry(view.key.clone()).or_insert(storage)
            }
        };
        let inside = || {
            let mut last = view.offset;
            let sides = view.size.iter().zip(&view.stride);
            for (&size, &stride) in sides {
                last = last.checked_add(size.checked_sub(1)?.checked_mul(stride)?)?;
            }
            let plain = view.size.len() == view.stride.len()
                && view.size.iter().all(|&size| size > 0)
                && view.stride.iter().all(|&stride| stride >= 0);
            let elements = i64::try_from(storage.numel()).ok()?;
            (plain && view.offset >= 0 && last < elements).then_some(())
        };
        inside().ok_or("which reaches beyond its storage")?;
        storage
            .f_as_strided(&view.size, &view.stride, view.offset)
            .map_err(|error| error.to_string())
    }
}

/// A search for tensors in a pickle. It visits each value once, so neither cycles nor parts that are shared
/// many times make it long.
struct Search<'a> {
    pickle: &'a Pickle,
    seen: HashSet<usize>,
    found: Vec<Group>,
}

impl Search<'_> {
    /// Adds the groups in the value `at`, whose place in the file is `key`.
    fn value(&mut self, at: usize, key: &str, depth: usize) {
        if depth > MAX_DEPTH || !self.seen.insert(at) {
            return;
        }
        let pickle = self.pickle;
        let inside = |name: &str| match key {
            "" => name.to_owned(),
            _ => format!("{key}.{name}"),
        };
        match pickle.at(at) {
            PickleValue::Dict(entries) => {
                let mut own = Vec::new();
                for &(name, value) in entries {
                    let name = match pickle.at(name) {
                        PickleValue::Text(name) => name.clone(),
                        PickleValue::Int(number) => number.to_string(),
                        _ => continue,
                    };
                    match pickle.at(value) {
                        PickleValue::Tensor(view) => own.push(TensorEntry {
                            name,
                            shape: view.size.clone(),
                            at: value,
                        }),
                        _ => self.value(value, &inside(&name), depth + 1),
                    }
                }
                self.add(key, own);
            }
            PickleValue::List(items) => {
                for (index, &item) in items.iter().enumerate() {
                    self.value(item, &inside(&index.to_string()), depth + 1);
                }
            }
            PickleValue::Object(_, state) if self.attribute(*state, "_modules").is_some() => {
                let mut own = Vec::new();
                self.module(*state, "", depth, &mut own);
                self.add(key, own);
            }
            PickleValue::Object(_, state) => self.value(*state, key, depth + 1),
            _ => {}
        }
    }

    fn add(&mut self, key: &str, entries: Vec<TensorEntry>) {
        if !entries.is_empty() {
            let key = key.to_owned();
            self.found.push(Group { key, entries });
        }
    }

    /// Adds to `own` what `state_dict()` of a pickled module would have, from its attributes `state`.
    fn module(&mut self, state: usize, prefix: &str, depth: usize, own: &mut Vec<TensorEntry>) {
        let pickle = self.pickle;
        if depth > MAX_DEPTH || !self.seen.insert(state) {
            return;
        }
        for kind in ["_parameters", "_buffers", "_modules"] {
            for (name, at) in self.attribute(state, kind).unwrap_or_default() {
                let name = format!("{prefix}{name}");
                match pickle.at(at) {
                    PickleValue::Tensor(view) => own.push(TensorEntry {
                        name,
                        shape: view.size.clone(),
                        at,
                    }),
                    PickleValue::Object(_, inner) => {
                        self.module(*inner, &format!("{name}."), depth + 1, own);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The entries of the dictionary `name` among the attributes `state` of an object.
    fn attribute(&self, state: usize, name: &str) -> Option<Vec<(String, usize)>> {
        let text = |at: usize| match self.pickle.at(at) {
            PickleValue::Text(text) => Some(text.clone()),
            _ => None,
        };
        let PickleValue::Dict(attributes) = self.pickle.at(state) else {
            return None;
        };
        let (_, value) =
            (attributes.iter()).find(|(key, _)| text(*key).as_deref() == Some(name))?;
        match self.pickle.at(*value) {
            PickleValue::Dict(entries) => {
                let named = |&(key, value): &(usize, usize)| Some((text(key)?, value));
                Some(entries.iter().filter_map(named).collect())
            }
            _ => None,
        }
    }
}

/// The pickle and the storages of a file of PyTorch before 1.6, from the byte after the magic number: the
/// protocol's version, the system's properties, the value, the names of the storages, each a pickle; then
/// each storage, its length in elements before it.
fn legacy(bytes: &[u8]) -> Result<(Pickle, Files<'_>), String> {
    let (_, bytes) = Pickle::parse_first(bytes)?;
    let (_, bytes) = Pickle::parse_first(bytes)?;
    let (pickle, bytes) = Pickle::parse_first(bytes)?;
    let (keys, mut bytes) = Pickle::parse_first(bytes)?;
    // ("storage", class, key, device, elements, view).
    let mut sizes = HashMap::new();
    for value in pickle.values() {
        if let PickleValue::List(parts) = value
            && let [kind, class, key, ..] = parts[..]
            && let (PickleValue::Text(kind), PickleValue::Global(class), PickleValue::Text(key)) =
                (pickle.at(kind), pickle.at(class), pickle.at(key))
            && kind == "storage"
        {
            sizes.insert(key.clone(), element_size(class));
        }
    }
    let PickleValue::List(names) = keys.root() else {
        return Err("has no list of its storages: it is damaged".into());
    };
    let mut storages = HashMap::new();
    for &name in names {
        let PickleValue::Text(name) = keys.at(name) else {
            return Err("has a storage without a name: it is damaged".into());
        };
        let size = (sizes.get(name).copied().flatten())
            .ok_or_else(|| format!("has a storage {name} of an unknown type"))?;
        let cut = || "is damaged: it is cut short".to_owned();
        let (len, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
        let len = usize::try_from(i64::from_le_bytes(*len)).ok();
        let len = len.and_then(|len| len.checked_mul(size)).ok_or_else(cut)?;
        let (storage, rest) = rest.split_at_checked(len).ok_or_else(cut)?;
        storages.insert(name.clone(), storage);
        bytes = rest;
    }
    Ok((pickle, Files::Legacy(storages)))
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

    /// The whole storage of `view`, `[elements]`.
    fn storage(&mut self, view: &StridedView) -> Result<Tensor, String> {
        let kind = match view.class.strip_prefix("torch.") {
            Some("FloatStorage") => Kind::Float,
            Some("DoubleStorage") => Kind::Double,
            Some("HalfStorage") => Kind::Half,
            Some("BFloat16Storage") => Kind::BFloat16,
            Some("LongStorage") => Kind::Int64,
            Some("IntStorage") => Kind::Int,
            _ => return Err(format!("a {}, which no ResNet18 has", view.class)),
        };
        let read;
        let bytes = match self {
            Self::Legacy(storages) => *(storages.get(&view.key))
                .ok_or_else(|| format!("whose storage {} is missing: it is damaged", view.key))?,
            Self::Zip { .. } => {
                read = self.read(&format!("data/{}", view.key))?;
                &read
            }
        };
        let len = bytes.len() / kind.elt_size_in_bytes();
        let whole = &bytes[..len * kind.elt_size_in_bytes()];
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        Tensor::f_from_data_size(whole, &[len], kind).map_err(|error| error.to_string())
    }
}

fn damaged(error: &ZipError) -> String {
    format!("is damaged: {error}: copy or download it again")
}
