//! Reads Python pickles of lists, dictionaries, text, numbers and NumPy arrays as data. Nothing is imported
//! or called: a class or function is only a name. Long byte strings stay in the file; only their place is
//! kept.
//!
//! Source: CPython's `Lib/pickletools.py`, protocols 2 to 5.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Maximum number of values in a pickle, so that a forged one cannot fill the memory.
const MAX_VALUES: usize = 1 << 22;
/// Longest text or byte string that is kept in memory.
const MAX_SHORT: u64 = 1 << 12;

/// A value. Parts are indices into the [`Pickle`], since values may be shared.
#[derive(Debug)]
pub(super) enum Value {
    Int(i64),
    /// Text or bytes: its place in the file, and its content if it is short.
    Bytes {
        place: Range<u64>,
        short: Vec<u8>,
    },
    /// A list or a tuple.
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    /// `module.name` of a class or a function.
    Global(String),
    /// A class or function with its arguments, and the state that was set afterwards.
    Call {
        name: String,
        arguments: usize,
        state: Option<usize>,
    },
    Other,
}

/// A `u8 [rows, columns]` array, or the place of its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Array {
    pub rows: u64,
    pub columns: u64,
    pub place: Range<u64>,
}

/// A parsed pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: usize,
}

impl Pickle {
    /// Reads the pickle in `range` of `file`.
    pub fn read(file: &File, range: Range<u64>) -> Result<Self, String> {
        let mut machine = Machine {
            reader: At::reader(file, range.start),
            file,
            at: range.start,
            end: range.end,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let root = machine.run()?;
        Ok(Self {
            values: machine.values,
            root,
        })
    }

    /// The value of `key` of the dictionary that was pickled.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Dict(entries) = &self.values[self.root] else {
            return None;
        };
        let entry = entries.iter().find(|(name, _)| {
            matches!(&self.values[*name], Value::Bytes { short, .. } if short == key.as_bytes())
        });
        entry.map(|&(_, value)| &self.values[value])
    }

    /// The list of integers at `key`.
    pub fn integers(&self, key: &str) -> Option<Vec<i64>> {
        self.list(key, |value| match value {
            Value::Int(value) => Some(*value),
            _ => None,
        })
    }

    /// The list of texts at `key`.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        self.list(key, |value| match value {
            Value::Bytes { short, .. } => String::from_utf8(short.clone()).ok(),
            _ => None,
        })
    }

    fn list<T>(&self, key: &str, item: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        match self.get(key)? {
            Value::List(items) => items.iter().map(|&at| item(&self.values[at])).collect(),
            _ => None,
        }
    }

    /// The array of bytes at `key`.
    pub fn array(&self, key: &str) -> Option<Array> {
        let Value::Call {
            name,
            arguments,
            state,
        } = self.get(key)?
        else {
            return None;
        };
        let parts = |at: usize| match &self.values[at] {
            Value::List(parts) => Some(parts.as_slice()),
            _ => None,
        };
        let (shape, dtype, bytes, is_c) = match name.as_str() {
            "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" => {
                // (version, shape, dtype, is_fortran, bytes)
                let &[_, shape, dtype, fortran, bytes] = parts((*state)?)? else {
                    return None;
                };
                (
                    shape,
                    dtype,
                    bytes,
                    matches!(self.values[fortran], Value::Int(0)),
                )
            }
            "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer" => {
                let &[bytes, dtype, shape, order] = parts(*arguments)? else {
                    return None;
                };
                let is_c =
                    matches!(&self.values[order], Value::Bytes { short, .. } if short == b"C");
                (shape, dtype, bytes, is_c)
            }
            _ => return None,
        };
        let Value::Call {
            name, arguments, ..
        } = &self.values[dtype]
        else {
            return None;
        };
        let is_u8 = parts(*arguments)?.first().is_some_and(
            |&kind| matches!(&self.values[kind], Value::Bytes { short, .. } if short == b"u1"),
        );
        let &[rows, columns] = parts(shape)? else {
            return None;
        };
        let size = |at: usize| match self.values[at] {
            Value::Int(size) => u64::try_from(size).ok(),
            _ => None,
        };
        let (rows, columns) = (size(rows)?, size(columns)?);
        let Value::Bytes { place, .. } = &self.values[bytes] else {
            return None;
        };
        let place = place.clone();
        let fits = rows.checked_mul(columns) == Some(place.end - place.start);
        (name == "numpy.dtype" && is_u8 && is_c && fits).then_some(Array {
            rows,
            columns,
            place,
        })
    }
}

