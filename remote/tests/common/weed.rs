//! SeaweedFS, a real store that speaks S3, on this machine. Its gateway answers requests of the XML interface of Google Cloud
//! Storage, too, which has the same shape, and its filer serves the same objects as a plain web server.
#![allow(dead_code, reason = "each of the test programs uses a part")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::skip::skip;

/// Name of the bucket.
pub const BUCKET: &str = "sets";
/// Name of a bucket that needs no keys.
pub const PUBLIC: &str = "public";
pub const KEY: &str = "a-key";
pub const SECRET: &str = "a-secret";

/// Runs the server of its arguments until its input ends, and then removes the directory `$0`. A store that a static holds
/// is never dropped, but its input ends with the tests.
const UNTIL_THE_END: &str = r#"
exec 3<&0
"$@" & server=$!
(cat <&3 >/dev/null; kill -9 $server 2>/dev/null; rm -rf "$0") &
wait $server
"#;

/// The store, until it is dropped or the tests end.
pub struct Weed {
    process: Child,
    /// Its address, as `127.0.0.1:80`.
    pub host: String,
    /// The address of its web server. The objects lie below `/buckets/BUCKET/`.
    pub web: String,
    _dir: tempfile::TempDir,
}

impl Weed {
    /// Starts it. `None` if this machine lacks it.
    pub fn start() -> Option<Self> {
        let Some(program) = program() else {
            skip(
                "weed is missing: `PATH=$(tools/packages remote/tests/requirements.txt)/bin:$PATH` has it",
            );
            return None;
        };
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let config = dir.path().join("s3.json");
            let public = ["Read", "Write", "List"].map(|action| format!("{action}:{PUBLIC}"));
            let identities = serde_json::json!({"identities": [
                {
                    "name": "test",
                    "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                    "actions": ["Admin", "Read", "Write", "List"],
                },
                {"name": "anonymous", "actions": public},
            ]});
            fs::write(&config, identities.to_string()).unwrap();
            let ports = ports();
            let mut command = Command::new("bash");
            command.args(["-c", UNTIL_THE_END]);
            command.arg(dir.path()).arg(&program);
            command
                .args(["mini", "-ip=127.0.0.1", "-webdav=false", "-admin.ui=false"])
                .arg(format!("-dir={}", dir.path().display()))
                .arg(format!("-s3.config={}", config.display()))
                .env("S3_BUCKET", format!("{BUCKET},{PUBLIC}"))
                .current_dir(&dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            for (at, name) in [
                "s3",
                "master",
                "volume",
                "filer",
                "admin",
                "s3.port.iceberg",
            ]
            .iter()
            .enumerate()
            {
                let flag = if name.contains('.') {
                    (*name).to_owned()
                } else {
                    format!("{name}.port")
                };
                command.arg(format!("-{flag}={}", ports[at]));
            }
            let mut process = command.spawn().unwrap();
            let host = format!("127.0.0.1:{}", ports[0]);
            let web = format!("127.0.0.1:{}", ports[3]);
            let began = Instant::now();
            // It may be slow on a busy machine.
            while process.try_wait().unwrap().is_none() {
                if answers(&host, BUCKET, "403") && answers(&host, PUBLIC, "200") {
                    // A service that starts later may find its port taken, and all end.
                    std::thread::sleep(Duration::from_secs(1));
                    if process.try_wait().unwrap().is_some() {
                        break;
                    }
                    return Some(Self {
                        process,
                        host,
                        web,
                        _dir: dir,
                    });
                }
                assert!(
                    began.elapsed() < Duration::from_secs(120),
                    "weed does not start"
                );
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        panic!("weed ended five times");
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        // Closes its input.
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("weed"))
        .find(|program| program.is_file())
}

/// True if the bucket is there: a request without keys gets this status.
fn answers(host: &str, bucket: &str, status: &str) -> bool {
    use std::io::{Read, Write};
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /{bucket}/ HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with(&format!("HTTP/1.0 {status} ")))
}

/// Free ports, each with the one 10,000 above it, which the same service takes.
fn ports() -> Vec<u16> {
    // Two tests of this process take others; those of other processes mostly do.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let start = 20_000 + (std::process::id() as usize * 97) % 20_000;
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut ports = Vec::new();
    while ports.len() < 6 {
        let at = start + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(20_000 + at % 25_000).unwrap();
        if free(port) && free(port + 10_000) {
            ports.push(port);
        }
    }
    ports
}
