//! The columns of images and labels in a Parquet file, and the names of the classes in its metadata.

use std::collections::BTreeMap;

use ::parquet::basic::Type;
use ::parquet::column::reader::ColumnReaderImpl;
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use ::parquet::file::metadata::ParquetMetaData;
use serde::Deserialize;

use super::Table;
use super::rows::{guarded, page_reader};
use crate::text::counted;

/// Maximum number of classes without names: a forged label must not fill the memory.
pub(super) const MAX_UNNAMED: u32 = 1 << 16;
/// Names of columns of images and of labels, the likeliest first.
const IMAGES: &[&str] = &["image", "img", "picture", "jpg", "png", "image_bytes"];
const LABELS: &[&str] = &["label", "labels", "fine_label", "class", "target", "cls"];
/// Rows read at once.
const BATCH: usize = 4096;

/// Columns by their index among the leaves of the schema.
#[derive(Debug)]
pub(super) struct Columns {
    pub image: usize,
    /// The file name next to the bytes.
    path: Option<usize>,
    label: Option<usize>,
    /// The names of the classes in label order, if the metadata has them.
    pub classes: Option<Vec<String>>,
}

/// Value of the key `huggingface`.
#[derive(Deserialize)]
struct Info {
    info: Features,
}

#[derive(Deserialize)]
struct Features {
    features: BTreeMap<String, serde_json::Value>,
}

impl Columns {
    /// Finds the columns, or says what the file lacks.
    pub fn find(metadata: &ParquetMetaData) -> Result<Self, String> {
        let schema = metadata.file_metadata().schema_descr();
        let features = features(metadata)?;
        let paths: Vec<String> = (schema.columns().iter())
            .map(|column| column.path().string())
            .collect();
        let is_bytes = |at: usize| schema.column(at).physical_type() == Type::BYTE_ARRAY;
        let found = |name: &str| paths.iter().position(|path| path == name);
        let of_type = |kind: &str| -> Vec<&String> {
            let is = |value: &serde_json::Value| value.get("_type").is_some_and(|it| it == kind);
            let features = features.iter().filter(|(_, value)| is(value));
            features.map(|(name, _)| name).collect()
        };
        // By the metadata; else by the shape of the schema; else by name.
        let mut images: Vec<usize> = (of_type("Image").iter())
            .filter_map(|name| found(&format!("{name}.bytes")))
            .collect();
        if images.is_empty() {
            images = (0..paths.len())
                .filter(|&at| paths[at].ends_with(".bytes"))
                .collect();
        }
        if images.is_empty() {
            images = IMAGES.iter().filter_map(|name| found(name)).collect();
        }
        images.retain(|&at| is_bytes(at) && schema.column(at).max_rep_level() == 0);
        let likely = |name: &str| images.iter().copied().find(|&at| group(&paths[at]) == name);
        let image = match *images {
            [image] => image,
            [] => {
                return Err(format!(
                    "no column of encoded images, such as image.bytes, among {}; write the set by `datasets` with embedded images",
                    paths.join(", ")
                ));
            }
            _ => IMAGES.iter().find_map(|name| likely(name)).ok_or_else(|| {
                let names: Vec<&str> = images.iter().map(|&at| group(&paths[at])).collect();
                format!(
                    "several columns of images, expected one: {}; call one of them image",
                    names.join(", ")
                )
            })?,
        };
        let path = found(&format!("{}.path", group(&paths[image])));
        let path = path.filter(|&at| is_bytes(at) && schema.column(at).max_rep_level() == 0);

        let labels = of_type("ClassLabel");
        let name = match labels.as_slice() {
            [label] => Some(label.as_str()),
            labels => LABELS.iter().copied().find(|name| {
                if labels.is_empty() {
                    found(name).is_some()
                } else {
                    labels.iter().any(|label| label == name)
                }
            }),
        };
        if name.is_none() && !labels.is_empty() {
            let names: Vec<&str> = labels.iter().map(|name| name.as_str()).collect();
            return Err(format!(
                "several columns of labels, expected one: {}; call one of them label",
                names.join(", ")
            ));
        }
        let label = name.and_then(found);
        let classes = name.and_then(|name| features.get(name)).and_then(|value| {
            let names = value.get("names")?.as_array()?;
            let names = names.iter().map(|name| name.as_str().map(str::to_owned));
            names.collect()
        });
        if let Some(at) = label {
            let column = schema.column(at);
            let kind = column.physical_type();
            if column.max_rep_level() > 0 || !matches!(kind, Type::INT32 | Type::INT64) {
                return Err(format!(
                    "column {} has values of type {kind}, expected one integer a row; cast it by `datasets` to ClassLabel",
                    paths[at]
                ));
            }
        }
        Ok(Self {
            image,
            path,
            label,
            classes,
        })
    }
}

