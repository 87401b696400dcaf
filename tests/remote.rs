//! Sources behind addresses: fetched once, whole or not at all, whatever the server does.
#![cfg(feature = "remote")]

mod common;
#[path = "common/server.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use common::{Tree, files};
use serde_json::json;
use server::{Answer, Request, Server, file};
use sha2::{Digest, Sha256};

/// The program, with a cache of its own in `dir`, and no other setting of a network.
fn pack(source: &str, dir: &Path) -> Command {
    let mut command = Command::new(cargo_bin("tinyres"));
    command
        .args(["pack", source, "--force", "-o"])
        .arg(dir.join("shards"));
    command.env("TINYRES_CACHE", dir.join("cache"));
    for name in [
        "HF_ENDPOINT",
        "HF_TOKEN",
        "SSL_CERT_FILE",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

/// Packs `source`, which must fail with exit code 1, and returns the error.
fn fail(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    stderr(&output)
}

/// A small set as a zip, and the shards that it is packed to.
fn zip(dir: &Path) -> (Vec<u8>, std::collections::BTreeMap<String, Vec<u8>>) {
    let path = dir.join("set.zip");
    Tree::small().write_zip(&path, "");
    let out = tempfile::tempdir().unwrap();
    succeed(pack(path.to_str().unwrap(), out.path()));
    (fs::read(&path).unwrap(), files(&out.path().join("shards")))
}

/// Everything below `dir` that is called `name`.
fn named(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(named(&path, name)),
            false if entry.file_name().to_string_lossy().ends_with(name) => found.push(path),
            false => {}
        }
    }
    found
}

#[test]
fn a_file_is_fetched_once_and_used_while_its_server_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, expected) = zip(dir.path());
    let body = bytes.clone();
    let server = Server::start(move |_, request| file(request, &body, "\"one\""));
    let url = format!("{}/data/tiny%20set.zip?download=1", server.url);
    for _ in 0..2 {
        succeed(pack(&url, dir.path()));
        assert!(files(&dir.path().join("shards")) == expected);
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].path, "/data/tiny%20set.zip?download=1");
    assert_eq!(requests[1].header("if-none-match"), Some("\"one\""));
    let fetched = named(&dir.path().join("cache"), "tiny set.zip");
    assert_eq!(fs::read(&fetched[0]).unwrap(), bytes);
    assert!(named(&dir.path().join("cache"), ".part").is_empty());
    drop(server);
    let said = succeed(pack(&url, dir.path()));
    assert!(said.contains("using what was fetched before"), "{said}");
    assert!(files(&dir.path().join("shards")) == expected);
}

#[test]
fn a_broken_transfer_goes_on_from_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, expected) = zip(dir.path());
    let len = bytes.len();
    let server = Server::start(move |number, request| {
        // Each of five answers breaks off a sixth of the file later.
        let answer = file(request, &bytes, "\"one\"");
        match number {
            0..5 => answer.cut_after(len / 6),
            _ => answer,
        }
    });
    succeed(pack(&format!("{}/set.zip", server.url), dir.path()));
    assert!(files(&dir.path().join("shards")) == expected);
    let starts: Vec<_> = server.requests().iter().map(Request::start).collect();
    let expected: Vec<_> = (0..6)
        .map(|at| (at > 0).then_some(at * (len / 6)))
        .collect();
    assert_eq!(starts, expected);
}

