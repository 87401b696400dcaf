//! Reads state dicts of `torch.save`: a zip with a pickle that describes tensors, and a file for each storage
//! that the tensors are views of.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use tch::{Kind, Tensor};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Pickle, PickleValue, StridedView};

/// Usual names of the state dict in a checkpoint that holds more.
const NESTED: [&str; 2] = ["state_dict", "model"];

/// The start of a file of PyTorch before 1.6: a pickled magic number. Before 0.1.10 the files were tar files,
/// with the magic of those at [`TAR_MAGIC_AT`].
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
const TAR_MAGIC: &[u8] = b"ustar";
const TAR_MAGIC_AT: usize = 257;

fn is_legacy(bytes: &[u8]) -> bool {
    let tar = bytes.get(TAR_MAGIC_AT..).unwrap_or_default();
    bytes.starts_with(LEGACY_MAGIC) || tar.starts_with(TAR_MAGIC)
}

/// True if `bytes` start as a file of `torch.save`, of any version.
pub(super) fn is_pth(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || is_legacy(bytes)
}

/// The tensors of the state dict in `bytes`, which may be a part of a checkpoint.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    if is_legacy(bytes) {
        return Err(
            "is in the format of torch.save before PyTorch 1.6: save it again, in Python, with \
             torch.save(torch.load(FILE, map_location=\"cpu\"), FILE)"
                .into(),
        );
    }
    let mut archive = Archive::open(bytes)?;
    let pickle = Pickle::parse(&archive.file("data.pkl")?)?;
    let mut state = dictionary(pickle.root()).ok_or_else(|| not_a_state_dict(pickle.root()))?;
    let entry = |name: &str| {
        let is =
            |&&(key, _): &&_| matches!(pickle.at(key), PickleValue::Text(text) if text == name);
        state.iter().find(is).map(|&(_, value)| pickle.at(value))
    };
    if let Some(inner) = NESTED.iter().find_map(|name| entry(name)) {
        state = dictionary(inner).ok_or_else(|| not_a_state_dict(inner))?;
    }
    let mut found = Vec::new();
    for &(key, value) in state {
        if let (PickleValue::Text(name), PickleValue::Tensor(view)) =
            (pickle.at(key), pickle.at(value))
        {
            let tensor = (archive.tensor(view)).map_err(|what| format!("has {name}, {what}"))?;
            found.push((name.clone(), tensor));
        }
    }
    if found.is_empty() {
        return Err("holds a dictionary without tensors, expected a state dict".into());
    }
    Ok(found)
}

fn dictionary(value: &PickleValue) -> Option<&[(usize, usize)]> {
    match value {
        PickleValue::Dict(entries) => Some(entries),
        _ => None,
    }
}

fn not_a_state_dict(value: &PickleValue) -> String {
    match value {
        PickleValue::Opaque(name) => format!(
            "holds a {name}, expected a state dict: save its state_dict(), torch.save(model.state_dict(), FILE)"
        ),
        _ => "does not hold a dictionary, expected a state dict".into(),
    }
}

/// The zip, with a cache of the storages read so far.
struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// The directory that all files of the zip are in.
    directory: String,
    storages: HashMap<String, Tensor>,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
        let names = zip.file_names().filter_map(Result::ok);
        let directory = names
            .filter_map(|name| Some(name.strip_suffix("/data.pkl")?.to_owned()))
            .next()
            .ok_or("is a zip without a data.pkl: it was not written by torch.save")?;
        let mut archive = Self {
            zip,
            directory,
            storages: HashMap::new(),
        };
        match archive.file("byteorder").as_deref() {
            Ok(b"big") => Err("holds big-endian tensors, expected little-endian".into()),
            // Files of PyTorch before 2.1 do not have this entry, and are little-endian.
            _ => Ok(archive),
        }
    }

    /// Reads a file of the archive. `torch.save` does not compress, so a file is not larger than the archive.
    fn file(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let name = format!("{}/{name}", self.directory);
        let mut file = self.zip.by_name(&name).map_err(|error| damaged(&error))?;
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

    fn tensor(&mut self, view: &StridedView) -> Result<Tensor, String> {
        let storage = match self.storages.get(&view.key) {
            Some(storage) => storage,
            None => {
                let storage = self.storage(view)?;
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

    /// A whole storage, `[elements]`.
    fn storage(&mut self, view: &StridedView) -> Result<Tensor, String> {
        let kind = match view.class.strip_prefix("torch.") {
            Some("FloatStorage") => Kind::Float,
            Some("DoubleStorage") => Kind::Double,
            Some("HalfStorage") => Kind::Half,
            Some("BFloat16Storage") => Kind::BFloat16,
            Some("LongStorage") => Kind::Int64,
            _ => return Err(format!("a {}, which no ResNet18 has", view.class)),
        };
        let bytes = self.file(&format!("data/{}", view.key))?;
        let len = bytes.len() / kind.elt_size_in_bytes();
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        let whole = &bytes[..bytes.len() / kind.elt_size_in_bytes() * kind.elt_size_in_bytes()];
        Tensor::f_from_data_size(whole, &[len], kind).map_err(|error| error.to_string())
    }
}

fn damaged(error: &ZipError) -> String {
    format!("is damaged: {error}: copy or download it again")
}
