//! Columns as a Parquet file, by the `parquet` crate.

use std::fmt::Write as _;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArrayType, DataType, FloatType, Int32Type};
use parquet::errors::Result;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::columns::{Column, Values};

/// The key of the metadata.
const KEY: &str = "tinyres";

/// The file of `columns`, which have as many rows each, with `metadata`.
pub(super) fn encode(columns: &[Column], metadata: String) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(KEY.to_owned(), metadata)]))
        .build();
    let schema = Arc::new(parse_message_type(&schema(columns))?);
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut rows = file.next_row_group()?;
    for (_, values) in columns {
        let Some(mut column) = rows.next_column()? else {
            break;
        };
        match values {
            Values::Integers(values) => write::<Int32Type>(&mut column, values, None)?,
            Values::Floats(values) => write::<FloatType>(&mut column, values, None)?,
            Values::Texts(values) => write::<ByteArrayType>(&mut column, values, None)?,
            Values::IntegerLists(values, width) => {
                write::<Int32Type>(&mut column, values, Some(*width))?;
            }
            Values::FloatLists(values, width) => {
                write::<FloatType>(&mut column, values, Some(*width))?;
            }
        }
        column.close()?;
    }
    rows.close()?;
    file.into_inner()
}

/// Writes a column of values, or of lists of `width` elements.
fn write<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: &[T::T],
    width: Option<usize>,
) -> Result<()> {
    // Of a list, each element is there (definition level 1), and each but the first repeats its row (level 1).
    let defined = width.map(|_| vec![1; values.len()]);
    let repeated = width.map(|width| {
        let repeated = (0..values.len()).map(|at| i16::from(at % width != 0));
        repeated.collect::<Vec<_>>()
    });
    let (defined, repeated) = (defined.as_deref(), repeated.as_deref());
    column.typed::<T>().write_batch(values, defined, repeated)?;
    Ok(())
}

/// The schema as Parquet's text.
fn schema(columns: &[Column]) -> String {
    let list = |name: &str, element: &str| {
        format!(
            "required group {name} (LIST) {{ repeated group list {{ required {element} element; }} }}"
        )
    };
    let mut schema = String::from("message predictions {");
    for (name, values) in columns {
        let field = match values {
            Values::Integers(_) => format!("required int32 {name};"),
            Values::Floats(_) => format!("required float {name};"),
            Values::Texts(_) => format!("required binary {name} (STRING);"),
            Values::IntegerLists(..) => list(name, "int32"),
            Values::FloatLists(..) => list(name, "float"),
        };
        let _ = write!(schema, " {field}");
    }
    schema + " }"
}
