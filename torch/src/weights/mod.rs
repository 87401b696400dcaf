//! Weights as people save them. Reads the tensors of a ResNet18 from a safetensors file or a file of
//! `torch.save`: wherever they are in it, and under whatever prefix and way of naming.
//!
//! `resnet` finds the network among the tensors of a file, `architecture` recognises others. What is done with the tensors is decided in `train::init` and `infer`.

mod architecture;
mod resnet;

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};
use tinyres_format::Digest;

use crate::net::{BATCHES_TRACKED, BOX_HEAD};
use crate::run::checkpoint::{self, About};
use crate::tensor_file::{Dtype, Group, START_BYTES, TensorEntry, TensorFile, is_pth};
use crate::{Error, Result};

use resnet::{Candidate, Head};

/// Names of tensors that a notice lists.
const NAMES_SHOWN: usize = 4;

/// A ResNet18 read from a file.
#[derive(Debug)]
pub struct Weights {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// The tensors without the classifier, under torchvision's names: `f32`, or `i64` for counts.
    pub body: Vec<(String, Tensor)>,
    /// The classifier.
    pub classifier: Classifier,
    /// The tensors of tinyres's box head, if there are any.
    pub box_head: Vec<(String, Tensor)>,
    /// The description, if tinyres wrote the file.
    pub about: Option<About>,
    /// The text of the description that `tinyres export` writes.
    pub exported: Option<String>,
    /// Names of the tensors that belong to no part of the network, except single numbers.
    pub left_out: Vec<String>,
}

/// The classifier in a file.
#[derive(Debug)]
pub enum Classifier {
    /// There is none.
    None,
    /// One linear layer.
    Linear {
        /// Its name in the file, without the prefix of all names: `fc` in torchvision's networks.
        name: String,
        /// `f32 [classes, 512]`.
        weight: Tensor,
        /// `f32 [classes]`, zeros if the file has none.
        bias: Tensor,
    },
    /// Several layers, or one that does not take 512 features, by the names of their weights.
    Other(Vec<String>),
}

/// A file, and the place in it that `FILE#KEY` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Keys of dictionaries, then a prefix of names, with dots between; empty for any place.
    pub key: String,
}

/// True if `file` starts as a file of `torch.save`.
pub(crate) fn is_of_torch_save(file: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let opened = std::fs::File::open(file).map_err(Error::io(file))?;
    (opened.take(START_BYTES).read_to_end(&mut start)).map_err(Error::io(file))?;
    Ok(is_pth(&start))
}

impl Place {
    /// Reads `FILE` or `FILE#KEY`. A file with this very name comes first.
    #[must_use]
    pub fn parse(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        let hash = bytes.iter().rposition(|&byte| byte == b'#');
        if let Some(at) = hash.filter(|_| !path.exists())
            && let Ok(key) = std::str::from_utf8(&bytes[at + 1..])
        {
            return Self {
                file: OsStr::from_bytes(&bytes[..at]).into(),
                key: key.to_owned(),
            };
        }
        Self {
            file: path.to_path_buf(),
            key: String::new(),
        }
    }

    /// `FILE` or `FILE#KEY`.
    #[must_use]
    pub fn join(&self) -> PathBuf {
        let mut path = self.file.clone().into_os_string();
        if !self.key.is_empty() {
            path.push("#");
            path.push(&self.key);
        }
        path.into()
    }
}

/// Reads a tensor, as it is in the file.
fn tensor(file: &mut TensorFile<'_>, entry: &TensorEntry) -> std::result::Result<Tensor, String> {
    let data = file.tensor(entry)?;
    let kind = match data.dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        other => {
            let name = &entry.name;
            return Err(format!("holds {name} as {other:?}, which no ResNet18 has"));
        }
    };
    let stored = i64::try_from(data.bytes.len() / kind.elt_size_in_bytes()).unwrap_or(i64::MAX);
    let stored = Tensor::f_from_data_size(data.bytes, &[stored], kind);
    let view = stored.and_then(|stored| stored.f_as_strided(&data.shape, &data.stride, 0));
    view.map_err(|error| error.to_string())
}