#[test]
fn a_killed_fetch_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, expected) = zip(dir.path());
    let len = bytes.len();
    let (half, whole) = std::sync::mpsc::channel::<()>();
    let (kill, killed) = std::sync::mpsc::channel::<()>();
    let server = Server::start(move |number, request| {
        let answer = file(request, &bytes, "\"one\"");
        match number {
            // The second request comes while the program waits to be killed.
            0 => answer.cut_after(len / 2),
            1 => {
                let _ = half.send(());
                let _ = killed.recv();
                answer.cut_after(0)
            }
            _ => answer,
        }
    });
    let url = format!("{}/set.zip", server.url);
    let mut child = pack(&url, dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    whole.recv_timeout(Duration::from_secs(60)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    kill.send(()).unwrap();
    assert!(!dir.path().join("shards").exists());
    succeed(pack(&url, dir.path()));
    assert!(files(&dir.path().join("shards")) == expected);
    let last = server.requests().last().unwrap().start();
    assert_eq!(last, Some(len / 2));
}

/// A file that is replaced while it is fetched: by a server that says so, by one that does not care, and by one without
/// parts.
#[test]
fn parts_of_two_versions_are_never_joined() {
    type Serve = fn(&Request, &[u8], &str) -> Answer;
    let honest: Serve = file;
    let careless: Serve = |request, bytes, etag| match request.start() {
        Some(start) => (Answer::new(206, &bytes[start..]))
            .with(
                "Content-Range",
                format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
            )
            .with("ETag", etag),
        None => Answer::new(200, bytes).with("ETag", etag),
    };
    let wrong: Serve = |request, bytes, etag| match request.start() {
        Some(_) => (Answer::new(206, &bytes[1..]))
            .with(
                "Content-Range",
                format!("bytes 1-{}/{}", bytes.len() - 1, bytes.len()),
            )
            .with("ETag", "\"one\""),
        None => Answer::new(200, bytes).with("ETag", etag),
    };
    let plain: Serve = |_, bytes, _| Answer::new(200, bytes);
    for serve in [honest, careless, wrong, plain] {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, expected) = zip(dir.path());
        let server = Server::start(move |number, request| match number {
            0 => serve(request, &vec![7; bytes.len()], "\"one\"").cut_after(bytes.len() / 2),
            _ => serve(request, &bytes, "\"two\""),
        });
        succeed(pack(&format!("{}/set.zip", server.url), dir.path()));
        assert!(files(&dir.path().join("shards")) == expected);
    }
}

#[test]
fn a_changed_file_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, expected) = zip(dir.path());
    let server = Server::start(move |number, request| match number {
        0 => file(request, b"not a zip", "\"one\""),
        _ => file(request, &bytes, "\"two\""),
    });
    let url = format!("{}/set.zip", server.url);
    fail(pack(&url, dir.path()));
    succeed(pack(&url, dir.path()));
    assert!(files(&dir.path().join("shards")) == expected);
}

#[test]
fn passing_faults_of_a_server_are_tried_again_and_lasting_ones_named() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, expected) = zip(dir.path());
    let server = Server::start(
        move |number, request| match (request.path.as_str(), number) {
            ("/set.zip", 0) => Answer::new(500, []).with("Retry-After", 0),
            ("/set.zip", 1) => Answer::new(503, []).with("Retry-After", 0),
            ("/set.zip", 2) => Answer::new(429, []).with("Retry-After", 0),
            ("/set.zip", _) => file(request, &bytes, "\"one\""),
            ("/closed.zip", _) => Answer::new(403, []),
            ("/broken.zip", _) => Answer::new(502, []).with("Retry-After", 0),
            _ => Answer::new(404, []),
        },
    );
    let run = |name: &str| pack(&format!("{}/{name}", server.url), dir.path());
    succeed(run("set.zip"));
    assert!(files(&dir.path().join("shards")) == expected);
    for (name, words) in [
        ("gone.zip", ["answers 404", "typing error"]),
        ("closed.zip", ["answers 403", "log in"]),
        ("broken.zip", ["answers 502", "the same command goes on"]),
    ] {
        let said = fail(run(name));
        assert!(said.contains(&format!("/{name}: ")), "{said}");
        assert!(words.iter().all(|words| said.contains(words)), "{said}");
    }
    // Tried once, and five times more.
    let tried = server
        .requests()
        .iter()
        .filter(|request| request.path == "/broken.zip")
        .count();
    assert_eq!(tried, 6);
}

