//! Errors of the crates as exceptions of Python. `tinyres/errors.py` defines the classes; this module chooses one
//! and gives it its attributes.

use std::io;
use std::ops::Range;
use std::path::Path;

use pyo3::exceptions::{PyIndexError, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tinyres_format::{Error as Format, Part};
use tinyres_load::{Dataset, Error as Load};

/// An exception for an error of the loader.
pub(crate) fn load(error: Load) -> PyErr {
    match error {
        Load::Format(error) => format(error),
        Load::NoSplit { .. } | Load::Shift { .. } | Load::Slot { .. } | Load::TooMany { .. } => {
            PyValueError::new_err(error.to_string())
        }
        Load::NoImage { .. } => PyIndexError::new_err(error.to_string()),
        Load::Classes { ref path } => own("FormatError", error.to_string(), Some(path)),
        Load::Memory(_) => PyMemoryError::new_err(error.to_string()),
        Load::Thread(ref source) => os(source, None),
        _ => PyRuntimeError::new_err(error.to_string()),
    }
}

/// An exception for an error of the loader at work on `data`, which says which images a damaged block holds.
pub(crate) fn load_of(data: &Dataset, error: Load) -> PyErr {
    let damaged = match &error {
        Load::Format(Format::At { path, source }) => match &**source {
            Format::Checksum {
                part: Part::Block(block),
                ..
            } => data.images_of(path, *block),
            _ => None,
        },
        _ => None,
    };
    match error {
        Load::Format(error) => damage(error, damaged),
        other => load(other),
    }
}

/// An exception for an error of the format crate.
pub(crate) fn format(error: Format) -> PyErr {
    damage(error, None)
}

/// An exception for an error of the format crate that concerns these images of a split.
fn damage(error: Format, images: Option<Range<u32>>) -> PyErr {
    let text = error.to_string();
    let (path, inner) = match &error {
        Format::At { path, source } => (Some(path.as_path()), &**source),
        other => (None, other),
    };
    match inner {
        Format::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            own("NotFoundError", text, path)
        }
        Format::Io(source) => os(source, path),
        Format::Unfinished => own("NotFoundError", text, path),
        Format::Busy => own("InUseError", text, path),
        Format::Checksum { part, .. } => damaged("ChecksumError", text, path, Some(*part), images),
        Format::Mismatch { .. } | Format::Level { .. } => PyValueError::new_err(text),
        Format::Memory => PyMemoryError::new_err(text),
        _ => own("FormatError", text, path),
    }
}

/// An exception for a shard whose pages were lost while it was mapped.
pub(crate) fn lost(path: &Path) -> PyErr {
    let text = format!(
        "{}: its bytes can no longer be read: the disk failed, or the file was cut while in use; copy or pack it again, then open the set again",
        path.display()
    );
    own("ReadError", text, Some(path))
}

/// An `OSError` with the number of the system, which makes it a `PermissionError` and so on.
fn os(source: &io::Error, path: Option<&Path>) -> PyErr {
    let text = source.to_string();
    let Some(number) = source.raw_os_error() else {
        return PyOSError::new_err(match path {
            Some(path) => format!("{}: {text}", path.display()),
            None => text,
        });
    };
    // Python says the number itself.
    let text = text.strip_suffix(&format!(" (os error {number})"));
    let text = text.map_or_else(|| source.to_string(), str::to_owned);
    PyOSError::new_err((number, text, path.map(Path::to_owned)))
}

/// An exception of `tinyres.errors` about the file at `path`.
fn own(class: &'static str, text: String, path: Option<&Path>) -> PyErr {
    damaged(class, text, path, None, None)
}

/// An exception of `tinyres.errors` about a part of the file at `path`, and the images of the split that lie there.
fn damaged(
    class: &'static str,
    text: String,
    path: Option<&Path>,
    part: Option<Part>,
    images: Option<Range<u32>>,
) -> PyErr {
    let path = path.map(|path| path.as_os_str().to_owned());
    Python::attach(|py| {
        let build = || -> PyResult<Bound<'_, PyAny>> {
            let class = py.import("tinyres.errors")?.getattr(class)?;
            let values = PyDict::new(py);
            values.set_item("path", path)?;
            if let Some(part) = part {
                values.set_item("part", part.to_string())?;
            }
            if let Some(Part::Block(block)) = part {
                values.set_item("block", block)?;
            }
            if let Some(images) = images {
                values.set_item("images", (images.start, images.end))?;
            }
            class.call((text,), Some(&values))
        };
        build().map_or_else(|error| error, PyErr::from_value)
    })
}
