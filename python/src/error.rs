//! Errors of the crates as exceptions of Python. `tinyres/errors.py` defines the classes; this module chooses one
//! and gives it its attributes.

use std::io;
use std::path::Path;

use pyo3::exceptions::{PyIndexError, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tinyres_format::{BLOCK_IMAGES, Error as Format, Part};
use tinyres_load::Error as Load;

/// An exception for an error of the loader.
pub(crate) fn load(error: Load) -> PyErr {
    match error {
        Load::Format(error) => format(error),
        Load::NoSplit { .. } | Load::Shift { .. } | Load::Slot { .. } | Load::TooMany { .. } => {
            PyValueError::new_err(error.to_string())
        }
        Load::NoImage { .. } => PyIndexError::new_err(error.to_string()),
        Load::Classes { ref path } => {
            let text = error.to_string();
            own("FormatError", text, Some(path), None)
        }
        Load::Memory(_) => PyMemoryError::new_err(error.to_string()),
        Load::Thread(ref source) => os(source, None),
        _ => PyRuntimeError::new_err(error.to_string()),
    }
}

/// An exception for an error of the format crate.
pub(crate) fn format(error: Format) -> PyErr {
    let text = error.to_string();
    let (path, inner) = match &error {
        Format::At { path, source } => (Some(path.as_path()), &**source),
        other => (None, other),
    };
    match inner {
        Format::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            own("NotFoundError", text, path, None)
        }
        Format::Io(source) => os(source, path),
        Format::Unfinished => own("NotFoundError", text, path, None),
        Format::Busy => own("InUseError", text, path, None),
        Format::Checksum { part, .. } => own("ChecksumError", text, path, Some(*part)),
        Format::Mismatch { .. } | Format::Level { .. } => PyValueError::new_err(text),
        Format::Memory => PyMemoryError::new_err(text),
        _ => own("FormatError", text, path, None),
    }
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

/// An exception of `tinyres.errors`, with the attributes that the class has.
fn own(class: &str, text: String, path: Option<&Path>, part: Option<Part>) -> PyErr {
    let (path, class) = (path.map(Path::to_owned), class.to_owned());
    Python::attach(|py| {
        let build = || -> PyResult<Bound<'_, PyAny>> {
            let class = py.import("tinyres.errors")?.getattr(class)?;
            let values = PyDict::new(py);
            values.set_item("path", path)?;
            if let Some(Part::Block(block)) = part {
                let first = block * BLOCK_IMAGES as u64;
                values.set_item("block", block)?;
                values.set_item("images", (first, first + BLOCK_IMAGES as u64))?;
            }
            if let Some(part) = part {
                values.set_item("part", part.to_string())?;
            }
            class.call((text,), Some(&values))
        };
        build().map_or_else(|error| error, PyErr::from_value)
    })
}
