use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use super::*;

/// Longest wait of the tests for the next bytes: a busy machine may halt a server's thread for a good part of it.
const PATIENCE: Duration = Duration::from_secs(3);

fn hub(address: &str) -> Option<DataSet> {
    match Address::of(Path::new(address)) {
        Ok(Some(Address::Hub(set))) => Some(set),
        _ => None,
    }
}

#[test]
fn addresses_of_the_hub_have_revisions_and_paths() {
    for (address, expected) in [
        ("hf://datasets/a/b", ("a/b", "main", "")),
        ("hf://datasets/a/b/data", ("a/b", "main", "data")),
        ("hf://datasets/a/b@v1.0", ("a/b", "v1.0", "")),
        (
            "hf://datasets/a/b@v1.0/data/x.zip",
            ("a/b", "v1.0", "data/x.zip"),
        ),
        (
            "hf://datasets/a/b@refs/convert/parquet/default/",
            ("a/b", "refs/convert/parquet", "default"),
        ),
        (
            "hf://datasets/a/b@refs%2Fpr%2F3/x",
            ("a/b", "refs/pr/3", "x"),
        ),
    ] {
        let found = hub(address).unwrap_or_else(|| panic!("{address}"));
        let shown = format!("{found:?}");
        let (id, revision, path) = expected;
        let expected = format!("DataSet {{ id: {id:?}, revision: {revision:?}, path: {path:?} }}");
        assert_eq!(shown, expected, "{address}");
    }
    for address in [
        "hf://a/b",
        "hf://datasets/a",
        "hf://datasets//b",
        "hf://datasets/a/",
        "hf://datasets/a/b@",
    ] {
        assert!(Address::of(Path::new(address)).is_err(), "{address}");
    }
}

#[test]
fn paths_are_no_addresses() {
    for path in [
        "set.zip",
        "/data/set",
        "C:\\set",
        "a/b://c",
        "://",
        "http:/x",
        "http://",
    ] {
        let address = Address::of(Path::new(path));
        assert!(
            matches!(address, Ok(None) | Err(Error::Scheme { .. })),
            "{path}: {address:?}"
        );
    }
    assert!(!is_address(Path::new("a/b://c")));
    assert!(is_address(Path::new("HTTPS://example.org/x")));
}

/// A server that sends a half, then nothing more, and the rest when it is asked again.
#[test]
fn a_stalled_server_is_asked_again_for_the_rest() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/set.zip", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut stalled = Vec::new();
        let mut asked = Vec::new();
        for (head, body) in [
            ("200 OK\r\nContent-Length: 8", "abcd"),
            (
                "206 Part\r\nContent-Length: 4\r\nContent-Range: bytes 4-7/8",
                "efgh",
            ),
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let got = stream.read(&mut request).unwrap();
            asked.push(String::from_utf8_lossy(&request[..got]).to_lowercase());
            write!(stream, "HTTP/1.1 {head}\r\nETag: \"x\"\r\n\r\n{body}").unwrap();
            stalled.push(stream);
        }
        asked
    });
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(PATIENCE).unwrap();
    let address = Path::new(&url);
    let fetch = Fetch::new(&client, dir.path(), address);
    let path = fetch
        .run(&Address::Url(url.clone()), &url, &mut ())
        .unwrap();
    assert_eq!(fs::read(path).unwrap(), b"abcdefgh");
    let asked = server.join().unwrap();
    assert!(asked[1].contains("range: bytes=4-"), "{asked:?}");
    assert!(asked[1].contains("if-range: \"x\""), "{asked:?}");
}

/// A server that never lets anyone wait long for a byte, and does not end.
#[test]
fn a_server_that_drips_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/set.zip", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n").unwrap();
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(PATIENCE).unwrap();
    let download = download::Download {
        client: &client,
        url: &url,
        to: dir.path().join("set.zip"),
        headers: Vec::new(),
    };
    // With a version that is known, it is tried once.
    let error = download.run(Some(&Version::default()), &mut ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("bytes came in"), "{error}");
    drop(client); // It keeps the connection.
    server.join().unwrap();
}

#[test]
fn tries_end_when_each_brings_only_a_few_bytes() {
    let client = Client::new(Duration::from_secs(1)).unwrap();
    let tries = |each: u64| {
        let (count, reached) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let attempt = || {
            reached.set(reached.get() + each);
            count.set(count.get() + 1);
            match count.get() {
                4 => Ok(()),
                _ => Err(http::Fault::passing("it broke off")),
            }
        };
        let done = client.retry("http://h/x", 1, || reached.get(), attempt);
        (done.is_ok(), count.get())
    };
    assert_eq!(tries(1), (false, 2));
    assert_eq!(tries(STEP), (true, 4));
}