#[test]
fn addresses_that_cannot_be_fetched_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (address, words) in [
        (
            "ftp://host/set.zip",
            "only http://, https:// and hf://datasets/OWNER/NAME, and packed sets at s3://, gs:// and az://, can be fetched",
        ),
        ("hf://OWNER/NAME", "expected hf://datasets/OWNER/NAME"),
        ("hf://datasets/NAME", "expected hf://datasets/OWNER/NAME"),
        (
            "http://no-such-host.invalid/set.zip",
            "no machine of this name is known",
        ),
    ] {
        let said = fail(pack(address, dir.path()));
        assert!(
            said.contains(&format!("error: {address}: ")) && said.contains(words),
            "{said}"
        );
    }
    let mut command = pack("http://127.0.0.1:9/set.zip", dir.path());
    command
        .env_remove("TINYRES_CACHE")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("HOME");
    assert!(fail(command).contains("set TINYRES_CACHE"));
}

/// Python's own server, which gives dates but no tags and no parts.
#[test]
fn pythons_server_is_asked_after_changes_by_date() {
    let dir = tempfile::tempdir().unwrap();
    let (_, expected) = zip(dir.path());
    let serve = "import http.server as h, sys
server = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler)
print(server.server_address[1], flush=True)
server.serve_forever()";
    let mut python = Command::new("python3");
    python.args(["-c", serve]).current_dir(dir.path());
    let mut python = python
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let mut out = std::io::BufReader::new(python.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut port).unwrap();
    let url = format!("http://127.0.0.1:{}/set.zip", port.trim());
    for _ in 0..2 {
        succeed(pack(&url, dir.path()));
        assert!(files(&dir.path().join("shards")) == expected);
    }
    python.kill().unwrap();
    let log = python.wait_with_output().unwrap();
    let log = String::from_utf8(log.stderr).unwrap();
    let codes: Vec<_> = log.lines().map(|line| line.contains("\" 304")).collect();
    assert_eq!(codes, [false, true], "{log}");
}

