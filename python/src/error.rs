//! Errors of the crates as exceptions of Python. `tinyres/errors.py` defines the classes; this module chooses one
//! and gives it its attributes.

use std::io;
use std::ops::Range;
use std::path::Path;

use pyo3::exceptions::{PyIndexError, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tinyres::inspect::Error as Inspect;
use tinyres::pack::Error as Pack;
use tinyres::source::{Error as Source, Problem, Problems, ReadError};
use tinyres::unpack::{AtomicDirError, Error as Unpack};
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

/// An exception for an error of packing.
pub(crate) fn pack(error: Pack) -> PyErr {
    let text = error.to_string();
    match error {
        Pack::Source(error) => source(error),
        Pack::Format(error) => format(error),
        Pack::Output(error) => os(&error.reason, Some(&error.path)),
        Pack::Memory { .. } => PyMemoryError::new_err(text),
        Pack::Busy { output } => own("InUseError", translated(text), Some(&output)),
        Pack::Occupied { output, .. } | Pack::Leftover { output, .. } => {
            own("ExistsError", translated(text), Some(&output))
        }
        Pack::BadImages { images }
        | Pack::ManyLeftOut { images, .. }
        | Pack::NoneLeft { images, .. } => of_source(text, listed(&images)),
        Pack::NotSquare { .. } => of_source(text.clone(), vec![text]),
        Pack::TooManyShards { .. } => PyValueError::new_err(text),
        _ => PyRuntimeError::new_err(text),
    }
}

/// An exception for an error of inspection.
pub(crate) fn inspect(error: Inspect) -> PyErr {
    match error {
        Inspect::Format(error) => format(error),
        error => PyValueError::new_err(error.to_string()),
    }
}

/// An exception for an error of unpacking.
pub(crate) fn unpack(error: Unpack) -> PyErr {
    let text = error.to_string();
    match error {
        Unpack::Format(error) => format(error),
        Unpack::Unsound(_) => own("FormatError", translated(text), None),
        Unpack::Directory(AtomicDirError::Exists(path)) => {
            own("ExistsError", translated(text), Some(&path))
        }
        Unpack::Directory(AtomicDirError::Busy(path)) => {
            own("InUseError", translated(text), Some(&path))
        }
        Unpack::Directory(AtomicDirError::Output(error)) | Unpack::Output(error) => {
            os(&error.reason, Some(&error.path))
        }
        _ => PyRuntimeError::new_err(text),
    }
}

/// An exception for an error of a source.
pub(crate) fn source(error: Source) -> PyErr {
    let text = error.to_string();
    match error {
        Source::Open { path, reason } if reason.kind() == io::ErrorKind::NotFound => {
            own("NotFoundError", translated(text), Some(&path))
        }
        Source::Open { path, reason } => os(&reason, Some(&path)),
        Source::Read {
            file,
            reason: ReadError::Missing,
        } => own("NotFoundError", translated(text), Some(Path::new(&file))),
        Source::Temporary(error) => os(&error.reason, Some(&error.folder)),
        Source::Tree { problems, .. } => of_source(text, listed(&problems)),
        Source::HasVal { .. } | Source::HoldOut { .. } => PyValueError::new_err(translated(text)),
        _ => of_source(text.clone(), vec![text]),
    }
}

/// A `SourceError` with all problems that are kept.
fn of_source(text: String, problems: Vec<String>) -> PyErr {
    let problems = problems.into_iter().map(translated).collect::<Vec<_>>();
    built("SourceError", translated(text), |values| {
        values.set_item("problems", problems)
    })
}

fn listed<P: Problem>(problems: &Problems<P>) -> Vec<String> {
    problems.first().iter().map(ToString::to_string).collect()
}

/// A message whose flags of the command line are the arguments of Python.
pub(crate) fn in_python(py: Python<'_>, text: &str) -> PyResult<String> {
    let errors = py.import("tinyres.errors")?;
    errors.call_method1("_in_python", (text,))?.extract()
}

fn translated(text: String) -> String {
    Python::attach(|py| in_python(py, &text)).unwrap_or(text)
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
    built(class, text, |values| {
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
        Ok(())
    })
}

/// An exception of `tinyres.errors`, with the keywords that `fill` adds.
fn built(
    class: &str,
    text: String,
    fill: impl FnOnce(&Bound<'_, PyDict>) -> PyResult<()>,
) -> PyErr {
    Python::attach(|py| {
        let build = || -> PyResult<Bound<'_, PyAny>> {
            let class = py.import("tinyres.errors")?.getattr(class)?;
            let values = PyDict::new(py);
            fill(&values)?;
            class.call((text,), Some(&values))
        };
        build().map_or_else(|error| error, PyErr::from_value)
    })
}
