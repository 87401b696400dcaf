//! Columns as one binary answer, which the page uses in place as typed arrays.
//!
//! Little-endian: the length of a JSON text as `u32`, four bytes of zero, the text, padded with spaces to a multiple of
//! 8, and the bytes of each column, each padded to a multiple of 8. The text is `{"rows": N, "columns": [{"name", "type",
//! "width", "bytes"}, ...]}`: `width` numbers of `type` in each row. A column of texts is two: `NAME.ends`, the offset at
//! which each ends, and `NAME`, all of them in UTF-8.

use bytemuck::NoUninit;
use serde::Serialize;

/// Columns of a table that is being built.
pub struct Table {
    rows: usize,
    columns: Vec<Column>,
    data: Vec<u8>,
}

#[derive(Serialize)]
struct Column {
    name: &'static str,
    r#type: &'static str,
    width: usize,
    bytes: usize,
}

/// A number that typed arrays of JavaScript have.
pub trait Number: NoUninit {
    const TYPE: &str;
}

impl Number for u8 {
    const TYPE: &str = "u8";
}
impl Number for u32 {
    const TYPE: &str = "u32";
}
impl Number for i32 {
    const TYPE: &str = "i32";
}
impl Number for f32 {
    const TYPE: &str = "f32";
}

impl Table {
    /// A table of so many rows.
    pub fn new(rows: usize) -> Self {
        Self {
            rows,
            columns: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Adds a column of `width` numbers a row, one row after the other.
    pub fn numbers<T: Number>(&mut self, name: &'static str, width: usize, values: &[T]) {
        self.bytes(name, T::TYPE, width, bytemuck::cast_slice(values));
    }

    /// Adds a column of texts.
    pub fn texts(&mut self, name: [&'static str; 2], ends: &[u32], text: &[u8]) {
        self.numbers(name[0], 1, ends);
        self.bytes(name[1], "text", 0, text);
    }

    fn bytes(&mut self, name: &'static str, r#type: &'static str, width: usize, bytes: &[u8]) {
        self.columns.push(Column {
            name,
            r#type,
            width,
            bytes: bytes.len(),
        });
        self.data.extend_from_slice(bytes);
        self.data.resize(self.data.len().next_multiple_of(8), 0);
    }

    /// The bytes of the answer.
    pub fn encode(&self) -> Vec<u8> {
        const {
            assert!(
                cfg!(target_endian = "little"),
                "numbers are sent as they are"
            )
        };
        let head = serde_json::json!({ "rows": self.rows, "columns": self.columns });
        let mut head = head.to_string().into_bytes();
        head.resize(head.len().next_multiple_of(8), b' ');
        let len = u64::try_from(head.len()).unwrap_or(0);
        [&len.to_le_bytes()[..], &head, &self.data].concat()
    }
}