#[cfg(feature = "parquet")]
mod hub {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// The Parquet files of a set of the Hub, by name.
    fn golden() -> Vec<(String, Vec<u8>)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sources/parquet");
        let read = |path: PathBuf| {
            let name = path
                .strip_prefix(&dir)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (name, fs::read(path).unwrap())
        };
        named(&dir, ".parquet").into_iter().map(read).collect()
    }

    /// Answers as the Hub does: a revision, a listing on two pages, and files.
    fn answer(
        request: &Request,
        url: &str,
        commit: &str,
        files_there: &[(String, Vec<u8>)],
        oid: impl Fn(&[u8]) -> String,
    ) -> Answer {
        let api = "/api/datasets/some/set";
        let entry = |(name, bytes): &(String, Vec<u8>)| json!({"type": "file", "path": name, "size": bytes.len(), "lfs": {"oid": oid(bytes), "size": bytes.len()}});
        let path = request.path.as_str();
        if path == format!("{api}/revision/main") {
            return Answer::new(200, json!({"sha": commit, "private": false}).to_string());
        }
        if path == format!("{api}/tree/{commit}?recursive=true") {
            let mut first = vec![
                json!({"type": "directory", "path": "data", "size": 0}),
                json!({"type": "file", "path": "README.md", "size": 3}),
            ];
            first.extend(files_there.first().map(entry));
            let next = format!("<{url}{api}/tree/{commit}?page=2>; rel=\"next\"");
            return Answer::new(200, json!(first).to_string()).with("Link", next);
        }
        if path == format!("{api}/tree/{commit}?page=2") {
            let rest: Vec<_> = files_there.iter().skip(1).map(entry).collect();
            return Answer::new(200, json!(rest).to_string());
        }
        let file = path.strip_prefix(&format!("/datasets/some/set/resolve/{commit}/"));
        let found = files_there
            .iter()
            .find(|(name, _)| Some(name.as_str()) == file);
        match found {
            Some((_, bytes)) => Answer::new(200, bytes.clone()),
            None => Answer::new(404, []),
        }
    }

    fn url(request: &Request) -> String {
        format!("http://{}", request.header("host").unwrap())
    }

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn run(server: &Server, address: &str, dir: &Path) -> Command {
        let mut command = pack(address, dir);
        command
            .env("HF_ENDPOINT", &server.url)
            .env("HF_TOKEN", "hf_secret");
        command
    }

    fn serve(commits: [&'static str; 2], oid: fn(&[u8]) -> String) -> Server {
        let there = golden();
        assert!(!there.is_empty());
        Server::start(move |number, request| {
            answer(
                request,
                &url(request),
                commits[usize::from(number > 0)],
                &there,
                oid,
            )
        })
    }

    #[test]
    fn a_data_set_is_packed_as_its_files_are_and_fetched_once() {
        let dir = tempfile::tempdir().unwrap();
        let local = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sources/parquet");
        succeed(pack(local.to_str().unwrap(), dir.path()));
        let expected = files(&dir.path().join("shards"));
        let server = serve([COMMIT; 2], sha256);
        for _ in 0..2 {
            succeed(run(&server, "hf://datasets/some/set", dir.path()));
            assert!(files(&dir.path().join("shards")) == expected);
        }
        let requests = server.requests();
        // Revision, two pages and the files; then the revision alone.
        assert_eq!(requests.len(), 3 + golden().len() + 1);
        let token = Some("Bearer hf_secret");
        assert!(
            requests
                .iter()
                .all(|request| request.header("authorization") == token)
        );
        drop(server);
        let mut offline = pack("hf://datasets/some/set", dir.path());
        offline.env("HF_ENDPOINT", "http://127.0.0.1:9");
        assert!(succeed(offline).contains("using what was fetched before"));
    }

    #[test]
    fn files_that_are_not_what_the_hub_lists_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let server = serve([COMMIT; 2], |_| "0".repeat(64));
        let said = fail(run(&server, "hf://datasets/some/set", dir.path()));
        assert!(said.contains("expected 000000"), "{said}");
        assert!(named(&dir.path().join("cache"), ".parquet").is_empty());
        assert!(!dir.path().join("shards").exists());
    }

    #[test]
    fn names_that_lead_out_of_the_cache_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "../../../evil.parquet",
            "/tmp/evil.parquet",
            "a/../../evil.parquet",
        ] {
            let server = Server::start(move |_, request| {
                let there = [(name.to_owned(), b"evil".to_vec())];
                answer(request, &url(request), COMMIT, &there, sha256)
            });
            let said = fail(run(&server, "hf://datasets/some/set", dir.path()));
            assert!(
                said.contains(&format!("a file is called {name:?}")),
                "{said}"
            );
        }
        assert!(named(dir.path(), "evil.parquet").is_empty());
    }

    #[test]
    fn no_other_server_gets_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let other = Server::start(|_, _| Answer::new(200, "[]"));
        let elsewhere = other.url.clone();
        let there = golden();
        let server =
            Server::start(move |_, request| answer(request, &elsewhere, COMMIT, &there, sha256));
        let said = fail(run(&server, "hf://datasets/some/set", dir.path()));
        assert!(said.contains("its next page is elsewhere"), "{said}");
        assert!(other.requests().is_empty());
    }

    #[test]
    fn a_set_without_parquet_files_names_the_hubs_conversion() {
        let dir = tempfile::tempdir().unwrap();
        let server =
            Server::start(|_, request| answer(request, &url(request), COMMIT, &[], sha256));
        let said = fail(run(&server, "hf://datasets/some/set", dir.path()));
        assert!(
            said.contains("hf://datasets/some/set@refs/convert/parquet"),
            "{said}"
        );
    }
}
