//! The program `tinyres` for those who install the package: the file `program/scripts/tinyres` loads this module.

use pyo3::prelude::*;

/// The program `tinyres`. It lies in the library of `tinyres._native`, but does not import NumPy as that does.
#[pymodule(gil_used = false)]
mod _program {
    use std::ffi::OsString;
    use std::path::PathBuf;
    use std::process;

    use pyo3::prelude::*;
    use tinyres::cli::{self, Started};

    /// Carries out the command of ``args``, of which the first is the file of the program, and ends the process.
    #[pyfunction]
    fn main(py: Python<'_>, args: Vec<OsString>) {
        let started = Started {
            file: Ok(args.first().map(PathBuf::from).unwrap_or_default()),
            args,
        };
        py.detach(|| process::exit(cli::main(&started).into()))
    }
}