/// The name of the top-level column of a leaf.
fn group(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// The features that `datasets` wrote, by column.
fn features(metadata: &ParquetMetaData) -> Result<BTreeMap<String, serde_json::Value>, String> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let pair = pairs
        .into_iter()
        .flatten()
        .find(|pair| pair.key == "huggingface");
    let Some(text) = pair.and_then(|pair| pair.value.as_ref()) else {
        return Ok(BTreeMap::new());
    };
    let info: Info = serde_json::from_str(text).map_err(|reason| {
        format!("its metadata `huggingface` is not as expected: {reason}; download it again")
    })?;
    Ok(info.info.features)
}

/// The label of each row: none if it is null or negative, as the Hub marks unknown ones. Empty without a
/// column of labels.
pub(super) fn labels(table: &Table) -> Result<Vec<Option<u32>>, String> {
    let Some(column) = table.columns.label else {
        return Ok(Vec::new());
    };
    let label = |value: i64| match u32::try_from(value) {
        Ok(label) => Ok(Some(label)),
        Err(_) if value < 0 => Ok(None),
        Err(_) => Err(format!(
            "has a label of {value}, expected a number of a class"
        )),
    };
    let schema = table.metadata.file_metadata().schema_descr();
    let values: Vec<Option<i64>> = match schema.column(column).physical_type() {
        Type::INT32 => values::<Int32Type, _>(table, column, |&value| i64::from(value))?,
        _ => values::<Int64Type, _>(table, column, |&value| value)?,
    };
    values
        .into_iter()
        .map(|value| value.map_or(Ok(None), label))
        .collect()
}

/// The last part of the file name of each row, or an empty one. Empty without a column of them.
pub(super) fn paths(table: &Table) -> Result<Vec<String>, String> {
    let Some(column) = table.columns.path else {
        return Ok(Vec::new());
    };
    let name = |value: &ByteArray| {
        let path = value.as_utf8().unwrap_or_default();
        path.rsplit(['/', '\\'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let names = values::<ByteArrayType, _>(table, column, name)?;
    Ok(names.into_iter().map(Option::unwrap_or_default).collect())
}

/// All values of a column that has at most one in a row.
fn values<T: DataType, V>(
    table: &Table,
    column: usize,
    value: impl Fn(&T::T) -> V,
) -> Result<Vec<Option<V>>, String> {
    let mut all = Vec::new();
    for group in 0..table.metadata.num_row_groups() {
        let damaged =
            |reason| format!("damaged in row group {group}: {reason}; copy or download it again");
        let rows = table
            .metadata
            .row_group(group)
            .num_rows()
            .try_into()
            .unwrap_or(0);
        let pages = page_reader(table, group, column).map_err(damaged)?;
        let descriptor = table.metadata.file_metadata().schema_descr().column(column);
        let present = descriptor.max_def_level();
        let mut reader = ColumnReaderImpl::<T>::new(descriptor, pages);
        let (mut read, mut values, mut levels) = (0, Vec::new(), Vec::new());
        while read < rows {
            values.clear();
            levels.clear();
            let most = BATCH.min(rows - read);
            let (reader, levels, values) = (&mut reader, &mut levels, &mut values);
            let (records, ..) = guarded(|| reader.read_records(most, Some(levels), None, values))
                .map_err(damaged)?;
            if records == 0 {
                return Err(damaged(format!(
                    "{}, expected {rows}",
                    counted(read, "row")
                )));
            }
            let mut values = values.iter();
            for row in 0..records {
                let is_there = levels.get(row).is_none_or(|&level| level == present);
                all.push(is_there.then(|| values.next().map(&value)).flatten());
            }
            read += records;
        }
    }
    Ok(all)
}