/// Reads a tensor of a network: `i64` if it is a count, else `f32`, all of it finite.
fn read(file: &mut TensorFile<'_>, entry: &TensorEntry) -> std::result::Result<Tensor, String> {
    let text = |error: tch::TchError| error.to_string();
    let kind = match entry.name.ends_with(BATCHES_TRACKED) {
        true => Kind::Int64,
        false => Kind::Float,
    };
    let tensor = self::tensor(file, entry)?.f_to_kind(kind).map_err(text)?;
    let finite = tensor.f_isfinite().and_then(|finite| finite.f_all());
    if finite
        .and_then(|all| all.f_int64_value(&[]))
        .map_err(text)?
        == 0
    {
        let name = &entry.name;
        return Err(format!("has a {name} with values that are not finite"));
    }
    Ok(tensor)
}

impl Weights {
    /// Reads a ResNet18 from `place`, `FILE` or `FILE#KEY`. Nothing that a pickle names is imported or run.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Checkpoint`] if it is damaged, holds no ResNet18 or
    /// several, or has values that are not finite.
    pub fn read(place: &Path) -> Result<Self> {
        let Place { file, key } = Place::parse(place);
        let bytes = std::fs::read(&file).map_err(Error::io(&file))?;
        Self::parse(&file, &bytes, &key).map_err(|what| Error::Checkpoint { path: file, what })
    }

    fn parse(path: &Path, bytes: &[u8], key: &str) -> std::result::Result<Self, String> {
        checkpoint::check(bytes)?;
        let mut source = TensorFile::open(bytes)?;
        let groups = source.groups()?;
        let found = choose(&groups, key).map_err(|what| match groups.is_empty() {
            true => no_tensors(&source),
            false => what,
        })?;
        let mut left_out = found.rest.clone();
        let mut keep = |entry: &TensorEntry| left_out.retain(|other| *other != entry);
        let mut body = Vec::new();
        for (name, entry) in &found.body {
            body.push((name.clone(), read(&mut source, entry)?));
        }
        let classifier = match found.head() {
            Head::None => Classifier::None,
            Head::Several(names) => Classifier::Other(names),
            Head::Linear { weight, bias } => {
                keep(weight);
                let name = found.short(&weight.name);
                let name = name.trim_end_matches(".weight").to_owned();
                let weight = read(&mut source, weight)?;
                let bias = match bias {
                    Some(bias) => {
                        keep(bias);
                        read(&mut source, bias)?
                    }
                    None => Tensor::zeros([weight.size()[0]], (Kind::Float, tch::Device::Cpu)),
                };
                Classifier::Linear { name, weight, bias }
            }
        };
        let mut box_head = Vec::new();
        for entry in &found.rest {
            let name = found.short(&entry.name);
            if name.starts_with(BOX_HEAD) {
                keep(entry);
                box_head.push((name, read(&mut source, entry)?));
            }
        }
        let is_number = |entry: &TensorEntry| entry.shape.iter().all(|&side| side == 1);
        left_out.retain(|entry| !is_number(entry));
        let is_safetensors = source.is_safetensors();
        Ok(Self {
            path: path.to_path_buf(),
            digest: Digest::of(bytes),
            body,
            classifier,
            box_head,
            left_out: left_out.iter().map(|entry| entry.name.clone()).collect(),
            // The description of another version is of no use, but the tensors are.
            about: match is_safetensors {
                true => checkpoint::about(bytes).ok().flatten(),
                false => None,
            },
            exported: match is_safetensors {
                true => checkpoint::metadata(bytes, "model").ok().flatten(),
                false => None,
            },
        })
    }

    /// The sentence part that names what of the file is not used; `None` if all of it is.
    #[must_use]
    pub fn unused(&self) -> Option<String> {
        (!self.left_out.is_empty()).then(|| format!("not used: {}", few(&self.left_out)))
    }
}

