//! The limit of files that a process may have open. A set may have a thousand files, and a compressed one is an open
//! temporary file while it is read.

use std::fmt;
use std::io;

use nix::libc::{EMFILE, ENFILE};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, as far as the system lets it. For programs: the limit is the process's.
pub(crate) fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // A failure is ignored: most sets do with fewer files.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The remedy of `error`: for too many open files, to raise their limit, for others `otherwise`.
pub(crate) struct Remedy<'a>(pub &'a io::Error, pub &'static str);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.raw_os_error() {
            Some(EMFILE | ENFILE) => "raise the limit of open files (ulimit -n)",
            _ => self.1,
        })
    }
}
