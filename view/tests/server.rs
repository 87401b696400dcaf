//! The server of `tinyres view`, asked as a browser asks, and as nobody should.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tinyres_format::{Class, Digest, SetOptions, SetWriter, Shape, Split};

const SIDE: u32 = 8;
const TRAIN: u32 = 100;

/// Pixels of an image of the set; every third one is grey.
fn pixels(image: u32) -> Vec<u8> {
    let area = SIDE * SIDE;
    let value = |at: u32| {
        let plane = if image.is_multiple_of(3) {
            0
        } else {
            at / area
        };
        (image * 7 + at % area + plane * 50) % 251
    };
    (0..3 * area)
        .map(|at| value(at).try_into().unwrap())
        .collect()
}

/// A set of 100 images in train, in shards of 40, and 10 in val.
fn write_set(dir: &Path) {
    let classes = ["cat", "<img src=x onerror=alert(1)>"].map(|name| Class {
        id: format!("id-{name}"),
        name: name.into(),
    });
    let options = SetOptions {
        shape: Shape::rgb(SIDE),
        classes: classes.to_vec(),
        creator: "a test".into(),
        fingerprint: Digest::of(b"view"),
        shard_images: NonZeroU32::new(40).unwrap(),
    };
    let mut set = SetWriter::create(dir, options).unwrap();
    for (split, images) in [(Split::Train, TRAIN), (Split::Val, 10)] {
        for image in 0..images {
            let (name, label) = (format!("{split}-{image}.png"), i64::from(image % 2));
            let bbox = if image == 1 { [-1; 4] } else { [0, 1, 5, 7] };
            set.image(split, &pixels(image), label, bbox, &name)
                .unwrap();
        }
    }
    set.finish().unwrap();
}

/// The figures of a step.
fn step(step: u32) -> String {
    format!(
        r#"{{"kind":"step","step":{step},"epoch":0,"images":1,"loss":1.0,"lr":0.1,"images_per_second":1.0}}"#
    )
}

fn write_run(dir: &Path, metrics: &str) {
    fs::create_dir_all(dir).unwrap();
    let config = "recipe = \"default\"\n\n[run]\nversion = \"0.1.0\"\ndata = \"/data\"\n";
    fs::write(dir.join("config.toml"), config).unwrap();
    fs::write(dir.join("metrics.jsonl"), metrics).unwrap();
}

