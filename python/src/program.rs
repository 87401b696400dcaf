//! The program `tinyres` for those who install the package: the file `program/scripts/tinyres` loads this module.

use pyo3::prelude::*;

/// The program `tinyres`. It lies in the library of `tinyres._native`, but does not import NumPy as that does.
#[pymodule(gil_used = false)]
mod _program {
    use std::ffi::OsString;
    use std::path::Path;
    use std::process;

    use pyo3::prelude::*;
    use tinyres::cli;

    /// Carries out the command of ``args``, of which the first is the file of the program, and ends the process.
    #[pyfunction]
    fn main(py: Python<'_>, args: Vec<OsString>) {
        let file = args.first().map(Path::new);
        py.detach(|| process::exit(cli::main(&args, file).into()))
    }
}
