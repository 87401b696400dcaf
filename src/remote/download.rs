//! One file, fetched so that a broken transfer costs nothing: what came stays in `NAME.part`, with the version that the
//! server gave in `NAME.part.json`, and the next attempt asks for the rest of that version.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tinyres_format::publish;
use ureq::Body;
use ureq::http::{HeaderName, Response, header};

use super::http::{Client, Fault, TRIES, text};
use super::{Error, Fetched, Pace, Result, read};
use crate::event::{Event, Observer};
use crate::scratch::{check_room, output_error};

/// Bytes between two reports of progress.
const REPORT: u64 = 1 << 20;

/// Version of a file, as far as its server tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    /// Length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

impl Version {
    /// The version of the whole file that `response` is about.
    fn of(response: &Response<Body>) -> Self {
        let own = |name| text(response, &name).map(str::to_owned);
        Self {
            etag: own(header::ETAG),
            last_modified: own(header::LAST_MODIFIED),
            bytes: own(header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        }
    }

    /// The value by which a part of this version can be asked for: a strong entity tag, or a date.
    fn if_range(&self) -> Option<&String> {
        let strong = self.etag.as_ref().filter(|etag| !etag.starts_with("W/"));
        strong.or(self.last_modified.as_ref())
    }

    /// Headers that ask for the file only if it has another version.
    fn unless_same(&self) -> Vec<(HeaderName, String)> {
        match (&self.etag, &self.last_modified) {
            (Some(etag), _) => vec![(header::IF_NONE_MATCH, etag.clone())],
            (None, Some(date)) => vec![(header::IF_MODIFIED_SINCE, date.clone())],
            (None, None) => Vec::new(),
        }
    }
}

/// Fetches the file at `url` into `files`, under the last part of its path. `None` if it is the same as `before`.
pub(super) fn file(
    client: &Client,
    url: &str,
    files: &Path,
    before: Option<&Fetched>,
    watch: &mut dyn Observer,
) -> Result<Option<Fetched>> {
    let name = name(url);
    let known = before.and_then(|before| before.version.as_ref());
    let download = Download {
        client,
        url,
        to: files.join(&name),
        headers: Vec::new(),
    };
    let version = download.run(known, watch)?;
    Ok(version.map(|version| Fetched {
        source: PathBuf::from(name),
        commit: None,
        version: Some(version),
    }))
}

/// The name of the file at `url`: the last part of its path, decoded, without what a file's name cannot have.
fn name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let last = path
        .split_once('/')
        .and_then(|(_, path)| path.rsplit('/').find(|part| !part.is_empty()));
    let decoded =
        percent_encoding::percent_decode_str(last.unwrap_or_default()).decode_utf8_lossy();
    let name: String = (decoded.chars().filter(|at| *at != '/' && !at.is_control()))
        .take(100)
        .collect();
    match name.trim_matches('.').is_empty() {
        true => "source".to_owned(),
        false => name,
    }
}

/// A file to fetch.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub url: &'a str,
    /// The file that it becomes.
    pub to: PathBuf,
    /// Headers of each request.
    pub headers: Vec<(HeaderName, String)>,
}