struct Server {
    child: Child,
    address: String,
    token: String,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer: its status, its head, and its body.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_set(&dir.path().join("set"));
        write_run(&dir.path().join("run"), &format!("{}\n{{\"ki", step(1)));
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-view"));
        command.current_dir(&dir).args(["view", "set"]).args(more);
        command.args(["--run", "run", "--port", "0", "--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let served: Value = serde_json::from_str(&line).unwrap();
        let url = served["url"].as_str().unwrap();
        let (address, token) = (url.strip_prefix("http://").unwrap())
            .split_once("/?token=")
            .unwrap();
        Self {
            child,
            address: address.to_owned(),
            token: token.to_owned(),
            dir,
        }
    }

    fn cookie(&self) -> String {
        let port = self.address.rsplit_once(':').unwrap().1;
        format!("Cookie: tinyres-{port}={}", self.token)
    }

    /// Sends `request`, lines without line ends, and reads the answer.
    fn send(&self, request: &[&str]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let text = request.join("\r\n") + "\r\nConnection: close\r\n\r\n";
        stream.write_all(text.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let split = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let body = bytes.split_off(split.expect("an answer") + 4);
        let head = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
        Answer {
            status: head[9..12].parse().unwrap(),
            head,
            body,
        }
    }

    /// Asks for `path` with headers, under the name that the link has.
    fn ask(&self, path: &str, headers: &[&str]) -> Answer {
        let line = format!("GET {path} HTTP/1.1");
        let host = format!("Host: {}", self.address);
        self.send(&[&[line.as_str(), &host], headers].concat())
    }

    /// Asks as the page does.
    fn get(&self, path: &str) -> Answer {
        let cookie = self.cookie();
        self.ask(path, &[&cookie, "Sec-Fetch-Site: same-origin"])
    }
}

#[test]
fn pixels_and_columns_are_those_of_the_set() {
    let server = Server::start(&[]);
    let set = server.get("/api/set").json();
    assert_eq!(set["splits"][0]["images"], TRAIN);
    assert_eq!(set["shape"], serde_json::json!([3, SIDE, SIDE]));
    assert_eq!(set["classes"][0]["name"], "cat");
    // Over the end of the first shard, and out of order.
    let block = server.get("/api/split/train/pixels?first=30&count=20");
    assert_eq!(block.body, (30..50).flat_map(pixels).collect::<Vec<_>>());
    let some = server.get("/api/split/train/pixels?ids=99,0,41,42");
    assert_eq!(some.body, [99, 0, 41, 42].map(pixels).concat());
    let columns = server.get("/api/split/val/columns").body;
    let end = 8 + usize::try_from(u64::from_le_bytes(columns[..8].try_into().unwrap())).unwrap();
    let head: Value = serde_json::from_slice(&columns[8..end]).unwrap();
    assert_eq!(head["rows"], 10);
    let labels = (0..10).flat_map(|image| i32::to_le_bytes(image % 2));
    assert_eq!(columns[end..end + 40], labels.collect::<Vec<_>>());
    let names: String = (0..10).map(|image| format!("val-{image}.png")).collect();
    let column = server.get("/api/split/val/names").body;
    assert!(String::from_utf8_lossy(&column).contains(&names));
    let grey = server.get("/api/split/train/grey").body;
    let grey = &grey[grey.len() - 104..][..100];
    let expected = (0..100).map(|image| u8::from(image % 3 == 0));
    assert_eq!(grey, expected.collect::<Vec<_>>());
}

#[test]
fn only_known_hosts_are_answered() {
    let server = Server::start(&["--allow-host", "workstation.example"]);
    let port = server.address.rsplit_once(':').unwrap().1.to_owned();
    let cookie = server.cookie();
    let ask =
        |host: &str| server.send(&["GET /api/set HTTP/1.1", &format!("Host: {host}"), &cookie]);
    for host in [
        "localhost:1",
        "127.0.0.1",
        "[::1]:99",
        "LocalHost",
        "workstation.example:80",
    ] {
        assert_eq!(ask(host).status, 200, "{host}");
    }
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        "localhost.evil.example",
        "192.168.1.1",
        "",
        "a b",
    ] {
        let answer = ask(host);
        assert!(
            [400, 421].contains(&answer.status),
            "{host}: {}",
            answer.status
        );
    }
    assert!(
        ask("evil.example")
            .error()
            .contains("--allow-host evil.example")
    );
    assert_eq!(server.send(&["GET /api/set HTTP/1.1", &cookie]).status, 421);
}

#[test]
fn requests_of_other_pages_are_refused() {
    let server = Server::start(&[]);
    let cookie = server.cookie();
    let own = format!("Origin: http://{}", server.address);
    let foreign = [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: http://127.0.0.1:1",
    ];
    assert_eq!(server.ask("/api/set", &[&cookie, &own]).status, 200);
    for header in foreign
        .into_iter()
        .chain(["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"])
    {
        assert_eq!(
            server.ask("/api/set", &[&cookie, header]).status,
            403,
            "{header}"
        );
        assert_eq!(
            server.ask("/app.js", &[&cookie, header]).status,
            403,
            "{header}"
        );
    }
    // A link in a chat leads to the page, which has no secrets in it.
    let link = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"];
    assert_eq!(server.ask("/", &link).status, 200);
    assert_eq!(
        server
            .ask("/api/set", &[&link[..], &[&cookie]].concat())
            .status,
        403
    );
    let host = format!("Host: {}", server.address);
    let post = server.send(&[
        "POST /api/set HTTP/1.1",
        &host,
        &cookie,
        "Content-Length: 0",
    ]);
    assert_eq!(post.status, 405);
}

#[test]
fn nothing_is_shown_without_the_token() {
    let server = Server::start(&[]);
    let zeros = "0".repeat(32);
    let port = server.address.rsplit_once(':').unwrap().1;
    let wrong = [
        String::new(),
        format!("Cookie: tinyres-{port}={zeros}"),
        format!("Cookie: tinyres-1={}", server.token),
        format!("Cookie: tinyres-{port}={}", &server.token[1..]),
    ];
    for cookie in &wrong {
        let headers: &[&str] = if cookie.is_empty() { &[] } else { &[cookie] };
        for path in [
            "/api/set",
            "/api/split/train/columns",
            "/api/split/train/names",
            "/api/metrics",
            "/api/none",
        ] {
            let answer = server.ask(path, headers);
            assert_eq!(answer.status, 403, "{cookie} {path}");
            assert!(
                answer.error().contains("open the link"),
                "{}",
                answer.error()
            );
        }
        assert!(!server.ask("/", headers).head.contains("set-cookie"));
    }
    assert_eq!(
        server.ask(&format!("/api/set?token={zeros}"), &[]).status,
        403
    );
    let welcome = server.ask(&format!("/?token={}", server.token), &[]);
    assert_eq!(welcome.status, 200);
    let cookie = format!(
        "set-cookie: tinyres-{port}={}; httponly; samesite=strict",
        server.token
    );
    assert!(welcome.head.contains(&cookie), "{}", welcome.head);
    assert_eq!(
        server
            .ask(&format!("/api/set?token={}", server.token), &[])
            .status,
        200
    );
}

#[test]
fn every_answer_says_what_the_browser_may_do_with_it() {
    let server = Server::start(&[]);
    for path in [
        "/",
        "/app.js",
        "/api/set",
        "/none",
        "/api/split/none/columns",
    ] {
        let head = server.get(path).head;
        for header in [
            "content-security-policy: default-src 'none';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(header), "{path}: {head}");
        }
    }
    assert!(
        server
            .get("/app.js")
            .head
            .contains("content-type: text/javascript")
    );
}

#[test]
fn no_path_leads_out_of_the_page() {
    let server = Server::start(&[]);
    for path in [
        "/../Cargo.toml",
        "/../../set/dataset.json",
        "/%2e%2e/Cargo.toml",
        "/..%2fCargo.toml",
        "//etc/passwd",
        "/vendor/../../Cargo.toml",
        "/api/split/..%2f..%2fset/columns",
        "/api/split/train%00/columns",
        "/api/run/0/../../etc/passwd",
        "/src/main.rs",
        "/vendor",
        "/.",
    ] {
        let answer = server.get(path);
        assert!(
            [400, 404].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
    }
}

#[test]
fn hostile_queries_are_errors() {
    let server = Server::start(&[]);
    let many = format!("ids={}", vec!["1"; 7000].join(","));
    let cases = [
        ("pixels", 400),
        ("pixels?first=0", 400),
        ("pixels?first=0&count=4294967295", 400),
        ("pixels?first=-1&count=1", 400),
        ("pixels?first=4294967295&count=60000", 400),
        ("pixels?first=90&count=20", 404),
        ("pixels?ids=", 400),
        ("pixels?ids=1;2", 400),
        ("pixels?ids=1,2,99999999999", 400),
        ("pixels?ids=100", 404),
        ("pixels?ids=1&first=0&count=1", 400),
        ("pixels?first=1e3&count=%00", 400),
    ];
    for (query, status) in cases {
        let answer = server.get(&format!("/api/split/train/{query}"));
        assert_eq!(answer.status, status, "{query}");
    }
    // Small pictures, so these are 1.3 MB; a request line of any length ends.
    assert_eq!(
        server
            .get(&format!("/api/split/train/pixels?{many}"))
            .body
            .len(),
        7000 * 192
    );
    assert_eq!(
        server
            .get(&format!("/api/split/{}/columns", "x".repeat(9000)))
            .status,
        404
    );
    for run in ["1", "-1", "99999999999999999999", "x"] {
        let status = server.get(&format!("/api/run/{run}")).status;
        assert!([400, 404].contains(&status), "{run}: {status}");
    }
    assert_eq!(server.get("/api/set").status, 200);
}

#[test]
fn what_a_run_does_not_have_is_a_message() {
    let server = Server::start(&[]);
    for kind in ["predictions", "analysis", "map", "umap"] {
        let answer = server.get(&format!("/api/run/0/{kind}/val"));
        assert_eq!(answer.status, 404, "{kind}");
        let error = answer.error();
        assert!(error.contains("eval/val.parquet"), "{error}");
        for path in [format!("run/7/{kind}/val"), format!("run/0/{kind}/none")] {
            assert_eq!(server.get(&format!("/api/{path}")).status, 404, "{path}");
        }
    }
    for path in [
        "run/0/neighbours/val/-1",
        "run/0/neighbours/val/99999999999999999999",
        "compare/0/x/val",
    ] {
        assert_eq!(server.get(&format!("/api/{path}")).status, 400, "{path}");
    }
    let margins = server.get("/api/run/0/margins");
    assert_eq!(margins.status, 404);
    assert!(
        margins.error().contains("tinyres train --track"),
        "{}",
        margins.error()
    );
    let changes = server.get("/api/changes").body;
    assert_eq!(server.get("/api/changes").body, changes);
    let not_parquet = server.dir.path().join("run/eval/val.parquet");
    fs::create_dir(not_parquet.parent().unwrap()).unwrap();
    fs::write(not_parquet, "PAR1 nothing PAR1").unwrap();
    assert_eq!(server.get("/api/run/0/analysis/val").status, 500);
    assert_ne!(server.get("/api/changes").body, changes);
}

#[test]
fn requests_that_are_cut_do_no_harm() {
    let server = Server::start(&[]);
    let whole = format!(
        "GET /api/split/train/pixels?first=0&count=100 HTTP/1.1\r\nHost: {}\r\n{}\r\n\r\n",
        server.address,
        server.cookie()
    );
    for round in 0..2000 {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        let sent = round % (whole.len() + 1);
        stream.write_all(&whole.as_bytes()[..sent]).unwrap();
        if sent == whole.len() {
            let _ = stream.read(&mut [0; 10]);
        }
    }
    assert_eq!(
        server
            .get("/api/split/train/pixels?first=0&count=100")
            .status,
        200
    );
}

#[test]
fn a_shard_that_is_cut_or_damaged_while_it_is_shown_is_a_message() {
    let server = Server::start(&[]);
    let shard = |index: u32| server.dir.path().join(format!("set/train-0000{index}.bin"));
    assert_eq!(
        server.get("/api/split/train/pixels?first=0&count=1").status,
        200
    );
    let file = fs::OpenOptions::new().write(true).open(shard(0)).unwrap();
    file.set_len(4096 + 100).unwrap();
    let lost = server.get("/api/split/train/pixels?first=0&count=5");
    assert_eq!(lost.status, 500);
    assert!(
        lost.error()
            .contains("train-00000.bin: its bytes can no longer be read"),
        "{}",
        lost.error()
    );
    let mut bytes = fs::read(shard(1)).unwrap();
    bytes[4096 + 5] ^= 1;
    fs::write(shard(1), bytes).unwrap();
    let damaged = server.get("/api/split/train/pixels?first=40&count=1");
    assert!(
        damaged.error().contains("train-00001.bin"),
        "{}",
        damaged.error()
    );
    // A search that reads all pictures is a message, too.
    let duplicates = server.get("/api/duplicates");
    assert_eq!(duplicates.status, 500);
    assert!(
        duplicates.error().contains("train-0000"),
        "{}",
        duplicates.error()
    );
    // The rest is shown as before, and a split that is gone says so.
    assert_eq!(
        server
            .get("/api/split/train/pixels?first=85&count=15")
            .status,
        200
    );
    assert_eq!(
        server.get("/api/split/val/pixels?first=0&count=10").status,
        200
    );
}

#[test]
fn a_split_that_vanishes_before_it_is_shown_is_a_message() {
    let server = Server::start(&[]);
    fs::remove_file(server.dir.path().join("set/train-00002.bin")).unwrap();
    let lost = server.get("/api/split/train/columns");
    assert_eq!(lost.status, 500);
    assert!(lost.error().contains("train-00002.bin"), "{}", lost.error());
    assert_eq!(server.get("/api/split/val/columns").status, 200);
}

/// The next event of the figures of run 0.
fn next_event(stream: &mut BufReader<TcpStream>) -> Value {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).unwrap();
            assert_eq!(event["run"], 0);
            return event["news"].clone();
        }
    }
    panic!("no event");
}

