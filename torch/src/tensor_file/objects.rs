//! The meaning of pickled calls in files of `torch.save`: dictionaries, tensors as views of storages, and objects with
//! attributes. Nothing is called.
//!
//! Source: `torch/_utils.py` for the functions that rebuild tensors, `torch/serialization.py` for storages.

use tinyres::pickle::{Call, Pickle, Value};

/// Calls inside calls that are followed.
const MAX_DEPTH: usize = 16;

/// What a value stands for.
#[derive(Debug)]
pub(super) enum Object {
    Tensor(StridedView),
    Dict(Vec<(usize, usize)>),
    List(Vec<usize>),
    /// An object of the class with this name, and its attributes if it has any.
    Instance(String, Option<usize>),
    /// Anything else.
    Other,
}

/// A tensor as a strided view of a storage. Lengths are in elements. Nothing is checked yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StridedView {
    /// The storage's class, such as `torch.HalfStorage`.
    pub class: String,
    /// The storage's name in the archive.
    pub key: String,
    /// Index of the first element in the storage.
    pub offset: i64,
    pub size: Vec<i64>,
    pub stride: Vec<i64>,
}

/// A storage as a pickle describes it.
#[derive(Debug, PartialEq)]
pub(super) struct Storage<'a> {
    pub class: String,
    pub key: &'a str,
    /// Index of its first element in the stored one, of which old versions can keep a part.
    offset: i64,
}

const UNKNOWN: &str = "its pickle has a tensor in an unknown form";

/// What the value `at` of `pickle` stands for.
pub(super) fn object(pickle: &Pickle, at: usize) -> Result<Object, String> {
    follow(pickle, at, 0)
}

fn follow(pickle: &Pickle, at: usize, depth: usize) -> Result<Object, String> {
    if depth > MAX_DEPTH {
        return Err(UNKNOWN.into());
    }
    match pickle.at(at) {
        Value::Dict(entries) => Ok(Object::Dict(entries.clone())),
        Value::List(items) => Ok(Object::List(items.clone())),
        Value::Call(call) => called(pickle, call, depth),
        _ => Ok(Object::Other),
    }
}

fn called(pickle: &Pickle, call: &Call, depth: usize) -> Result<Object, String> {
    let Some(name) = callable(pickle, call.callable) else {
        return Ok(Object::Other);
    };
    let arguments = pickle.list(call.arguments).unwrap_or_default();
    match (name.as_str(), arguments) {
        ("collections.OrderedDict" | "builtins.dict" | "__builtin__.dict", []) => {
            Ok(Object::Dict(call.entries.clone()))
        }
        // Python 2 pickles the entries as a list of pairs.
        ("collections.OrderedDict", [items, ..]) => {
            let mut entries =
                pairs(pickle, *items).ok_or("its pickle has a dictionary in an unknown form")?;
            entries.extend(&call.entries);
            Ok(Object::Dict(entries))
        }
        ("collections.defaultdict", _) => Ok(Object::Dict(call.entries.clone())),
        (
            "torch._utils._rebuild_parameter"
            | "torch._utils._rebuild_parameter_with_state"
            | "torch.nn.parameter.Parameter"
            | "torch.autograd.variable.Variable",
            [data, ..],
        ) => follow(pickle, *data, depth + 1),
        // A tensor with attributes, or of a class of its own: the function and its arguments.
        ("torch._tensor._rebuild_from_type_v2", [function, _, arguments, ..]) => {
            let inner = Call {
                callable: *function,
                arguments: *arguments,
                state: None,
                entries: Vec::new(),
            };
            match depth < MAX_DEPTH {
                true => called(pickle, &inner, depth + 1),
                false => Err(UNKNOWN.into()),
            }
        }
        (
            "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
            [storage, offset, size, stride, ..],
        ) => {
            let view = view(pickle, *storage, *offset, *size, *stride);
            Ok(Object::Tensor(view.ok_or(UNKNOWN)?))
        }
        _ => Ok(Object::Instance(name, call.state)),
    }
}

/// The name of what is called. PyTorch before 1.6 pickles the class of a module with its source: an identification
/// ("module", class, file, source).
fn callable(pickle: &Pickle, at: usize) -> Option<String> {
    match pickle.at(at) {
        Value::Persistent(parts) => pickle.global(*pickle.list(*parts)?.get(1)?),
        _ => pickle.global(at),
    }
}

/// The storage that is described at `at`: ("storage", class, key, device, elements), in old versions with the part of
/// it that is meant: (key, offset, elements).
pub(super) fn storage(pickle: &Pickle, at: usize) -> Option<Storage<'_>> {
    let parts = pickle.list(at)?;
    let [kind, class, key, ..] = *parts else {
        return None;
    };
    let part = parts.get(5).and_then(|&part| pickle.list(part));
    Some(Storage {
        class: (pickle.text(kind)? == "storage").then(|| pickle.global(class))??,
        key: pickle.text(key)?,
        offset: match part {
            Some(&[_, offset, ..]) => pickle.int(offset)?,
            _ => 0,
        },
    })
}

/// The view that the arguments of `_rebuild_tensor_v2` describe.
fn view(
    pickle: &Pickle,
    at: usize,
    offset: usize,
    size: usize,
    stride: usize,
) -> Option<StridedView> {
    let Value::Persistent(described) = pickle.at(at) else {
        return None;
    };
    let storage = storage(pickle, *described)?;
    let ints = |at: usize| -> Option<Vec<i64>> {
        pickle
            .list(at)?
            .iter()
            .map(|&item| pickle.int(item))
            .collect()
    };
    Some(StridedView {
        offset: pickle.int(offset)?.checked_add(storage.offset)?,
        class: storage.class,
        key: storage.key.to_owned(),
        size: ints(size)?,
        stride: ints(stride)?,
    })
}

/// The entries of a dictionary that is pickled as a list of pairs.
fn pairs(pickle: &Pickle, items: usize) -> Option<Vec<(usize, usize)>> {
    let pair = |&item: &usize| match pickle.list(item)? {
        [key, value, ..] => Some((*key, *value)),
        _ => None,
    };
    pickle.list(items)?.iter().map(pair).collect()
}
