//! Parquet files as the Hugging Face Hub stores sets of images: a row is an image, its bytes as JPEG or
//! PNG in a column such as `image.bytes`, and its label in another. Decodes no image, and keeps no row
//! in memory but the page that a thread reads.
//!
//! Sources: the features of `datasets` 5.2 (key `huggingface` of the schema), and the naming of files on
//! the Hub (`data/train-00000-of-00002.parquet`).

mod columns;
mod files;
mod rows;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use ::parquet::file::reader::Length;

use super::{Error, Item, Listing, Problems, ReadError, Split, Stamp, TreeProblem};
use columns::Columns;
use rows::Bytes;
pub(super) use rows::Rows;

/// Open Parquet files, in the order of their rows.
#[derive(Debug)]
pub(super) struct Parquet {
    pub path: PathBuf,
    tables: Vec<Table>,
}

/// One file.
#[derive(Debug)]
struct Table {
    path: PathBuf,
    split: Split,
    stamp: Stamp,
    bytes: Arc<Bytes>,
    metadata: ParquetMetaData,
    columns: Columns,
    /// The number of rows in all files before this one.
    first: usize,
    rows: usize,
}

impl Parquet {
    /// Opens the file or directory at `path`, if it holds Parquet files.
    pub fn open(
        path: &Path,
        problems: &mut Problems<TreeProblem>,
    ) -> Result<Option<(Self, Listing)>, Error> {
        let files = files::find(path)?;
        if files.is_empty() {
            return Ok(None);
        }
        let mut tables = Vec::new();
        let mut first = 0;
        for (split, path) in files {
            let table = Table::open(path, split, first)?;
            first += table.rows;
            tables.push(table);
        }
        let listing = list(&tables, problems)?;
        let path = path.to_owned();
        Ok(Some((Self { path, tables }, listing)))
    }

    /// The encoded image of row `row`, counted over all files.
    pub fn read<'a>(&self, row: usize, rows: &'a mut Rows) -> Result<&'a [u8], ReadError> {
        let at = self.table_of(row);
        rows.read(at, &self.tables[at], row - self.tables[at].first)
    }

    pub fn stamp(&self, row: usize) -> Stamp {
        self.tables[self.table_of(row)].stamp
    }

    pub fn display_row(&self, row: usize) -> String {
        let table = &self.tables[self.table_of(row)];
        format!("{}: row {}", table.path.display(), row - table.first)
    }

    fn table_of(&self, row: usize) -> usize {
        self.tables.partition_point(|table| table.first <= row) - 1
    }
}

impl Table {
    fn open(path: PathBuf, split: Split, first: usize) -> Result<Self, Error> {
        let open = |reason| Error::Open {
            path: path.clone(),
            reason,
        };
        let damaged = |reason: String| Error::Table {
            path: path.clone(),
            reason,
        };
        let file = File::open(&path).map_err(open)?;
        let file_metadata = file.metadata().map_err(open)?;
        let stamp = Stamp::of(&file_metadata);
        let bytes = Arc::new(Bytes::new(file, file_metadata.len()));
        let metadata = rows::guarded(|| ParquetMetaDataReader::new().parse_and_finish(&*bytes));
        let metadata = metadata.map_err(|reason| {
            damaged(format!(
                "not a whole Parquet file ({reason}); copy or download it again"
            ))
        })?;
        let columns = Columns::find(&metadata).map_err(damaged)?;
        let rows = rows::check(&metadata, bytes.len()).map_err(damaged)?;
        Ok(Self {
            path,
            split,
            stamp,
            bytes,
            metadata,
            columns,
            first,
            rows,
        })
    }
}

/// Reads the labels of all tables.
fn list(tables: &[Table], problems: &mut Problems<TreeProblem>) -> Result<Listing, Error> {
    let damaged = |table: &Table, reason| Error::Table {
        path: table.path.clone(),
        reason,
    };
    let mut classes = Vec::new();
    let mut named = None;
    let mut labels = Vec::new();
    for table in tables {
        let read = columns::labels(table).map_err(|reason| damaged(table, reason))?;
        if let Some(names) = &table.columns.classes {
            match named {
                None => {
                    named = Some(table);
                    classes.clone_from(names);
                }
                Some(other) if classes != *names => {
                    let reason = format!(
                        "its classes differ from those of {}; put the files of one set only into the directory",
                        other.path.display()
                    );
                    return Err(damaged(table, reason));
                }
                Some(_) => {}
            }
        }
        labels.push(read);
    }
    if named.is_none() {
        // Labels without names are called by their numbers.
        let most = labels.iter().flatten().filter_map(|label| *label).max();
        let count = most.map_or(0, |most| most.saturating_add(1));
        if count > columns::MAX_UNNAMED {
            let reason = format!(
                "has labels up to {}, expected class names in its metadata or labels below {}",
                count - 1,
                columns::MAX_UNNAMED
            );
            return Err(damaged(&tables[0], reason));
        }
        classes = (0..count).map(|label| label.to_string()).collect();
    }
    let mut splits: Vec<(Split, Vec<Item>)> = Vec::new();
    for (table, labels) in tables.iter().zip(labels) {
        let paths = columns::paths(table).map_err(|reason| damaged(table, reason))?;
        if splits.last().is_none_or(|(split, _)| *split != table.split) {
            splits.push((table.split, Vec::new()));
        }
        let Some((split, items)) = splits.last_mut() else {
            continue;
        };
        for row in 0..table.rows {
            let label = labels.get(row).copied().flatten();
            let reason = match label {
                Some(label) if label as usize >= classes.len() => {
                    let count = classes.len();
                    Some(format!(
                        "label {label}, expected less than {count}, the number of classes"
                    ))
                }
                None if *split != Split::Test => {
                    Some("no label, as only a test split may have".to_owned())
                }
                _ => None,
            };
            if let Some(reason) = reason {
                let file = table.path.display().to_string();
                problems.push(TreeProblem::Row { file, row, reason });
                continue;
            }
            let number = items.len();
            let name = match paths.get(row) {
                Some(path) if !path.is_empty() => format!("{}/{number}/{path}", split.name()),
                _ => format!("{}/{number}", split.name()),
            };
            items.push(Item {
                name,
                label,
                bbox: None,
                entry: table.first + row,
            });
        }
    }
    splits.retain(|(_, items)| !items.is_empty());
    if problems.is_empty() && !splits.iter().any(|(split, _)| *split == Split::Train) {
        problems.push(TreeProblem::NoImages);
    }
    Ok((super::distinct(classes), splits))
}