#[test]
fn figures_come_as_they_are_written_and_a_run_that_vanishes_is_a_message() {
    let server = Server::start(&[]);
    let stream = TcpStream::connect(&server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let request = format!(
        "GET /api/metrics HTTP/1.1\r\nHost: {}\r\n{}\r\n\r\n",
        server.address,
        server.cookie()
    );
    (&stream).write_all(request.as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let first = next_event(&mut stream);
    assert_eq!(first["lines"].as_array().unwrap().len(), 1);
    assert_eq!(first["reset"], true);
    let path = server.dir.path().join("run/metrics.jsonl");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let line = step(2);
    let rest = line.strip_prefix("{\"ki").unwrap();
    file.write_all(format!("{rest}\n{{\"kind").as_bytes())
        .unwrap();
    let second = next_event(&mut stream);
    assert_eq!(second["lines"], serde_json::json!([step(2)]));
    assert_eq!(second["reset"], false);
    assert_eq!(server.get("/api/run/0").json()["steps"], 2);
    fs::remove_dir_all(server.dir.path().join("run")).unwrap();
    assert!(
        next_event(&mut stream)["error"]
            .as_str()
            .unwrap()
            .contains("metrics.jsonl")
    );
    assert!(
        server.get("/api/run/0").json()["error"]
            .as_str()
            .unwrap()
            .contains("holds no run")
    );
    assert_eq!(server.get("/api/set").status, 200);
}

#[test]
fn a_command_that_cannot_be_served_says_why() {
    let dir = tempfile::tempdir().unwrap();
    write_set(&dir.path().join("set"));
    let run = |args: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-view"));
        let output = command.current_dir(&dir).arg("view").args(args).output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = run(&["set", "--port", &port]);
    assert!(
        error.contains("is taken by another program: name another one with --port"),
        "{error}"
    );
    assert!(run(&["set", "--run", "none"]).contains("holds no run"));
    assert!(run(&["none"]).contains("none"));
    assert!(run(&["set", "--bind", "192.0.2.1"]).contains("cannot listen on 192.0.2.1"));
}
