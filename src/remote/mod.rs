//! Sources behind an address: a file at `http://` or `https://`, or a data set of the Hugging Face Hub at
//! `hf://datasets/OWNER/NAME`. They are fetched to the cache once, and read there as any source. Packed sets in object
//! stores, too: `tinyres-remote` fetches these.
//!
//! | in the cache directory | content |
//! |---|---|
//! | `sources/NAME/files/` | what was fetched; `NAME` is a digest of the address |
//! | `sources/NAME/fetched.json` | what the servers said of it, written when all of it is there |
//! | `sources/NAME.json` | the address; its modification time is that of the last use |
//!
//! Each start asks the server if the source has changed. If it does not answer, what was fetched is used. A fetch that was
//! broken off goes on where it stopped, if the server gives parts of files and has the same file still.

mod download;
mod error;
mod http;
mod hub;
mod objects;
mod pace;
pub mod relay;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tinyres_format::publish;

pub use error::{Error, Result};
pub use objects::publish;
pub use pace::{Pace, STEP, Slow};

use crate::cache::Place;
use crate::event::{Event, Observer};
use crate::scratch::output_error;
use download::Version;
use http::Client;
use hub::DataSet;

/// A source that does not lie on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    /// A file at a URL.
    Url(String),
    /// Files of the Hugging Face Hub.
    Hub(DataSet),
}

impl Address {
    /// The address that `path` is; `None` if it has not the form of one.
    fn of(path: &Path) -> Result<Option<Self>> {
        let Some((text, scheme, rest)) = split(path) else {
            return Ok(None);
        };
        match scheme.as_str() {
            "http" | "https" if !rest.is_empty() => Ok(Some(Self::Url(text.to_owned()))),
            "hf" => Ok(Some(Self::Hub(DataSet::parse(text, rest)?))),
            _ => Err(Error::Scheme {
                address: text.to_owned(),
            }),
        }
    }
}

/// The text of an address, its scheme in lower case, and what comes after `://`; `None` if `path` has not the form of one.
fn split(path: &Path) -> Option<(&str, String, &str)> {
    let text = path.to_str()?;
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = |at: char| at.is_ascii_alphanumeric() || "+-.".contains(at);
    let is_address = !scheme.is_empty() && scheme.chars().all(is_scheme);
    is_address.then(|| (text, scheme.to_ascii_lowercase(), rest))
}

/// A source that was fetched, with its version.
#[derive(Debug, Serialize, Deserialize)]
struct Fetched {
    /// The file or directory below `files` that is the source.
    source: PathBuf,
    /// The commit of a data set of the Hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    /// The version of the file at a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
}

/// True if `path` is an address, and not a file.
#[must_use]
pub fn is_address(path: &Path) -> bool {
    split(path).is_some()
}

/// The address in `path` if it is one of a packed set, which `tinyres-remote` fetches.
#[must_use]
pub fn set_address(path: &Path) -> Option<&str> {
    let (text, scheme, rest) = split(path)?;
    (!rest.is_empty() && objects::is_set(&scheme, rest)).then_some(text)
}

/// The address in `path` if it is one in an object store, where `tinyres-remote` can publish a set; `None` if it is a
/// directory.
///
/// # Errors
/// [`Error::ReadOnly`]: it is another address.
pub fn store_address(path: &Path) -> Result<Option<&str>> {
    match split(path) {
        None => Ok(None),
        Some((text, scheme, _)) if objects::is_store(&scheme) => Ok(Some(text)),
        Some((text, ..)) => Err(Error::ReadOnly {
            address: text.to_owned(),
        }),
    }
}

/// The local source or set for `path`: `path` itself, or what was fetched to `cache` if it is an address.
///
/// # Errors
/// The address is malformed or its server fails, and nothing was fetched before; or the cache cannot be written.
pub fn local<'a>(
    path: &'a Path,
    cache: Option<&Path>,
    watch: &mut dyn Observer,
) -> Result<Cow<'a, Path>> {
    let shown = path.display().to_string();
    let cache = || {
        cache.ok_or_else(|| Error::NoCache {
            address: shown.clone(),
        })
    };
    if let Some(address) = set_address(path) {
        let dir = objects::fetch(address, cache()?, watch)?;
        Place::at(&dir).hold();
        return Ok(Cow::Owned(dir));
    }
    let Some(address) = Address::of(path)? else {
        return Ok(Cow::Borrowed(path));
    };
    let client = Client::new(http::PATIENCE)?;
    let fetch = Fetch::new(&client, cache()?, path);
    fetch.run(&address, &shown, watch).map(Cow::Owned)
}

/// The fetch of one address to its place in the cache.
struct Fetch<'a> {
    client: &'a Client,
    place: Place,
    address: &'a Path,
}

impl<'a> Fetch<'a> {
    fn new(client: &'a Client, cache: &Path, address: &'a Path) -> Self {
        Self {
            client,
            place: Place::of_source(cache, address),
            address,
        }
    }

    fn run(&self, address: &Address, shown: &str, watch: &mut dyn Observer) -> Result<PathBuf> {
        let dir = self.place.dir();
        let waiting = format!(
            "{shown}: another tinyres is fetching it to {}",
            dir.display()
        );
        let locked = self.place.lock(watch, waiting).map_err(Error::cache)?;
        let state = dir.join("fetched.json");
        let files = dir.join("files");
        let before: Option<Fetched> = read(&state);
        let before = before.filter(|before| files.join(&before.source).exists());
        let fetched = match address {
            Address::Url(url) => download::file(self.client, url, &files, before.as_ref(), watch),
            Address::Hub(set) => hub::fetch(self.client, set, &files, before.as_ref(), watch),
        };
        let fetched = match (fetched, before) {
            (Ok(None), Some(before)) => before,
            (Ok(Some(fetched)), _) => {
                let json = serde_json::to_vec(&fetched).map_err(std::io::Error::from);
                let written = json.and_then(|json| publish::write(&state, &json));
                written.map_err(output_error(&state))?;
                locked.record(self.address).map_err(Error::cache)?;
                fetched
            }
            // Nothing new, but then there was something before.
            (Ok(None), None) => return Err(Error::answer(shown, "it has not changed")),
            (Err(error), Some(before)) if error.is_of_the_server() => {
                watch.on(&Event::Notice(format!(
                    "{error}; using what was fetched before"
                )));
                before
            }
            (Err(error), _) => return Err(error),
        };
        let source = files.join(&fetched.source);
        let notice = format!("{shown}: using {}", source.display());
        self.place.found(watch, notice);
        Ok(source)
    }
}

/// The JSON at `path`, if it is there and whole.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests;
