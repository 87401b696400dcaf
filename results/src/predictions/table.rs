//! Columns of a Parquet file by name, by the `parquet` crate. Every column has a value in each row.

use std::fmt::Display;
use std::ops::Range;

use bytes::Bytes;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArrayType, DataType, FloatType, Int32Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tinyres::caught::caught;

type Result<T> = std::result::Result<T, String>;

/// Rows read at once.
const BATCH: usize = 1 << 16;

/// An open file.
pub(super) struct Table {
    file: SerializedFileReader<Bytes>,
    rows: usize,
}

impl Table {
    /// Opens the file with this content.
    pub fn open(content: Vec<u8>) -> Result<Self> {
        let len = content.len();
        let file = guarded(|| SerializedFileReader::new(Bytes::from(content)))
            .map_err(|reason| format!("not a whole Parquet file ({reason})"))?;
        let rows = check(file.metadata(), len)?;
        Ok(Self { file, rows })
    }

    /// The text under `key` in the file's metadata.
    pub fn metadata(&self, key: &str) -> Result<&str> {
        let pairs = self.file.metadata().file_metadata().key_value_metadata();
        let pair = pairs.into_iter().flatten().find(|pair| pair.key == key);
        pair.and_then(|pair| pair.value.as_deref())
            .ok_or_else(|| format!("not predictions: no {key:?} in its metadata"))
    }

    /// True if there is a column of this name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<usize> {
        let schema = self.file.metadata().file_metadata().schema_descr();
        let mut columns = schema.columns().iter();
        columns.position(|column| {
            column
                .path()
                .parts()
                .first()
                .is_some_and(|part| part == name)
        })
    }

    /// A column of integers.
    pub fn signed(&self, name: &str) -> Result<Vec<i32>> {
        self.values::<Int32Type>(name, None)
    }

    /// A column of integers in `range`.
    pub fn integers(&self, name: &str, range: Range<u32>) -> Result<Vec<u32>> {
        within(name, 1, &self.signed(name)?, &range)
    }

    /// A column of lists of `width` integers in `range`.
    pub fn integer_lists(&self, name: &str, width: usize, range: Range<u32>) -> Result<Vec<u32>> {
        within(
            name,
            width,
            &self.values::<Int32Type>(name, Some(width))?,
            &range,
        )
    }

    /// A column of numbers.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>> {
        self.values::<FloatType>(name, None)
    }

    /// A column of lists of `width` numbers.
    pub fn float_lists(&self, name: &str, width: usize) -> Result<Vec<f32>> {
        self.values::<FloatType>(name, Some(width))
    }

    /// A column of texts. Bytes that are not UTF-8 are replaced.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let values = self.values::<ByteArrayType>(name, None)?;
        let text = |bytes: &parquet::data_type::ByteArray| {
            String::from_utf8_lossy(bytes.data()).into_owned()
        };
        Ok(values.iter().map(text).collect())
    }

    /// The four columns of a box as one.
    pub fn sides<T: Copy + Default>(
        &self,
        names: [&str; 4],
        read: impl Fn(&str) -> Result<Vec<T>>,
    ) -> Result<Vec<[T; 4]>> {
        let mut boxes = vec![[T::default(); 4]; self.rows];
        for (side, name) in names.into_iter().enumerate() {
            for (sides, value) in boxes.iter_mut().zip(read(name)?) {
                sides[side] = value;
            }
        }
        Ok(boxes)
    }

    /// All values of a column: one in each row, or `width` as a list.
    fn values<T: DataType>(&self, name: &str, width: Option<usize>) -> Result<Vec<T::T>> {
        let at = self.find(name).ok_or_else(|| format!("no column {name}"))?;
        let schema = self.file.metadata().file_metadata().schema_descr();
        let kind = schema.column(at).physical_type();
        let repeats = schema.column(at).max_rep_level();
        if kind != T::get_physical_type() || repeats != i16::from(width.is_some()) {
            let expected = T::get_physical_type();
            return Err(format!(
                "column {name} has values of type {kind}, expected {expected}"
            ));
        }
        let width = width.unwrap_or(1);
        let damaged = |reason: &dyn Display| format!("column {name} is damaged ({reason})");
        let mut all = Vec::new();
        for group in 0..self.file.num_row_groups() {
            let rows = self.file.metadata().row_group(group).num_rows();
            let rows = usize::try_from(rows).unwrap_or(0);
            let read = guarded(|| {
                let pages = self.file.get_row_group(group)?;
                let mut column = get_typed_column_reader::<T>(pages.get_column_reader(at)?);
                let (mut repeated, mut done) = (Vec::new(), 0);
                while done < rows {
                    let most = BATCH.min(rows - done);
                    let mut defined = Vec::new();
                    let (records, ..) = column.read_records(
                        most,
                        Some(&mut defined),
                        Some(&mut repeated),
                        &mut all,
                    )?;
                    if records == 0 {
                        break;
                    }
                    done += records;
                }
                Ok(repeated)
            });
            let repeated = read.map_err(|reason| damaged(&reason))?;
            // The first element of a row has repetition level 0. Required columns of single values have no levels.
            let is_whole = |(at, &level): (usize, &i16)| (level == 0) == (at % width == 0);
            if !repeated.iter().enumerate().all(is_whole) {
                return Err(damaged(&format!("a row does not have {width} elements")));
            }
        }
        let expected = self.rows * width;
        if all.len() != expected {
            return Err(damaged(&format!(
                "{} values, expected {expected}",
                all.len()
            )));
        }
        Ok(all)
    }
}

/// The values as unsigned ones, all of them in `range`.
fn within(name: &str, width: usize, values: &[i32], range: &Range<u32>) -> Result<Vec<u32>> {
    let value = |(at, &value): (usize, &i32)| match u32::try_from(value) {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(format!(
            "{name} of image {} is {value}, expected {} to {}",
            at / width.max(1),
            range.start,
            range.end.saturating_sub(1)
        )),
    };
    values.iter().enumerate().map(value).collect()
}

/// Checks that the columns of each row group lie inside the file, of `len` bytes. Returns the number of rows.
fn check(metadata: &ParquetMetaData, len: usize) -> Result<usize> {
    let len = len as u64;
    let mut rows = 0_u64;
    for (at, group) in metadata.row_groups().iter().enumerate() {
        let damaged = || format!("damaged: row group {at} lies outside the file");
        for column in group.columns() {
            let start = column
                .dictionary_page_offset()
                .unwrap_or(column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            let end = end.and_then(|end| u64::try_from(end).ok());
            if start < 0 || column.compressed_size() < 0 || end.is_none_or(|end| end > len) {
                return Err(damaged());
            }
        }
        let stated = u64::try_from(group.num_rows()).map_err(|_| damaged())?;
        rows = rows.saturating_add(stated);
    }
    // A row takes a bit of the file at least, compressed a thousandfold.
    let rows = u32::try_from(rows).ok();
    let rows = rows.filter(|&rows| u64::from(rows) <= len.saturating_mul(1 << 10));
    rows.map(|rows| rows as usize)
        .ok_or_else(|| "damaged: more rows than its size has room for".to_owned())
}

/// Runs `work` of the crate `parquet`, which panics on some damaged pages: that is an error here.
fn guarded<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    match caught(work) {
        Ok(done) => done.map_err(|reason| reason.to_string()),
        Err(_) => Err("its pages are not as their headers state".to_owned()),
    }
}
