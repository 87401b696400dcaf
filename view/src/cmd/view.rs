//! `tinyres view`: opens the set and the runs, and serves the page until it is stopped.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use serde::Serialize;
use tinyres::cache;
use tinyres::cli::View;
use tinyres::ui::Ui;
use tinyres_format::Manifest;
use tokio::net::TcpListener;

use crate::run::Run;
use crate::server::{self, Access, Site, Token};

/// The port that is tried first, so that a forwarded one stays the same.
const PORT: u16 = 8642;
/// Threads that answer. Reads of files have threads of their own.
const THREADS: usize = 2;
/// Threads that read files at most, 32 MiB of pixels each.
const READERS: usize = 4;

/// What the command prints: the address of the page.
#[derive(Serialize)]
struct Served {
    /// Address with token.
    url: String,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nCtrl-C ends it.", self.url)
    }
}

pub fn run(args: View, ui: &mut Ui) -> anyhow::Result<()> {
    let runs = Run::all(&args.runs)?;
    let dir = cache::ready(&args.shards, &[], cache::cache_dir().as_deref(), ui)?;
    let manifest = Manifest::load(&dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(READERS)
        .enable_all()
        .build()
        .context("no thread can be started")?;
    runtime.block_on(async {
        let listener = listen(&args).await?;
        let address = listener.local_addr()?;
        if !args.bind.is_loopback() {
            ui.warn(&format!(
                "{} is reachable by other machines: whoever has the link sees the pictures and the runs, and it travels \
                 unencrypted; `ssh -L` to the default address does without that",
                args.bind
            ));
        }
        let token = Token::draw().context("the system gives no random numbers")?;
        let host = if args.bind.is_unspecified() {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        } else {
            address
        };
        ui.result(&Served {
            url: format!("http://{host}/?token={token}"),
        })?;
        let access = Access::new(token, address, args.allowed_hosts);
        server::serve(listener, Site::new(dir, manifest, runs), access).await
    })
}

async fn listen(args: &View) -> anyhow::Result<TcpListener> {
    let port = args.port.unwrap_or(PORT);
    let listener = match TcpListener::bind((args.bind, port)).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse && args.port.is_none() => {
            TcpListener::bind((args.bind, 0)).await
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            anyhow::bail!("port {port} is taken by another program: name another one with --port")
        }
        listener => listener,
    };
    listener.with_context(|| format!("cannot listen on {}, port {port}", args.bind))
}