/// The bytes of a file from an offset on.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> At<'a> {
    fn reader(file: &'a File, at: u64) -> BufReader<Self> {
        BufReader::new(Self { file, at })
    }
}

impl Read for At<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The stack machine that runs the opcodes. Each adds at most one value.
struct Machine<'a> {
    reader: BufReader<At<'a>>,
    file: &'a File,
    at: u64,
    end: u64,
    values: Vec<Value>,
    stack: Vec<usize>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, usize>,
}

const CUT: &str = "its pickle ends too early";
const UNBALANCED: &str = "its pickle takes more from the stack than is there";

impl Machine<'_> {
    fn run(&mut self) -> Result<usize, String> {
        loop {
            match self.byte()? {
                0x80 => match self.byte()? {
                    2..=5 => {}
                    other => return Err(format!("is of pickle protocol {other}, expected 2 to 5")),
                },
                0x95 => drop(self.array::<8>()?),
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Value::Other)?,
                0x88 => self.push(Value::Int(1))?,
                0x89 => self.push(Value::Int(0))?,
                b'G' => {
                    self.array::<8>()?;
                    self.push(Value::Other)?;
                }
                b'K' => {
                    let [value] = self.array()?;
                    self.push(Value::Int(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                0x8a => self.long()?,
                // Text, bytes and Python 2's strings, by the width of their length.
                b'U' | b'C' | 0x8c => {
                    let len = self.byte()?.into();
                    self.bytes(len)?;
                }
                b'T' | b'B' | b'X' => {
                    let len = u32::from_le_bytes(self.array()?).into();
                    self.bytes(len)?;
                }
                0x8d | 0x8e | 0x96 => {
                    let len = u64::from_le_bytes(self.array()?);
                    self.bytes(len)?;
                }
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b']' | b')' => self.push(Value::List(Vec::new()))?,
                b't' | b'l' => {
                    let items = self.since_mark()?;
                    self.push(Value::List(items))?;
                }
                count @ 0x85..=0x87 => {
                    let items = self.pop_many(usize::from(count - 0x84))?;
                    self.push(Value::List(items))?;
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
                0x94 => {
                    let key = u32::try_from(self.memo.len()).map_err(|_| UNBALANCED)?;
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
                b'c' => {
                    let name = format!("{}.{}", self.line()?, self.line()?);
                    self.push(Value::Global(name))?;
                }
                0x93 => {
                    let parts = self.pop_many(2)?;
                    let text = |at: usize| match &self.values[at] {
                        Value::Bytes { short, .. } => String::from_utf8_lossy(short).into_owned(),
                        _ => String::new(),
                    };
                    let name = format!("{}.{}", text(parts[0]), text(parts[1]));
                    self.push(Value::Global(name))?;
                }
                // REDUCE and NEWOBJ: a callable and its arguments.
                b'R' | 0x81 => {
                    let parts = self.pop_many(2)?;
                    let Value::Global(name) = &self.values[parts[0]] else {
                        return Err("its pickle calls a value that is not a function".into());
                    };
                    let (name, arguments) = (name.clone(), parts[1]);
                    self.push(Value::Call {
                        name,
                        arguments,
                        state: None,
                    })?;
                }
                b'b' => {
                    let built = self.pop()?;
                    if let Value::Call { state, .. } = self.top()? {
                        *state = Some(built);
                    }
                }
                other => {
                    return Err(format!(
                        "its pickle has opcode 0x{other:02x}, which no batch of images has"
                    ));
                }
            }
        }
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.values.len() == MAX_VALUES {
            return Err(format!("its pickle has more than {MAX_VALUES} values"));
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
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

    fn top(&mut self) -> Result<&mut Value, String> {
        let &at = self.stack.last().ok_or(UNBALANCED)?;
        Ok(&mut self.values[at])
    }

    fn append(&mut self, items: &[usize]) -> Result<(), String> {
        match self.top()? {
            Value::List(list) => list.extend(items),
            _ => return Err("its pickle appends to a value that is not a list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[usize]) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Value::Dict(dict) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            _ => return Err("its pickle sets entries of a value that is not a dictionary".into()),
        }
        Ok(())
    }

    fn keep(&mut self, key: u32) -> Result<(), String> {
        let &at = self.stack.last().ok_or(UNBALANCED)?;
        if self.memo.len() >= MAX_VALUES {
            return Err(format!("its pickle has more than {MAX_VALUES} values"));
        }
        self.memo.insert(key, at);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let &at = self.memo.get(&key).ok_or(UNBALANCED)?;
        if self.stack.len() >= MAX_VALUES {
            return Err(format!("its pickle has more than {MAX_VALUES} values"));
        }
        self.stack.push(at);
        Ok(())
    }

    /// Takes `len` bytes: to memory if they are few, else only their place.
    fn bytes(&mut self, len: u64) -> Result<(), String> {
        let place = self.at..self.at.checked_add(len).ok_or(CUT)?;
        if place.end > self.end {
            return Err(CUT.into());
        }
        let mut short = Vec::new();
        if len <= MAX_SHORT {
            short.resize(usize::try_from(len).map_err(|_| CUT)?, 0);
            self.fill(&mut short)?;
        } else {
            self.at = place.end;
            self.reader = At::reader(self.file, self.at);
        }
        self.push(Value::Bytes { place, short })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        let len = bytes.len() as u64;
        if self.end.saturating_sub(self.at) < len {
            return Err(CUT.into());
        }
        self.reader
            .read_exact(bytes)
            .map_err(|error| error.to_string())?;
        self.at += len;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                _ if line.len() as u64 == MAX_SHORT => return Err(CUT.into()),
                byte => line.push(byte),
            }
        }
    }

    /// Reads an integer of any length. One longer than eight bytes has no meaning here.
    fn long(&mut self) -> Result<(), String> {
        let len = self.byte()?.into();
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        let fill = if bytes.last().is_some_and(|&last| last >= 0x80) {
            0xff
        } else {
            0
        };
        let mut whole = [fill; 8];
        let value = match whole.get_mut(..len) {
            Some(part) => {
                part.copy_from_slice(&bytes);
                Value::Int(i64::from_le_bytes(whole))
            }
            None => Value::Other,
        };
        self.push(value)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Pickle, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Pickle::read(&file, 0..bytes.len() as u64)
    }

    /// `pickle.dumps({b"labels": [1, 300, 2**40], "n": numpy.zeros((1, 2), "u1")}, 4)` of NumPy 2.
    const WHOLE: &[u8] = b"\x80\x04}(C\x06labels](K\x01M,\x01\x8a\x06\x00\x00\x00\x00\x00\x01e\x8c\x01n\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x01K\x02\x86\x94\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02u1\x89\x88\x87R(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C\x02\x07\x08tbu.";

    #[test]
    fn arrays_and_lists_are_data() {
        let pickle = parse(WHOLE).unwrap();
        assert_eq!(pickle.integers("labels").unwrap(), [1, 300, 1 << 40]);
        let array = pickle.array("n").unwrap();
        assert_eq!((array.rows, array.columns), (1, 2));
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
                    let _ = (pickle.integers("labels"), pickle.array("n"));
                }
            }
        }
    }

    #[test]
    fn functions_are_named_and_not_called() {
        let pickle =
            parse(b"\x80\x02}X\x01\x00\x00\x00acos\nsystem\nX\x04\x00\x00\x00true\x85Rs.").unwrap();
        assert!(matches!(pickle.get("a"), Some(Value::Call { name, .. }) if name == "os.system"));
    }
}
