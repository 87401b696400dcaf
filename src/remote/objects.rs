//! Sets in object stores and on web servers, which the program `tinyres-remote` fetches and publishes.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tinyres_format::MANIFEST;

use super::relay::Message;
use super::{Error, Result};
use crate::event::Observer;
use crate::siblings;

/// The program. The clients of object stores are large, so that no other program has them.
const NAME: &str = "tinyres-remote";
/// Schemes of object stores.
const SCHEMES: [&str; 9] = [
    "s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "wasbs",
];

/// True if an address of this scheme lies in an object store.
pub(super) fn is_store(scheme: &str) -> bool {
    SCHEMES.contains(&scheme)
}

/// True if an address of this scheme, with `rest` after it, names a set and not a source: it lies in an object store,
/// or it is a URL of a directory or of a manifest.
pub(super) fn is_set(scheme: &str, rest: &str) -> bool {
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let is_directory = || {
        let (_, path) = path.split_once('/').unwrap_or_default();
        path.ends_with('/') || path.rsplit('/').next() == Some(MANIFEST)
    };
    is_store(scheme) || (matches!(scheme, "http" | "https") && is_directory())
}

/// The directory in `cache` of the set at `address`, which is fetched unless it is there.
pub(super) fn fetch(address: &str, cache: &Path, watch: &mut dyn Observer) -> Result<PathBuf> {
    let cache = cache.as_os_str();
    let result = run(
        &[
            "fetch".as_ref(),
            address.as_ref(),
            "--cache".as_ref(),
            cache,
        ],
        address,
        watch,
    )?;
    match result.get("dir").and_then(Value::as_str) {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => Err(Error::Objects(format!(
            "{address}: tinyres-remote is of another version: install both of one version"
        ))),
    }
}

/// Publishes the set in the directory `dir` at `address`, in place of another one if `force`.
///
/// # Errors
/// The store refuses it, or there is no `tinyres-remote`.
pub fn publish(dir: &Path, address: &str, force: bool, watch: &mut dyn Observer) -> Result<()> {
    let mut args: Vec<&OsStr> = vec!["publish".as_ref(), dir.as_os_str(), address.as_ref()];
    args.extend(force.then_some::<&OsStr>("--force".as_ref()));
    run(&args, address, watch).map(drop)
}

/// Runs the program with `args`, tells `watch` what it says, and returns its result.
fn run(args: &[&OsStr], address: &str, watch: &mut dyn Observer) -> Result<Value> {
    let failed = |reason: String| Error::Objects(format!("{address}: tinyres-remote: {reason}"));
    let mut command = siblings::command(NAME).map_err(|error| failed(error.to_string()))?;
    command.args(args).arg("--events").stdin(Stdio::null());
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::Objects(format!(
                "{address}: this needs {NAME}, which is neither next to this program nor in PATH: install it with \
                 `pip install 'tinyres[remote]'`, or build it with `cargo build --release -p tinyres-remote`"
            )));
        }
        child => child.map_err(|error| failed(error.to_string()))?,
    };
    let mut result = None;
    let lines = child.stdout.take().map(BufReader::new);
    for line in lines.into_iter().flat_map(BufRead::lines) {
        let message = line.map(|line| serde_json::from_str::<Message>(&line));
        match message {
            Ok(Ok(message)) => result = message.tell(watch).or(result),
            // The rest of its output is of no use, and its exit status says more.
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    match result {
        Some(Ok(result)) if status.success() => Ok(result),
        Some(Err(error)) => Err(Error::Objects(error)),
        _ => Err(failed(format!("ended with {status}"))),
    }
}
