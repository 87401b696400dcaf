//! Data sets of the Hugging Face Hub: their Parquet files at one commit, by the Hub's API. `HF_ENDPOINT` names another
//! server, and `HF_TOKEN` opens data sets that ask for a login.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use ureq::http::{HeaderName, header};

use super::download::Download;
use super::http::{Client, Fault, TRIES, text};
use super::{Error, Fetched, Result};
use crate::event::{Event, Observer};
use crate::scratch::output_error;
use crate::text::counted;

const ENDPOINT: &str = "https://huggingface.co";
/// Characters that stand for something else in the path of a URL.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`');
/// The same, in one part of a path.
const ESCAPED_PART: &AsciiSet = &ESCAPED.add(b'/');
/// Revisions that have slashes in their names.
const REFS: [&str; 2] = ["refs/convert/", "refs/pr/"];

/// A data set, or a part of it, as `hf://datasets/OWNER/NAME[@REVISION][/PATH]` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DataSet {
    /// `OWNER/NAME`.
    id: String,
    revision: String,
    /// A file or a folder; empty for all.
    path: String,
}

impl DataSet {
    /// The data set that `address` names, whose part after `hf://` is `rest`.
    pub(super) fn parse(address: &str, rest: &str) -> Result<Self> {
        let malformed = || Error::Hub {
            address: address.to_owned(),
        };
        let rest = rest.strip_prefix("datasets/").ok_or_else(malformed)?;
        let (owner, rest) = rest.split_once('/').ok_or_else(malformed)?;
        let end = rest.find(['@', '/']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        if owner.is_empty() || name.is_empty() {
            return Err(malformed());
        }
        let (revision, path) = match rest.strip_prefix('@') {
            None => ("main", rest.trim_start_matches('/')),
            Some(rest) => {
                let prefix = REFS.iter().find(|prefix| rest.starts_with(*prefix));
                let from = prefix.map_or(0, |prefix| prefix.len());
                let end = rest[from..].find('/').map_or(rest.len(), |end| from + end);
                (&rest[..end], rest[end..].trim_start_matches('/'))
            }
        };
        if revision.is_empty() {
            return Err(malformed());
        }
        Ok(Self {
            id: format!("{owner}/{name}"),
            revision: percent_decode_str(revision)
                .decode_utf8_lossy()
                .into_owned(),
            path: path.trim_end_matches('/').to_owned(),
        })
    }
}

/// The server's answer about a revision.
#[derive(Deserialize)]
struct Revision {
    /// The commit.
    sha: String,
}

/// A file or folder of a data set.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    /// SHA-256 of the file.
    oid: String,
}

/// True if `url` is of the Hub.
pub(super) fn is_of_the_hub(url: &str) -> bool {
    let rest = url.strip_prefix(&endpoint()).unwrap_or_default();
    rest.starts_with("/api/datasets/") || rest.starts_with("/datasets/")
}

fn endpoint() -> String {
    let named = env::var("HF_ENDPOINT")
        .ok()
        .filter(|named| !named.is_empty());
    let endpoint = named.unwrap_or_else(|| ENDPOINT.to_owned());
    endpoint.trim_end_matches('/').to_owned()
}

/// Fetches the Parquet files of `set` into `files`. `None` if the commit is that of `before`.
pub(super) fn fetch(
    client: &Client,
    set: &DataSet,
    files: &Path,
    before: Option<&Fetched>,
    watch: &mut dyn Observer,
) -> Result<Option<Fetched>> {
    let hub = Hub {
        client,
        endpoint: endpoint(),
        headers: token(),
        tries: match before {
            // The files that are there will do.
            Some(_) => 0,
            None => TRIES,
        },
    };
    let commit = hub.commit(set)?;
    if before.and_then(|before| before.commit.as_ref()) == Some(&commit) {
        return Ok(None);
    }
    let entries = hub.entries(set, &commit)?;
    // A directory for each commit: none has files of another.
    let dir = files.join(&commit);
    for (number, entry) in (1..).zip(&entries) {
        if entries.len() > 1 {
            let all = counted(entries.len(), "file");
            watch.on(&Event::Notice(format!("{}: {number} of {all}", entry.path)));
        }
        hub.file(set, &commit, entry, &dir, watch)?;
    }
    remove_others(files, &commit).map_err(output_error(files))?;
    Ok(Some(Fetched {
        source: match entries.as_slice() {
            [only] if only.path == set.path => PathBuf::from(&commit).join(&only.path),
            _ => PathBuf::from(&commit).join(&set.path),
        },
        commit: Some(commit),
        version: None,
    }))
}

/// The header that logs in, if `HF_TOKEN` is set.
fn token() -> Vec<(HeaderName, String)> {
    let token = env::var("HF_TOKEN").ok().filter(|token| !token.is_empty());
    let value = token.map(|token| (header::AUTHORIZATION, format!("Bearer {}", token.trim())));
    value.into_iter().collect()
}

