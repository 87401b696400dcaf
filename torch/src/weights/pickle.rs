//! Reads the part of Python's pickle format that `torch.save` uses for a state dict. Nothing is imported or
//! called: a class is only a name. Dictionaries and tensors are rebuilt here, and every other object is
//! [opaque](PickleValue::Opaque), or its class's name and its [attributes](PickleValue::Object).
//!
//! Sources: CPython's `Lib/pickletools.py` for the opcodes, `torch/_utils.py` for the functions that rebuild
//! tensors.

use std::collections::HashMap;

/// A pickled value. Its parts are indices into the [`Pickle`], since values may be shared.
#[derive(Debug)]
pub(super) enum PickleValue {
    Int(i64),
    Text(String),
    /// A list or a tuple.
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    /// `module.name` of a class or a function.
    Global(String),
    Tensor(StridedView),
    /// A value that is not needed here, with the name of its class or plain type.
    Opaque(String),
    /// An object of the class with this name, and its attributes: often a dictionary.
    Object(String, usize),
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

/// A parsed pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<PickleValue>,
    root: usize,
}

impl Pickle {
    /// Reads a pickle of protocol 2 to 5, to its end.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        Ok(Self::parse_first(bytes)?.0)
    }

    /// Reads the pickle that `bytes` start with. Also returns the bytes after it.
    pub(super) fn parse_first(bytes: &[u8]) -> Result<(Self, &[u8]), String> {
        let mut machine = Machine {
            bytes,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            pairs_left: bytes.len(),
        };
        let root = machine.run()?;
        let pickle = Self {
            values: machine.values,
            root,
        };
        Ok((pickle, machine.bytes))
    }

    /// The value that was pickled.
    pub(super) fn root(&self) -> &PickleValue {
        self.at(self.root)
    }

    /// The index of that value.
    pub(super) fn root_index(&self) -> usize {
        self.root
    }

    /// All values, in the order in which they were made.
    pub(super) fn values(&self) -> &[PickleValue] {
        &self.values
    }

    /// A part of a value of this pickle.
    pub(super) fn at(&self, part: usize) -> &PickleValue {
        &self.values[part]
    }
}

/// The stack machine that runs the opcodes. Each opcode adds at most one value, so the input's length bounds
/// the memory.
struct Machine<'a> {
    bytes: &'a [u8],
    values: Vec<PickleValue>,
    stack: Vec<usize>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, usize>,
    /// How many more pairs may be copied from lists to dictionaries.
    pairs_left: usize,
}

const CUT: &str = "its pickle ends too early";
const UNBALANCED: &str = "its pickle takes more from the stack than is there";

