//! Rows of a Parquet file, read in order, page by page. Each thread has its own place in a file: it holds
//! one page and skips those between its rows without decompressing them.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ::parquet::column::page::PageReader;
use ::parquet::column::reader::ColumnReaderImpl;
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::{ChunkReader, Length};
use ::parquet::file::serialized_reader::SerializedPageReader;

use super::super::{MAX_FILE, ReadError};
use super::Table;
use crate::caught::caught;

/// The place of one thread.
#[derive(Default)]
pub(crate) struct Rows {
    group: Option<OpenGroup>,
    values: Vec<ByteArray>,
    levels: Vec<i16>,
}

/// A row group that is being read.
struct OpenGroup {
    table: usize,
    group: usize,
    /// The next row of the group.
    next: usize,
    column: ColumnReaderImpl<ByteArrayType>,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.group.as_ref();
        f.debug_tuple("Rows")
            .field(&place.map(|open| (open.table, open.group, open.next)))
            .finish()
    }
}

impl Rows {
    /// The image in row `row` of `table`, which has number `number`.
    pub(super) fn read(
        &mut self,
        number: usize,
        table: &Table,
        row: usize,
    ) -> Result<&[u8], ReadError> {
        // Taken out, so that no error leaves a reader at an unknown place.
        let open = self.group.take();
        let damaged = |reason: String| ReadError::Row { reason };
        let (mut group, mut row) = (0, row);
        while let Some(past) = row.checked_sub(rows_of(&table.metadata, group)) {
            (group, row) = (group + 1, past);
        }
        let place = (number, group);
        let mut open =
            match open.filter(|open| (open.table, open.group) == place && open.next <= row) {
                Some(open) => open,
                None => {
                    let image = table.columns.image;
                    let pages = page_reader(table, group, image).map_err(damaged)?;
                    let descriptor = table.metadata.file_metadata().schema_descr().column(image);
                    OpenGroup {
                        table: number,
                        group,
                        next: 0,
                        column: ColumnReaderImpl::new(descriptor, pages),
                    }
                }
            };
        let damaged = |reason: String| ReadError::Row {
            reason: format!("damaged ({reason}); copy or download the file again"),
        };
        let ahead = row - open.next;
        let skipped = if ahead > 0 {
            guarded(|| open.column.skip_records(ahead)).map_err(damaged)?
        } else {
            0
        };
        if skipped != ahead {
            return Err(damaged("it has fewer rows than it states".to_owned()));
        }
        self.values.clear();
        self.levels.clear();
        let (column, levels, values) = (&mut open.column, &mut self.levels, &mut self.values);
        let (records, ..) =
            guarded(|| column.read_records(1, Some(levels), None, values)).map_err(damaged)?;
        if records != 1 {
            return Err(damaged("it has fewer rows than it states".to_owned()));
        }
        open.next = row + 1;
        self.group = Some(open);
        match self.values.first() {
            Some(image) if image.len() as u64 > MAX_FILE => {
                Err(ReadError::TooLarge { size: image.len() as u64 })
            }
            Some(image) => Ok(image.data()),
            None => Err(ReadError::Row {
                reason: "no image in this row, only a path perhaps; write the set again by `datasets` with embedded images".to_owned(),
            }),
        }
    }
}

/// The pages of a column in a row group.
pub(super) fn page_reader(
    table: &Table,
    group: usize,
    column: usize,
) -> Result<Box<dyn PageReader>, String> {
    let chunk = table.metadata.row_group(group).column(column);
    let rows = rows_of(&table.metadata, group);
    let bytes = Arc::clone(&table.bytes);
    let pages = guarded(|| SerializedPageReader::new(bytes, chunk, rows, None))?;
    Ok(Box::new(pages))
}

/// Runs `work` of the crate `parquet`, which panics on some damaged pages: that is an error here. Whatever
/// `work` has changed must not be used again after an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> ParquetResult<T>) -> Result<T, String> {
    match caught(work) {
        Ok(done) => done.map_err(|reason| reason.to_string()),
        Err(_) => Err("its pages are not as their headers state".to_owned()),
    }
}

fn rows_of(metadata: &ParquetMetaData, group: usize) -> usize {
    let rows = metadata.row_group(group).num_rows();
    usize::try_from(rows).unwrap_or(0)
}

/// Checks that row groups and columns lie inside the file, of `len` bytes. Returns the number of rows.
pub(super) fn check(metadata: &ParquetMetaData, len: u64) -> Result<usize, String> {
    let damaged = |group| {
        format!("damaged: row group {group} lies outside the file; copy or download it again")
    };
    let mut rows = 0;
    for (at, group) in metadata.row_groups().iter().enumerate() {
        for column in group.columns() {
            let start = column
                .dictionary_page_offset()
                .unwrap_or(column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            let end = end.and_then(|end| u64::try_from(end).ok());
            if start < 0 || column.compressed_size() < 0 || end.is_none_or(|end| end > len) {
                return Err(damaged(at));
            }
        }
        // A row takes a bit of the file at least, for its label or in a dictionary.
        let stated = u64::try_from(group.num_rows()).ok();
        let stated = stated.filter(|&rows| rows <= len.saturating_mul(1 << 10));
        let stated = stated
            .and_then(|rows| usize::try_from(rows).ok())
            .ok_or_else(|| damaged(at))?;
        rows += stated;
    }
    Ok(rows)
}

/// A file that is read by position: the crate's own reader of files moves an offset that threads share.
#[derive(Debug)]
pub(super) struct Bytes {
    file: Arc<File>,
    len: u64,
}

impl Bytes {
    pub fn new(file: File, len: u64) -> Self {
        let file = Arc::new(file);
        Self { file, len }
    }
}

impl Length for Bytes {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Bytes {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let file = Arc::clone(&self.file);
        // Room for the header of a page; its data is read past the buffer.
        Ok(BufReader::with_capacity(512, From { file, at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<bytes::Bytes> {
        if start
            .checked_add(length as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// The bytes of a file from an offset on.
#[derive(Debug)]
pub(super) struct From {
    file: Arc<File>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
