//! The stack machine that runs the opcodes of a pickle. Each opcode makes at most three values, and copies none, so
//! the number of values and the length of the input bound the memory.

use std::collections::HashMap;
use std::io::{BufRead, Seek};
use std::ops::Range;

use super::{Call, Error, MAX_SHORT, MAX_VALUES, Pickle, Value};

pub(super) struct Machine<R> {
    reader: R,
    /// Offset of the next byte, and of the end.
    at: u64,
    end: u64,
    values: Vec<Value>,
    stack: Vec<usize>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, usize>,
}

impl<R: BufRead + Seek> Machine<R> {
    /// A machine for the pickle in `range`, whose first byte is the next one of `reader`.
    pub fn new(reader: R, range: Range<u64>) -> Self {
        Self {
            reader,
            at: range.start,
            end: range.end,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Offset of the byte after those that were read.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Runs the opcodes to the end of the pickle.
    pub fn run(&mut self) -> Result<Pickle, Error> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                let values = std::mem::take(&mut self.values);
                return Ok(Pickle { values, root });
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Error> {
        match opcode {
            // PROTO, and a FRAME of later protocols.
            0x80 => match self.byte()? {
                2..=5 => Ok(()),
                other => Err(Error::Protocol(other)),
            },
            0x95 => self.array::<8>().map(drop),
            b'N' => self.push(Value::Other("None")),
            0x88 => self.push(Value::Int(1)),
            0x89 => self.push(Value::Int(0)),
            b'G' => {
                self.array::<8>()?;
                self.push(Value::Other("float"))
            }
            b'K' => {
                let [value] = self.array()?;
                self.push(Value::Int(value.into()))
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))
            }
            0x8a => {
                let len = self.byte()?.into();
                self.long(len)
            }
            0x8b => {
                let len = u32::from_le_bytes(self.array()?).into();
                self.long(len)
            }
            // Text, bytes and Python 2's strings, by the width of their length.
            b'U' | b'C' | 0x8c => {
                let len = self.byte()?.into();
                self.bytes(len)
            }
            b'T' | b'B' | b'X' => {
                let len = u32::from_le_bytes(self.array()?).into();
                self.bytes(len)
            }
            0x8d | 0x8e | 0x96 => {
                let len = u64::from_le_bytes(self.array()?);
                self.bytes(len)
            }
            b'(' => {
                self.marks.push(self.stack.len());
                bounded(self.marks.len())
            }
            // POP, POP_MARK, DUP.
            b'0' => self.pop().map(drop),
            b'1' => self.since_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.again(top)
            }
            // Sets are not kept: EMPTY_SET, ADDITEMS, FROZENSET.
            0x8f => self.push(Value::Other("set")),
            0x90 => self.since_mark().map(drop),
            0x91 => {
                self.since_mark()?;
                self.push(Value::Other("frozenset"))
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' | b')' => self.push(Value::List(Vec::new())),
            b't' | b'l' => {
                let items = self.since_mark()?;
                self.push(Value::List(items))
            }
            count @ 0x85..=0x87 => {
                let items = self.pop_many(usize::from(count - 0x84))?;
                self.push(Value::List(items))
            }
            b'd' => {
                let items = self.since_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set(&items)
            }
            b'a' => {
                let items = self.pop_many(1)?;
                self.append(&items)
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(&items)
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set(&items)
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)
            }
            b'q' => {
                let key = self.byte()?.into();
                self.keep(key)
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.keep(key)
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| Error::TooMany)?;
                self.keep(key)
            }
            b'h' => {
                let key = self.byte()?.into();
                self.recall(key)
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)
            }
            // GLOBAL and STACK_GLOBAL: module and name of a class or a function.
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(Value::Global([module, name]))
            }
            0x93 => {
                let parts = self.pop_many(2)?;
                self.push(Value::Global([parts[0], parts[1]]))
            }
            // REDUCE and NEWOBJ: a callable and its arguments. NEWOBJ_EX also has arguments by name.
            b'R' | 0x81 => {
                let parts = self.pop_many(2)?;
                self.call(parts[0], parts[1])
            }
            0x92 => {
                let parts = self.pop_many(3)?;
                self.call(parts[0], parts[1])
            }
            // BUILD: attributes.
            b'b' => {
                let built = self.pop()?;
                let top = self.top()?;
                if let Value::Call(call) = &mut self.values[top] {
                    call.state = Some(built);
                }
                Ok(())
            }
            // BINPERSID.
            b'Q' => {
                let identification = self.pop()?;
                self.push(Value::Persistent(identification))
            }
            other => Err(Error::Opcode(other)),
        }
    }

    /// Adds a value that is not on the stack.
    fn make(&mut self, value: Value) -> Result<usize, Error> {
        bounded(self.values.len() + 1)?;
        self.values.push(value);
        Ok(self.values.len() - 1)
    }

    fn push(&mut self, value: Value) -> Result<(), Error> {
        let made = self.make(value)?;
        self.again(made)
    }

    /// Puts a value on the stack that may be there already.
    fn again(&mut self, value: usize) -> Result<(), Error> {
        self.stack.push(value);
        bounded(self.stack.len())
    }

    fn call(&mut self, callable: usize, arguments: usize) -> Result<(), Error> {
        self.push(Value::Call(Box::new(Call {
            callable,
            arguments,
            state: None,
            entries: Vec::new(),
        })))
    }

    fn pop(&mut self) -> Result<usize, Error> {
        self.stack.pop().ok_or(Error::Unbalanced)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<usize>, Error> {
        let from = self.stack.len().checked_sub(count);
        Ok(self.stack.split_off(from.ok_or(Error::Unbalanced)?))
    }

    fn since_mark(&mut self) -> Result<Vec<usize>, Error> {
        let from = self.marks.pop().ok_or(Error::Unbalanced)?;
        if from > self.stack.len() {
            return Err(Error::Unbalanced);
        }
        Ok(self.stack.split_off(from))
    }

    fn top(&self) -> Result<usize, Error> {
        self.stack.last().copied().ok_or(Error::Unbalanced)
    }

    fn append(&mut self, items: &[usize]) -> Result<(), Error> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::List(list) => list.extend(items),
            // An object of a class that is like a list.
            Value::Call(_) => {}
            _ => return Err(Error::Kind("list")),
        }
        Ok(())
    }

    fn set(&mut self, items: &[usize]) -> Result<(), Error> {
        let (pairs, rest) = items.as_chunks::<2>();
        let top = self.top()?;
        let entries = match &mut self.values[top] {
            Value::Dict(entries) => entries,
            Value::Call(call) => &mut call.entries,
            _ => return Err(Error::Kind("dictionary")),
        };
        entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
        match rest {
            [] => Ok(()),
            _ => Err(Error::Unbalanced),
        }
    }

    fn keep(&mut self, key: u32) -> Result<(), Error> {
        let top = self.top()?;
        self.memo.insert(key, top);
        bounded(self.memo.len())
    }

    fn recall(&mut self, key: u32) -> Result<(), Error> {
        let value = *self.memo.get(&key).ok_or(Error::Unbalanced)?;
        self.again(value)
    }

    /// Takes `len` bytes: to memory if they are few, else only their place.
    fn bytes(&mut self, len: u64) -> Result<(), Error> {
        let place = self.at..self.at.checked_add(len).ok_or(Error::Cut)?;
        if place.end > self.end {
            return Err(Error::Cut);
        }
        let mut short = Vec::new();
        match usize::try_from(len) {
            Ok(len) if len as u64 <= MAX_SHORT => {
                short.resize(len, 0);
                self.fill(&mut short)?;
            }
            _ => self.skip(len)?,
        }
        self.push(Value::Bytes { place, short })
    }

    fn skip(&mut self, len: u64) -> Result<(), Error> {
        if self.end - self.at < len {
            return Err(Error::Cut);
        }
        let by = i64::try_from(len).map_err(|_| Error::Cut)?;
        self.reader.seek_relative(by)?;
        self.at += len;
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let len = bytes.len() as u64;
        if self.end - self.at < len {
            return Err(Error::Cut);
        }
        self.reader.read_exact(bytes)?;
        self.at += len;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.array().map(|[byte]| byte)
    }

    /// Makes a value of the text up to the end of the line.
    fn line(&mut self) -> Result<usize, Error> {
        let start = self.at;
        let mut short = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                _ if short.len() as u64 == MAX_SHORT => return Err(Error::LongName),
                byte => short.push(byte),
            }
        }
        let place = start..self.at - 1;
        self.make(Value::Bytes { place, short })
    }

    /// Reads an integer of `len` bytes. One longer than eight is not kept.
    fn long(&mut self, len: u64) -> Result<(), Error> {
        let mut whole = [0; 8];
        let Some(part) = usize::try_from(len)
            .ok()
            .and_then(|len| whole.get_mut(..len))
        else {
            self.skip(len)?;
            return self.push(Value::Other("int"));
        };
        self.fill(part)?;
        let negative = part.last().is_some_and(|&last| last >= 0x80);
        let len = part.len();
        if negative {
            whole[len..].fill(0xff);
        }
        self.push(Value::Int(i64::from_le_bytes(whole)))
    }
}

/// Checks a number of values.
fn bounded(count: usize) -> Result<(), Error> {
    match count > MAX_VALUES {
        true => Err(Error::TooMany),
        false => Ok(()),
    }
}
