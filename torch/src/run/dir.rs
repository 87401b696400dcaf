//! The directory of a run, as the process has it that trains there: locked against others, and removed again if nothing
//! comes of the run.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tinyres_format::publish::{Lock, lock};

use crate::{Error, Result};

/// Where runs are, unless they are given a directory of their own.
const RUNS: &str = "runs";

/// A directory in which no other process trains, until this is dropped.
#[derive(Debug)]
pub(super) struct RunDir {
    pub path: PathBuf,
    /// Holds the lock; `None` if the file system has none.
    lock: Option<File>,
    /// Files and directories that this process has created, in that order.
    made: Vec<PathBuf>,
}

impl RunDir {
    /// The directory at `path`, in which another process trains.
    pub(super) fn elsewhere(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            lock: None,
            made: Vec::new(),
        }
    }

    /// The directory at `path`, which is there.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let lock = match lock(&file).map_err(Error::io(path))? {
            Lock::Held => Some(file),
            Lock::Unsupported => None,
            Lock::Busy => {
                return Err(Error::RunBusy {
                    dir: path.to_path_buf(),
                });
            }
        };
        Ok(Self {
            path: path.to_path_buf(),
            lock,
            made: Vec::new(),
        })
    }

    /// The directory at `path`, which is created if missing, with those that it is in.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let is_new = !path.exists();
        fs::create_dir_all(path).map_err(Error::io(path))?;
        if is_new {
            Self::open_new(path)
        } else {
            Self::open(path)
        }
    }

    /// The directory at `path`, which this process has created. It is removed again if it cannot be opened.
    fn open_new(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Ok(mut dir) => {
                dir.note_made(path);
                Ok(dir)
            }
            // Another process is about to begin a run there.
            Err(error @ Error::RunBusy { .. }) => Err(error),
            Err(error) => {
                let _ = fs::remove_dir(path);
                Err(error)
            }
        }
    }

    /// The first of `runs/RECIPE-1`, `runs/RECIPE-2` and so on that is not there, also when other processes look for one
    /// at the same time.
    pub(super) fn create_next(recipe: &str) -> Result<Self> {
        let runs = Path::new(RUNS);
        fs::create_dir_all(runs).map_err(Error::io(runs))?;
        for number in 1_u64.. {
            let path = runs.join(format!("{recipe}-{number}"));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(&path)(error)),
                Ok(()) => return Self::open_new(&path),
            }
        }
        unreachable!("fewer than 2^64 runs")
    }

    /// True if no other process can train here, false if the file system has no locks.
    pub(super) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Takes note of something that this process has created.
    pub(super) fn note_made(&mut self, path: &Path) {
        self.made.push(path.to_path_buf());
    }

    /// Removes what this process has created.
    pub(super) fn remove_made(self) {
        for path in self.made.iter().rev() {
            // A failure costs nothing: the run can be resumed from its first step. A directory stays if it is not empty.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}