impl Machine<'_> {
    fn run(&mut self) -> Result<usize, String> {
        loop {
            match self.byte()? {
                // PROTO, and a FRAME of later protocols.
                0x80 => match self.byte()? {
                    2..=5 => {}
                    other => return Err(format!("is of pickle protocol {other}, expected 2 to 5")),
                },
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(PickleValue::Opaque("None".into())),
                0x88 | 0x89 => self.push(PickleValue::Opaque("bool".into())),
                b'G' => {
                    self.take(8)?;
                    self.push(PickleValue::Opaque("float".into()));
                }
                b'K' => {
                    let value = self.byte()?;
                    self.push(PickleValue::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(PickleValue::Int(value.into()));
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(PickleValue::Int(value.into()));
                }
                0x8a => self.long()?,
                b'X' => {
                    let len = u32::from_le_bytes(self.array()?);
                    let text = self.text(len as usize)?;
                    self.push(PickleValue::Text(text));
                }
                0x8c => {
                    let len = self.byte()?.into();
                    let text = self.text(len)?;
                    self.push(PickleValue::Text(text));
                }
                // Byte strings: text in Python 2, where keys and the names of storages are such strings.
                b'U' | b'C' => {
                    let len = self.byte()?.into();
                    self.byte_string(len)?;
                }
                b'T' | b'B' => {
                    let len = u32::from_le_bytes(self.array()?);
                    self.byte_string(len as usize)?;
                }
                0x8e => {
                    let len = u64::from_le_bytes(self.array()?);
                    self.byte_string(usize::try_from(len).map_err(|_| CUT)?)?;
                }
                // POP, POP_MARK, DUP.
                b'0' => drop(self.pop()?),
                b'1' => drop(self.since_mark()?),
                b'2' => {
                    let &at = self.stack.last().ok_or(UNBALANCED)?;
                    self.stack.push(at);
                }
                0x8f => self.push(PickleValue::Opaque("set".into())),
                // ADDITEMS to a set, FROZENSET.
                0x90 => drop(self.since_mark()?),
                0x91 => {
                    self.since_mark()?;
                    self.push(PickleValue::Opaque("frozenset".into()));
                }
                b'}' => self.push(PickleValue::Dict(Vec::new())),
                b']' | b')' => self.push(PickleValue::List(Vec::new())),
                b't' => {
                    let items = self.since_mark()?;
                    self.push(PickleValue::List(items));
                }
                count @ 0x85..=0x87 => {
                    let items = self.pop_many(usize::from(count - 0x84))?;
                    self.push(PickleValue::List(items));
                }
                b'a' => {
                    let items = self.pop_many(1)?;
                    self.append(&items)?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let items = self.pop_many(2)?;
                    self.set(&items)?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set(&items)?;
                }
                b'q' => {
                    let key = self.byte()?.into();
                    self.keep(key)?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.keep(key)?;
                }
                b'h' => {
                    let key = self.byte()?.into();
                    self.recall(key)?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.recall(key)?;
                }
                0x94 => {
                    let key = u32::try_from(self.memo.len()).map_err(|_| UNBALANCED)?;
                    self.keep(key)?;
                }
                0x93 => {
                    let parts = self.pop_many(2)?;
                    let [PickleValue::Text(module), PickleValue::Text(name)] =
                        [&self.values[parts[0]], &self.values[parts[1]]]
                    else {
                        return Err("its pickle names a class by a value that is not text".into());
                    };
                    let name = format!("{module}.{name}");
                    self.push(PickleValue::Global(name));
                }
                b'c' => {
                    let name = format!("{}.{}", self.line()?, self.line()?);
                    self.push(PickleValue::Global(name));
                }
                b'Q' => {
                    // BINPERSID: a storage. Its description stays on the stack in its place.
                }
                // REDUCE and NEWOBJ: a callable and its arguments.
                b'R' | 0x81 => {
                    let parts = self.pop_many(2)?;
                    let made = self.make(parts[0], parts[1])?;
                    self.stack.push(made);
                }
                // NEWOBJ_EX: also has arguments by name.
                0x92 => {
                    let parts = self.pop_many(3)?;
                    let made = self.make(parts[0], parts[1])?;
                    self.stack.push(made);
                }
                // BUILD: attributes, such as those of a module, or a state dict's `_metadata`.
                b'b' => {
                    let state = self.pop()?;
                    let value = self.top()?;
                    if let PickleValue::Opaque(class) = value {
                        *value = PickleValue::Object(std::mem::take(class), state);
                    }
                }
                other => {
                    return Err(format!(
                        "its pickle has opcode 0x{other:02x}, which no state dict has"
                    ));
                }
            }
        }
    }

    /// The result of calling the global `callable` with the list `args`.
    fn make(&mut self, callable: usize, args: usize) -> Result<usize, String> {
        let name = match &self.values[callable] {
            PickleValue::Global(name) => name,
            // PyTorch before 1.6 pickles the class of a module with its source: ("module", class, ...).
            PickleValue::List(parts) => match parts.get(1).map(|&part| &self.values[part]) {
                Some(PickleValue::Global(name)) => name,
                _ => return Err("its pickle calls a value that is not a function".into()),
            },
            _ => return Err("its pickle calls a value that is not a function".into()),
        };
        let name = name.clone();
        let PickleValue::List(args) = &self.values[args] else {
            return Err(format!("its pickle calls {name} without arguments"));
        };
        let value = match (name.as_str(), &args[..]) {
            ("collections.OrderedDict" | "builtins.dict" | "__builtin__.dict", []) => {
                PickleValue::Dict(Vec::new())
            }
            // Python 2 pickles the entries as a list of pairs.
            ("collections.OrderedDict", [items]) => PickleValue::Dict(
                self.pairs(*items)
                    .ok_or("its pickle has a dictionary in an unknown form")?,
            ),
            ("collections.defaultdict", _) => PickleValue::Dict(Vec::new()),
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                [data, ..],
            ) => return Ok(*data),
            // A tensor with attributes, or of a class of its own: the function and its arguments.
            ("torch._tensor._rebuild_from_type_v2", [function, _, arguments, ..]) => {
                let (function, arguments) = (*function, *arguments);
                return match &self.values[function] {
                    PickleValue::Global(inner) if *inner != name => self.make(function, arguments),
                    _ => Err("its pickle has a tensor in an unknown form".into()),
                };
            }
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                [storage, offset, size, stride, ..],
            ) => {
                let view = self.view(*storage, *offset, *size, *stride);
                PickleValue::Tensor(view.ok_or("its pickle has a tensor in an unknown form")?)
            }
            _ => PickleValue::Opaque(name),
        };
        self.push(value);
        self.pop()
    }

    /// The view that the arguments of `_rebuild_tensor_v2` describe.
    fn view(
        &self,
        storage: usize,
        offset: usize,
        size: usize,
        stride: usize,
    ) -> Option<StridedView> {
        let PickleValue::List(storage) = &self.values[storage] else {
            return None;
        };
        // ("storage", class, key, device, elements).
        let [_, class, key, ..] = storage[..] else {
            return None;
        };
        let (PickleValue::Global(class), PickleValue::Text(key)) =
            (&self.values[class], &self.values[key])
        else {
            return None;
        };
        Some(StridedView {
            class: class.clone(),
            key: key.clone(),
            offset: self.int(offset)?,
            size: self.ints(size)?,
            stride: self.ints(stride)?,
        })
    }

    /// The entries of a dictionary that is pickled as a list of pairs.
    fn pairs(&mut self, items: usize) -> Option<Vec<(usize, usize)>> {
        let PickleValue::List(items) = &self.values[items] else {
            return None;
        };
        self.pairs_left = self.pairs_left.checked_sub(items.len())?;
        let pair = |&item: &usize| match &self.values[item] {
            PickleValue::List(pair) => Some((*pair.first()?, *pair.get(1)?)),
            _ => None,
        };
        items.iter().map(pair).collect()
    }

    fn int(&self, at: usize) -> Option<i64> {
        match self.values[at] {
            PickleValue::Int(value) => Some(value),
            _ => None,
        }
    }

    fn ints(&self, at: usize) -> Option<Vec<i64>> {
        match &self.values[at] {
            PickleValue::List(items) => items.iter().map(|&item| self.int(item)).collect(),
            _ => None,
        }
    }

    fn push(&mut self, value: PickleValue) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<usize, String> {
        self.stack.pop().ok_or_else(|| UNBALANCED.into())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<usize>, String> {
        let from = self.stack.len().checked_sub(count).ok_or(UNBALANCED)?;
        Ok(self.stack.split_off(from))
    }

    fn since_mark(&mut self) -> Result<Vec<usize>, String> {
        let from = self.marks.pop().ok_or(UNBALANCED)?;
        if from > self.stack.len() {
            return Err(UNBALANCED.into());
        }
        Ok(self.stack.split_off(from))
    }

    /// The value on top of the stack.
    fn top(&mut self) -> Result<&mut PickleValue, String> {
        let &at = self.stack.last().ok_or(UNBALANCED)?;
        Ok(&mut self.values[at])
    }

    fn append(&mut self, items: &[usize]) -> Result<(), String> {
        match self.top()? {
            PickleValue::List(list) => list.extend(items),
            PickleValue::Opaque(_) | PickleValue::Object(..) => {}
            _ => return Err("its pickle appends to a value that is not a list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[usize]) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            PickleValue::Dict(dict) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            PickleValue::Opaque(_) | PickleValue::Object(..) => {}
            _ => return Err("its pickle sets entries of a value that is not a dictionary".into()),
        }
        Ok(())
    }

    fn keep(&mut self, key: u32) -> Result<(), String> {
        let &at = self.stack.last().ok_or(UNBALANCED)?;
        self.memo.insert(key, at);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let &at = self.memo.get(&key).ok_or(UNBALANCED)?;
        self.stack.push(at);
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&[u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(CUT)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(CUT)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    fn text(&mut self, len: usize) -> Result<String, String> {
        let text = self.take(len)?.to_vec();
        String::from_utf8(text).map_err(|_| "its pickle has text that is not UTF-8".into())
    }

    /// Pushes a string of bytes: text where it is UTF-8.
    fn byte_string(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.take(len)?.to_vec();
        let value = String::from_utf8(bytes)
            .map_or_else(|_| PickleValue::Opaque("bytes".into()), PickleValue::Text);
        self.push(value);
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n');
        let line = self.text(end.ok_or(CUT)?)?;
        self.byte()?;
        Ok(line)
    }

    /// Reads an integer of any length. One longer than eight bytes, which no state dict has, is opaque.
    fn long(&mut self) -> Result<(), String> {
        let len = self.byte()?.into();
        let bytes = self.take(len)?;
        let fill = match bytes.last() {
            Some(0x80..) => 0xff,
            _ => 0,
        };
        let mut whole = [fill; 8];
        let value = match whole.get_mut(..len) {
            Some(part) => {
                part.copy_from_slice(bytes);
                PickleValue::Int(i64::from_le_bytes(whole))
            }
            None => PickleValue::Opaque("int".into()),
        };
        self.push(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_fail_and_changed_bytes_do_not_panic() {
        // `pickle.dumps(OrderedDict(a=(1, -2, 2**40), b=[None, 1.5, True]), 2)`.
        let whole = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02K\x01J\xfe\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01\x87q\x03X\x01\x00\x00\x00bq\x04]q\x05(NG?\xf8\x00\x00\x00\x00\x00\x00\x88eu.";
        let pickle = Pickle::parse(whole).unwrap();
        let PickleValue::Dict(entries) = pickle.root() else {
            panic!("{pickle:?}")
        };
        let PickleValue::List(items) = pickle.at(entries[0].1) else {
            panic!("{pickle:?}")
        };
        let ints = items.iter().map(|&item| match pickle.at(item) {
            PickleValue::Int(value) => *value,
            other => panic!("{other:?}"),
        });
        assert_eq!(ints.collect::<Vec<_>>(), [1, -2, 1 << 40]);
        assert!(matches!(pickle.at(entries[1].1), PickleValue::List(items) if items.len() == 3));
        for end in 0..whole.len() {
            assert!(Pickle::parse(&whole[..end]).is_err(), "{end}");
        }
        for at in 0..whole.len() {
            let mut other = whole.to_vec();
            for byte in 0..=u8::MAX {
                other[at] = byte;
                drop(Pickle::parse(&other));
            }
        }
    }

    #[test]
    fn functions_are_named_and_not_called() {
        let pickle = Pickle::parse(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
        assert!(matches!(pickle.root(), PickleValue::Opaque(name) if name == "os.system"));
    }
}
