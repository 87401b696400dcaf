//! Sets on a web server, nginx.

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::skip::skip;
use common::{compress, dir, fail, files, remote, succeed, write_set};

/// A server, until it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts `command`, which listens on `port`.
    fn start(command: &mut Command, port: u16) -> Self {
        let mut server = Self(command.stdin(Stdio::null()).spawn().unwrap());
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.0.try_wait().unwrap().is_none(), "it ended");
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "it does not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The file `name` below a directory of `PATH`, or below the parent of one.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = |dir: PathBuf| [dir.join(name), dir.parent().unwrap_or(&dir).join(name)];
    let mut found = std::env::split_paths(&path).flat_map(places);
    found.find(|program| program.is_file())
}

/// A set, and its compressed form.
fn sets(temporary: &Path) -> [PathBuf; 2] {
    let sets = ["raw", "zst"].map(|name| temporary.join(name));
    write_set(&sets[0], 5, 60, 40);
    compress(&sets[0], &sets[1]);
    sets
}

#[test]
fn sets_are_fetched_from_a_web_server() {
    let Some(program) = find("nginx").or_else(|| find("sbin/nginx")) else {
        return skip("nginx is missing: apt-get install nginx-light");
    };
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("a b");
    fs::create_dir(&root).unwrap();
    let sets = sets(&root);
    let port = port();
    let configuration = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr error; events {{ }}\n\
         http {{ access_log off; client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3;\n\
         uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5; server {{ listen 127.0.0.1:{port}; root {dir}; }} }}\n",
        dir = temporary.path().display()
    );
    let file = temporary.path().join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    // Its workers may be another user.
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(&file).arg("-e").arg("stderr");
    let _server = Server::start(&mut command, port);
    let cache = temporary.path().join("cache");
    for set in ["raw/", "zst/dataset.json"] {
        let address = format!("http://127.0.0.1:{port}/a%20b/{set}");
        let mut fetch = remote();
        fetch
            .args(["fetch", &address, "--json", "--cache"])
            .arg(&cache);
        let result = succeed(&mut fetch);
        assert!(files(&dir(&result)) == files(&sets[0]), "{address}");
        fs::remove_dir_all(&cache).unwrap();
        let error = fail(remote().arg("publish").arg(&sets[0]).arg(&address));
        assert!(error.contains("copy the files to a web server"), "{error}");
    }
}