impl Download<'_> {
    /// Fetches the file, unless it has the version `known` and is there. Returns its version, `None` if it was not fetched.
    pub(super) fn run(
        &self,
        known: Option<&Version>,
        watch: &mut dyn Observer,
    ) -> Result<Option<Version>> {
        if let Some(dir) = self.to.parent() {
            fs::create_dir_all(dir).map_err(output_error(dir))?;
        }
        let part = self.beside(".part");
        let progress = || fs::metadata(&part).map_or(0, |part| part.len());
        let tries = match known {
            // The file that is there will do.
            Some(_) if progress() == 0 => 0,
            _ => TRIES,
        };
        (self.client).retry(self.url, tries, progress, || self.attempt(known, watch))
    }

    /// The path of the file with `end` after its name.
    fn beside(&self, end: &str) -> PathBuf {
        let mut name = self.to.file_name().unwrap_or_default().to_owned();
        name.push(end);
        self.to.with_file_name(name)
    }

    fn attempt(
        &self,
        known: Option<&Version>,
        watch: &mut dyn Observer,
    ) -> std::result::Result<Option<Version>, Fault> {
        let (part, note) = (self.beside(".part"), self.beside(".part.json"));
        let begun: Option<Version> = read(&note);
        let have = fs::metadata(&part).map_or(0, |part| part.len());
        let begun = begun.filter(|begun| have > 0 && begun.if_range().is_some());
        let mut headers = self.headers.clone();
        match (&begun, known) {
            (Some(begun), _) => {
                headers.push((header::RANGE, format!("bytes={have}-")));
                let version = begun.if_range().cloned().unwrap_or_default();
                headers.push((header::IF_RANGE, version));
            }
            (None, Some(known)) => headers.extend(known.unless_same()),
            (None, None) => {}
        }
        let response = self.client.get(self.url, &headers)?;
        let forget = || -> Fault {
            // The next attempt begins from the start.
            let _: io::Result<()> = fs::remove_file(&part).and_then(|()| fs::remove_file(&note));
            Fault::passing("the server sent another part of the file than was asked for")
        };
        let (version, start) = match (response.status().as_u16(), begun) {
            (304, _) => return Ok(None),
            (206, Some(begun)) => {
                let etag = text(&response, &header::ETAG);
                let same = etag.is_none() || etag == begun.etag.as_deref();
                if !same || !starts_at(&response, have) {
                    return Err(forget());
                }
                (begun, have)
            }
            (416, Some(begun)) if begun.bytes == Some(have) => {
                return self.finish(&part, &note, begun).map(Some);
            }
            (200, _) => {
                let version = Version::of(&response);
                if known.is_some_and(|known| known.bytes.is_some() && *known == version) {
                    // A server that does not answer whether it has changed.
                    return Ok(None);
                }
                (version, 0)
            }
            _ => return Err(forget()),
        };
        let got = self.receive(response, &part, &note, &version, start, watch)?;
        if let Some(bytes) = version.bytes
            && got != bytes
        {
            let reason = format!("the server ended after {got} of {bytes} bytes");
            return Err(Fault::passing(reason));
        }
        self.finish(&part, &note, version).map(Some)
    }

    /// Writes the body of `response` to `part` from `start` on. Returns the length of the file then.
    fn receive(
        &self,
        response: Response<Body>,
        part: &Path,
        note: &Path,
        version: &Version,
        start: u64,
        watch: &mut dyn Observer,
    ) -> std::result::Result<u64, Fault> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| Fault::Lasting(Error::from(output_error(&path)(error)))
        };
        let mut options = File::options();
        options.create(true).write(true);
        let mut file = match start {
            0 => options.truncate(true).open(part),
            _ => options.truncate(false).append(true).open(part),
        }
        .map_err(write(part))?;
        let json = serde_json::to_vec(version).map_err(io::Error::from);
        (json.and_then(|json| publish::write(note, &json))).map_err(write(note))?;
        if let (Some(bytes), Some(dir)) = (version.bytes, part.parent()) {
            check_room(dir, bytes - start.min(bytes)).map_err(Error::from)?;
            watch.on(&Event::Begin {
                task: format!(
                    "fetching {}",
                    self.to.file_name().unwrap_or_default().display()
                ),
                unit: "kB",
                total: bytes / 1000,
            });
        }
        let (mut body, mut at, mut reported) = (response.into_body().into_reader(), start, 0);
        let mut buffer = vec![0; 1 << 16];
        let mut pace = Pace::new(self.client.patience);
        let received = loop {
            let began = Instant::now();
            let came = body.read(&mut buffer);
            let waited = began.elapsed();
            match came {
                Ok(0) => break Ok(at),
                Ok(got) => {
                    file.write_all(&buffer[..got]).map_err(write(part))?;
                    at += got as u64;
                    if at - reported >= REPORT {
                        reported = at;
                        watch.on(&Event::Advance { done: at / 1000 });
                    }
                    if let Err(slow) = pace.came(got, waited) {
                        break Err(Fault::passing(slow.to_string()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(Fault::passing(error.to_string())),
            }
        };
        watch.on(&Event::End);
        file.sync_all().map_err(write(part))?;
        received
    }

    /// Gives the file, which is whole, its name.
    fn finish(
        &self,
        part: &Path,
        note: &Path,
        version: Version,
    ) -> std::result::Result<Version, Fault> {
        let renamed = fs::rename(part, &self.to).and_then(|()| publish::sync_parent(&self.to));
        renamed.map_err(|error| Fault::Lasting(output_error(&self.to)(error).into()))?;
        // A note without a part is not read.
        let _: io::Result<()> = fs::remove_file(note);
        Ok(version)
    }
}

/// True if `response` has the part of a file from `start` on: `Content-Range: bytes START-END/LENGTH`.
fn starts_at(response: &Response<Body>, start: u64) -> bool {
    let range = text(response, &header::CONTENT_RANGE);
    let from = range.and_then(|range| {
        range
            .strip_prefix("bytes ")?
            .split('-')
            .next()?
            .parse()
            .ok()
    });
    from == Some(start)
}
