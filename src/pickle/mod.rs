//! Reads Python pickles as data: lists, dictionaries, text, numbers, and calls. Nothing is imported or called: a
//! class or function is only a name, and what would be called is a [`Call`] for the reader to interpret.
//! Long byte strings stay where they are; only their place is kept.
//!
//! Source: CPython's `Lib/pickletools.py`, protocols 2 to 5.

mod machine;

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use machine::Machine;

/// Maximum number of values in a pickle, and of entries on its stack and in its memo, so that a forged one cannot
/// fill the memory.
pub const MAX_VALUES: usize = 1 << 22;
/// Longest text or byte string that is kept in memory, in bytes.
pub const MAX_SHORT: u64 = 1 << 12;

/// Reason why bytes are not a pickle that is read here. The texts continue a sentence that names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end before the pickle does.
    #[error("its pickle ends too early")]
    Cut,
    /// An opcode takes values that are not there.
    #[error("its pickle takes more from the stack than is there")]
    Unbalanced,
    /// A protocol that is not read.
    #[error("is of pickle protocol {0}, expected 2 to 5")]
    Protocol(u8),
    /// An opcode that is not read.
    #[error("its pickle has opcode 0x{0:02x}, which is not read here")]
    Opcode(u8),
    /// An opcode for lists or dictionaries is applied to something else.
    #[error("its pickle adds to a value that is not a {0}")]
    Kind(&'static str),
    /// More values than [`MAX_VALUES`].
    #[error("its pickle has more than {MAX_VALUES} values")]
    TooMany,
    /// A name longer than [`MAX_SHORT`].
    #[error("its pickle has a name of more than {MAX_SHORT} bytes")]
    LongName,
    /// The bytes cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A value. Its parts are indices into the [`Pickle`], since values may be shared, and may even contain themselves.
#[derive(Debug)]
pub enum Value {
    /// An integer, or a truth value as 0 or 1.
    Int(i64),
    /// Text or bytes: its place, and its content if it is not longer than [`MAX_SHORT`].
    Bytes {
        /// Offsets of the first byte and of the one after the last.
        place: Range<u64>,
        /// The content, empty if it is long.
        short: Vec<u8>,
    },
    /// A list or a tuple.
    List(Vec<usize>),
    /// Keys and values.
    Dict(Vec<(usize, usize)>),
    /// A class or a function: module and name, both [`Value::Bytes`].
    Global([usize; 2]),
    /// An object that a class or function would have made.
    Call(Box<Call>),
    /// An object that a program keeps outside of the pickle, under this identification.
    Persistent(usize),
    /// A value of this type, which is not kept.
    Other(&'static str),
}

/// A call that is not carried out, and what was done with its result.
#[derive(Debug)]
pub struct Call {
    /// The callable, mostly a [`Value::Global`].
    pub callable: usize,
    /// Its arguments, mostly a [`Value::List`].
    pub arguments: usize,
    /// The state that was set afterwards, mostly a [`Value::Dict`] of attributes.
    pub state: Option<usize>,
    /// Entries that were set in the result.
    pub entries: Vec<(usize, usize)>,
}

/// A pickle, read.
#[derive(Debug)]
pub struct Pickle {
    values: Vec<Value>,
    root: usize,
}

impl Pickle {
    /// Reads the pickle that begins `bytes`. Also returns the number of its bytes.
    ///
    /// # Errors
    /// Those of [`Error`].
    pub fn of_bytes(bytes: &[u8]) -> Result<(Self, usize), Error> {
        let mut machine = Machine::new(Cursor::new(bytes), 0..bytes.len() as u64);
        let pickle = machine.run()?;
        let end = usize::try_from(machine.position()).map_err(|_| Error::Cut)?;
        Ok((pickle, end))
    }

    /// Reads the pickle in `range` of `file`. Does not move the file's position.
    ///
    /// # Errors
    /// Those of [`Error`].
    pub fn of_file(file: &File, range: Range<u64>) -> Result<Self, Error> {
        let at = range.start;
        Machine::new(BufReader::new(At { file, at }), range).run()
    }

    /// Index of the value that was pickled.
    #[must_use]
    pub fn root(&self) -> usize {
        self.root
    }

    /// A value by its index.
    #[must_use]
    pub fn at(&self, index: usize) -> &Value {
        &self.values[index]
    }

    /// All values, in the order in which they were made.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The integer at `index`.
    #[must_use]
    pub fn int(&self, index: usize) -> Option<i64> {
        match self.values[index] {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    /// The text, or bytes that are text, at `index`, if it is short.
    #[must_use]
    pub fn text(&self, index: usize) -> Option<&str> {
        match &self.values[index] {
            Value::Bytes { place, short } if place.end - place.start == short.len() as u64 => {
                std::str::from_utf8(short).ok()
            }
            _ => None,
        }
    }

    /// The parts of the list or tuple at `index`.
    #[must_use]
    pub fn list(&self, index: usize) -> Option<&[usize]> {
        match &self.values[index] {
            Value::List(parts) => Some(parts),
            _ => None,
        }
    }

    /// Tells if the value at `index` is the class or function `name` of `module`.
    #[must_use]
    pub fn is_global(&self, index: usize, module: &str, name: &str) -> bool {
        match self.values[index] {
            Value::Global([at, of]) => self.text(at) == Some(module) && self.text(of) == Some(name),
            _ => false,
        }
    }

    /// `module.name` of the class or function at `index`.
    #[must_use]
    pub fn global(&self, index: usize) -> Option<String> {
        match self.values[index] {
            Value::Global([module, name]) => {
                Some(format!("{}.{}", self.text(module)?, self.text(name)?))
            }
            _ => None,
        }
    }

    /// The value of the text `key` in the dictionary at `index`.
    #[must_use]
    pub fn get(&self, index: usize, key: &str) -> Option<usize> {
        let Value::Dict(entries) = &self.values[index] else {
            return None;
        };
        // Python keeps the last of several.
        let entry = entries
            .iter()
            .rfind(|(name, _)| self.text(*name) == Some(key));
        entry.map(|&(_, value)| value)
    }
}

/// The bytes of a file from an offset on, whatever the file's own position is.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for At<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Pickle, Error> {
        Pickle::of_bytes(bytes).map(|(pickle, _)| pickle)
    }

    /// `pickle.dumps(OrderedDict(a=(1, -2, 2**40), b=[None, 1.5, True]), 2)`, with the last item appended.
    const ORDERED: &[u8] = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02K\x01J\xfe\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01\x87q\x03X\x01\x00\x00\x00bq\x04]q\x05(NG?\xf8\x00\x00\x00\x00\x00\x00\x88eu.";

    #[test]
    fn values_are_those_that_were_pickled() {
        let pickle = parse(ORDERED).unwrap();
        let Value::Call(call) = pickle.at(pickle.root()) else {
            panic!("{pickle:?}")
        };
        assert!(pickle.is_global(call.callable, "collections", "OrderedDict"));
        assert_eq!(pickle.list(call.arguments), Some(&[][..]));
        let keys = call
            .entries
            .iter()
            .map(|&(key, _)| pickle.text(key).unwrap());
        assert_eq!(keys.collect::<Vec<_>>(), ["a", "b"]);
        let ints = pickle.list(call.entries[0].1).unwrap();
        let ints: Vec<_> = ints.iter().map(|&at| pickle.int(at).unwrap()).collect();
        assert_eq!(ints, [1, -2, 1 << 40]);
        let others = pickle.list(call.entries[1].1).unwrap();
        assert!(matches!(pickle.at(others[0]), Value::Other("None")));
        assert!(matches!(pickle.at(others[1]), Value::Other("float")));
        assert_eq!(pickle.int(others[2]), Some(1));
    }

    #[test]
    fn prefixes_fail_and_changed_bytes_do_not_panic() {
        for end in 0..ORDERED.len() {
            assert!(parse(&ORDERED[..end]).is_err(), "{end}");
        }
        for at in 0..ORDERED.len() {
            let mut other = ORDERED.to_vec();
            for byte in 0..=u8::MAX {
                other[at] = byte;
                if let Ok(pickle) = parse(&other) {
                    let _ = pickle.get(pickle.root(), "a");
                }
            }
        }
    }

    #[test]
    fn functions_are_named_and_not_called() {
        let pickle = parse(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
        let Value::Call(call) = pickle.at(pickle.root()) else {
            panic!("{pickle:?}")
        };
        assert_eq!(pickle.global(call.callable).as_deref(), Some("os.system"));
        let arguments = pickle.list(call.arguments).unwrap();
        assert_eq!(pickle.text(arguments[0]), Some("true"));
    }

    #[test]
    fn long_strings_stay_in_the_file() {
        let mut bytes = b"before\x80\x03]B".to_vec();
        bytes.extend(10_000_u32.to_le_bytes());
        bytes.extend([7; 10_000]);
        bytes.extend(b"aX\x02\x00\x00\x00hia.after");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let pickle = Pickle::of_file(&file, 6..bytes.len() as u64 - 5).unwrap();
        let items = pickle.list(pickle.root()).unwrap();
        match pickle.at(items[0]) {
            Value::Bytes { place, short } => {
                assert_eq!((place.clone(), short.len()), (14..10_014, 0));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(pickle.text(items[0]), None);
        assert_eq!(pickle.text(items[1]), Some("hi"));
        let (_, end) = Pickle::of_bytes(&bytes[6..]).unwrap();
        assert_eq!(&bytes[6 + end..], b"after");
    }

    /// Each repeats opcodes of a byte or two that make or keep something.
    #[test]
    fn a_pickle_that_would_fill_the_memory_is_refused() {
        let bomb = |start: &[u8], again: &[u8]| {
            let mut bytes = [b"\x80\x04", start].concat();
            bytes.extend(again.repeat(MAX_VALUES + 2));
            bytes.push(b'.');
            let error = parse(&bytes).unwrap_err();
            assert!(matches!(error, Error::TooMany), "{error}");
        };
        bomb(b"", b"N");
        bomb(b"", b"(");
        bomb(b"N", b"2");
        bomb(b"N\x94", b"h\x00");
        bomb(b"N", b"\x94");
        // Values that are dropped again were made all the same.
        bomb(b"", b"N0");
        // Names are not copied: 4 kB each would be 16 GB.
        let name = [
            b"\x80\x04X\x00\x10\x00\x00",
            [b'a'; 4096].as_slice(),
            b"\x94",
        ]
        .concat();
        let mut bytes = name;
        bytes.extend(b"h\x00h\x00\x930".repeat(1 << 20));
        bytes.extend(b"N.");
        assert_eq!(parse(&bytes).unwrap().values().len(), (1 << 20) + 2);
    }
}
