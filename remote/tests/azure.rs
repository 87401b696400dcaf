//! Sets in a store that speaks Azure's interface: Azurite, which needs Node.

mod common;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{dir, fail, files, remote, succeed, write_set};

/// The key that every Azurite has.
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes the container `sets` in the store at the port of its first argument, with the key of the second one.
const MAKE: &str = "
import base64, email.utils, hashlib, hmac, http.client, sys
port, key = sys.argv[1:]
date, version = email.utils.formatdate(usegmt=True), '2021-08-06'
path = '/devstoreaccount1/sets'
text = 'PUT' + '\\n' * 12 + f'x-ms-date:{date}\\nx-ms-version:{version}\\n/devstoreaccount1{path}\\nrestype:container'
sign = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
store = http.client.HTTPConnection('127.0.0.1', int(port))
store.putrequest('PUT', path + '?restype=container')
for header in [('x-ms-date', date), ('x-ms-version', version), ('Content-Length', '0'),
               ('Authorization', f'SharedKey devstoreaccount1:{sign}')]:
    store.putheader(*header)
store.endheaders()
assert store.getresponse().status == 201
";

/// The store, until it is dropped.
struct Azurite {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Azurite {
    fn start(program: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut command = Command::new(program);
        command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
        command.args(["--blobPort", &port.to_string(), "--location"]);
        command.arg(dir.path()).stdin(Stdio::null());
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        let mut store = Self {
            process,
            port,
            _dir: dir,
        };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(store.process.try_wait().unwrap().is_none(), "it ended");
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "it does not start"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut make = Command::new("python3");
        succeed(make.args(["-c", MAKE, &port.to_string(), KEY]));
        store
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_set_is_published_and_fetched_as_azure_takes_it() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|dir| dir.join("azurite-blob"));
    let Some(program) = programs.find(|program| program.is_file()) else {
        // Not a failure where everything else must run: few machines have Node.
        println!("skipped: azurite-blob is missing: tools/test fetches it where npm is there");
        return;
    };
    let store = Azurite::start(program);
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    // A shard of several parts, and others.
    write_set(&path("set"), 9, 2_000, 1_500);
    let connection = format!(
        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};\
         BlobEndpoint=http://127.0.0.1:{}/devstoreaccount1",
        store.port
    );
    let azure = |arguments: &[&str]| {
        let mut command = remote();
        command.args(arguments);
        command.env("AZURE_STORAGE_CONNECTION_STRING", &connection);
        command
    };
    let publish = || {
        succeed(
            azure(&["publish", "--json"])
                .arg(path("set"))
                .arg("az://sets/a"),
        )
    };
    assert_eq!(publish()["sent"], 3);
    assert_eq!(publish()["sent"], 0);
    let fetch = |address| {
        let mut command = azure(&["fetch", address, "--json", "--cache"]);
        command.arg(path("cache"));
        command
    };
    let result = succeed(&mut fetch("az://sets/a"));
    assert!(files(&dir(&result)) == files(&path("set")));
    let error = fail(&mut fetch("az://sets/nothing"));
    assert!(
        error.contains("az://sets/nothing/dataset.json: there is no such object"),
        "{error}"
    );
    let mut without = remote();
    without
        .args(["fetch", "az://sets/a", "--cache"])
        .arg(path("cache"));
    without.env(
        "AZURE_STORAGE_CONNECTION_STRING",
        connection.replace(KEY, "d3Jvbmc="),
    );
    let said = without.output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("403 (AuthorizationFailure)"), "{said}");
}