/// The only ResNet18 in `groups` below `key`.
fn choose<'a>(groups: &'a [Group], key: &str) -> std::result::Result<Candidate<'a>, String> {
    let below = |place: &str| {
        key.is_empty()
            || (place.strip_prefix(key))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let all = resnet::candidates(groups);
    let named: Vec<_> = all.iter().map(|found| found.key.clone()).collect();
    let (mut fit, unfit): (Vec<_>, Vec<_>) = (all.into_iter())
        .filter(|found| below(&found.key))
        .partition(|found| found.unfit.is_none());
    // A place that is named exactly comes before those inside it.
    if !key.is_empty() && fit.iter().any(|found| found.key == key) {
        fit.retain(|found| found.key == key);
    }
    match (fit.len(), unfit.first()) {
        (1, _) => Ok(fit.remove(0)),
        (0, Some(found)) => Err(
            match (architecture::recognise(&found.group.entries), &found.unfit) {
                (Some(network), Some(unfit)) => {
                    format!(
                        "holds {network}, expected a ResNet18, the only network of tinyres: it {unfit}"
                    )
                }
                (_, Some(unfit)) => unfit.to_string(),
                (_, None) => unreachable!("these do not fit"),
            },
        ),
        (0, None) if !key.is_empty() && !named.is_empty() => Err(format!(
            "has no ResNet18 at {key}, but at {}",
            named.join(", ")
        )),
        (0, None) => Err(unlike(groups)),
        (count, _) => {
            let keys: Vec<_> = (fit.iter())
                .map(|found| match found.key.as_str() {
                    "" => "(no key)".to_owned(),
                    key => format!("#{key}"),
                })
                .collect();
            Err(format!(
                "holds {count} ResNet18s, {}: name one of them, as in FILE{}",
                keys.join(" and "),
                keys.last().map_or("", String::as_str)
            ))
        }
    }
}

/// The error for a file without anything like a ResNet18: what it seems to hold.
fn unlike(groups: &[Group]) -> String {
    let Some(largest) = groups.iter().max_by_key(|group| group.entries.len()) else {
        return "holds no tensors, expected a state dict".into();
    };
    if let Some(network) = architecture::recognise(&largest.entries) {
        return format!("holds {network}, expected a ResNet18, the only network of tinyres");
    }
    let names: Vec<_> = (largest.entries.iter())
        .map(|entry| entry.name.clone())
        .collect();
    format!(
        "has no conv1.weight: it is not of a ResNet18; it holds {}",
        few(&names)
    )
}

/// The error for a file of `torch.save` without tensors.
fn no_tensors(file: &TensorFile<'_>) -> String {
    match file.root_class() {
        Some(class) => format!(
            "holds a {class}, expected a state dict: save its state_dict(), torch.save(model.state_dict(), FILE)"
        ),
        None => "holds no tensors under names, expected a state dict".into(),
    }
}

/// The first few of `names`, and how many more there are.
fn few(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_SHOWN)].join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn tensors_of_every_dtype_and_stride_are_read() {
        // These are not names of a ResNet18: `Weights::read` refuses them.
        let bytes = include_bytes!("../../golden/tensors.pth");
        let mut source = TensorFile::open(bytes).unwrap();
        let values = Tensor::arange(6, (Kind::Double, Device::Cpu)) / 4.0;
        let matrix = values.view([2, 3]);
        let groups = source.groups().unwrap();
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].key, "state_dict");
        for entry in &groups[0].entries {
            let tensor = tensor(&mut source, entry).unwrap();
            let name = &entry.name;
            let expected = match name.as_str() {
                "long" => Tensor::arange(6, (Kind::Double, Device::Cpu)),
                "transposed" => matrix.transpose(0, 1),
                "offset" => matrix.get(1),
                _ => values.shallow_clone(),
            };
            assert_eq!(tensor.size(), expected.size(), "{name}");
            let off = (tensor.to_kind(Kind::Double) - expected).abs().max();
            assert_eq!(off.double_value(&[]), 0.0, "{name}");
        }
        assert_eq!(groups[0].entries.len(), 9);
    }

    #[test]
    fn legacy_file_is_read() {
        let bytes = include_bytes!("../../golden/legacy.pth");
        let mut source = TensorFile::open(bytes).unwrap();
        let groups = source.groups().unwrap();
        let [weight] = &groups[0].entries[..] else {
            panic!("{groups:?}")
        };
        let values = Vec::<f32>::try_from(tensor(&mut source, weight).unwrap()).unwrap();
        assert_eq!(values, [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]);
        for end in 0..bytes.len() {
            let mut source = match TensorFile::open(&bytes[..end]) {
                Ok(source) => source,
                Err(_) => continue,
            };
            for group in source.groups().unwrap_or_default() {
                for entry in &group.entries {
                    assert!(tensor(&mut source, entry).is_err(), "{end}");
                }
            }
        }
    }

    #[test]
    fn pickled_module_gives_its_state() {
        let bytes = include_bytes!("../../golden/module.pth");
        let mut source = TensorFile::open(bytes).unwrap();
        let groups = source.groups().unwrap();
        let names: Vec<_> = groups[0]
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(names, ["weight", "bias"]);
        let weight = tensor(&mut source, &groups[0].entries[0]).unwrap();
        assert_eq!(weight.size(), [1, 1]);
    }
}