/// Removes the files of commits other than `commit`.
fn remove_others(files: &Path, commit: &str) -> io::Result<()> {
    for entry in fs::read_dir(files)? {
        let entry = entry?;
        if entry.file_name() != commit {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The Hub, or a server like it.
struct Hub<'a> {
    client: &'a Client,
    endpoint: String,
    headers: Vec<(HeaderName, String)>,
    tries: u32,
}

impl Hub<'_> {
    /// The answer to a GET of `url`, which is JSON, and the address of the next page.
    fn json<T: DeserializeOwned>(&self, url: &str) -> Result<(T, Option<String>)> {
        let attempt = || {
            let mut response = self.client.get(url, &self.headers)?;
            let next = text(&response, &header::LINK).and_then(next_page);
            let body = response.body_mut().read_to_string();
            let body = body.map_err(|error| Fault::passing(error.to_string()))?;
            let value = serde_json::from_str(&body)
                .map_err(|error| Error::answer(url, format!("not the Hub's answer: {error}")))?;
            Ok((value, next))
        };
        self.client.retry(url, self.tries, || 0, attempt)
    }

    /// The address of a further page, which the answer to `url` calls `next`. No other server gets the token.
    fn own(&self, url: &str, next: &str) -> Result<String> {
        let next = match next.starts_with('/') {
            true => format!("{}{next}", self.endpoint),
            false => next.to_owned(),
        };
        match next.starts_with(&format!("{}/", self.endpoint)) {
            true => Ok(next),
            false => Err(Error::answer(
                url,
                format!("its next page is elsewhere, at {next}"),
            )),
        }
    }

    /// The commit of the data set's revision.
    fn commit(&self, set: &DataSet) -> Result<String> {
        let revision = utf8_percent_encode(&set.revision, ESCAPED_PART);
        let url = format!(
            "{}/api/datasets/{}/revision/{revision}",
            self.endpoint, set.id
        );
        let (Revision { sha }, _) = self.json(&url)?;
        let is_hex = !sha.is_empty() && sha.bytes().all(|at| at.is_ascii_hexdigit());
        match is_hex {
            true => Ok(sha),
            false => Err(Error::answer(
                &url,
                format!("commit {sha:?} is not hexadecimal"),
            )),
        }
    }

    /// The Parquet files of the data set's path at `commit`, or the file that the path names.
    fn entries(&self, set: &DataSet, commit: &str) -> Result<Vec<Entry>> {
        let is_file = Path::new(&set.path).extension().is_some();
        let folder = match (is_file, set.path.rsplit_once('/')) {
            (false, _) => set.path.as_str(),
            (true, Some((folder, _))) => folder,
            (true, None) => "",
        };
        let tree = format!("{}/api/datasets/{}/tree/{commit}", self.endpoint, set.id);
        let folder = utf8_percent_encode(folder, ESCAPED).to_string();
        let slash = if folder.is_empty() { "" } else { "/" };
        let mut page = Some(format!("{tree}{slash}{folder}?recursive=true"));
        let mut entries = Vec::new();
        while let Some(url) = page {
            let (more, next): (Vec<Entry>, _) = self.json(&url)?;
            entries.extend(more);
            page = next.map(|next| self.own(&url, &next)).transpose()?;
        }
        entries.retain(|entry| {
            let wanted = match is_file {
                true => entry.path == set.path,
                false => entry.path.to_ascii_lowercase().ends_with(".parquet"),
            };
            entry.kind == "file" && wanted
        });
        let bad = |entry: &&Entry| !is_inside(&entry.path);
        if let Some(entry) = entries.iter().find(bad) {
            return Err(Error::answer(
                &tree,
                format!("a file is called {:?}", entry.path),
            ));
        }
        if entries.is_empty() {
            let what = match is_file {
                true => format!("no file {} there", set.path),
                false => format!(
                    "no Parquet file there: hf://datasets/{}@refs/convert/parquet has the Hub's own conversion, \
                     if it could make one",
                    set.id
                ),
            };
            return Err(Error::answer(&tree, what));
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Fetches a file into `dir`, unless it is there, and compares it with what is listed.
    fn file(
        &self,
        set: &DataSet,
        commit: &str,
        entry: &Entry,
        dir: &Path,
        watch: &mut dyn Observer,
    ) -> Result<()> {
        let path = utf8_percent_encode(&entry.path, ESCAPED);
        let url = format!(
            "{}/datasets/{}/resolve/{commit}/{path}",
            self.endpoint, set.id
        );
        let to = dir.join(&entry.path);
        if to.exists() && check(&to, entry, &url).is_ok() {
            return Ok(());
        }
        let download = Download {
            client: self.client,
            url: &url,
            to: to.clone(),
            headers: self.headers.clone(),
        };
        download.run(None, watch)?;
        let check = check(&to, entry, &url);
        if check.is_err() {
            let _: io::Result<()> = fs::remove_file(&to);
        }
        check
    }
}

/// Compares the file at `path`, which came from `url`, with what is listed.
fn check(path: &Path, entry: &Entry, url: &str) -> Result<()> {
    let mut file = fs::File::open(path).map_err(output_error(path))?;
    let bytes = file.metadata().map_err(output_error(path))?.len();
    if bytes != entry.size {
        let reason = format!("it has {bytes} bytes, and the Hub lists {}", entry.size);
        return Err(Error::answer(url, reason));
    }
    let Some(lfs) = &entry.lfs else {
        return Ok(());
    };
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(output_error(path))? {
            0 => break,
            got => hash.update(&buffer[..got]),
        }
    }
    let found = tinyres_format::Digest::from(<[u8; 32]>::from(hash.finalize())).to_string();
    match found.eq_ignore_ascii_case(&lfs.oid) {
        true => Ok(()),
        false => Err(Error::Digest {
            url: url.to_owned(),
            found,
            expected: lfs.oid.clone(),
        }),
    }
}

/// True if `path` leads nowhere but into the directory that it is joined to.
fn is_inside(path: &str) -> bool {
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_));
    !path.is_empty() && Path::new(path).components().all(normal)
}

/// The address of the next page, from a `Link` header (RFC 8288): `<URL>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|link| link.contains("rel=\"next\""))?;
    let (_, rest) = next.split_once('<')?;
    Some(rest.split_once('>')?.0.to_owned())
}
