//! `tinyres view`: its flags. `tinyres-view` carries it out.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Explore a set and its runs in a browser
///
/// Serves a page to this machine, and prints its address. The page shows any split as a grid of pictures, to filter, sort
/// and search; with --run also what a run predicts, where it is wrong, and its curves while it trains. Nothing is sent
/// anywhere else, and nothing is written.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{ACCESS}\n\n{EXAMPLES}"))]
pub struct Args {
    /// Directory of shards, or any source that `tinyres pack` reads, which is packed once, into a cache
    #[arg(value_name = "SHARDS|SOURCE")]
    pub shards: PathBuf,
    /// Directory of a run to show, also one that is still training; several may be given
    #[arg(long = "run", value_name = "RUN", num_args = 1..)]
    pub runs: Vec<PathBuf>,
    /// Port to listen on; 0 for any that is free [default: 8642, or any if it is taken]
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Address to listen on. Any other than the default lets other machines reach the page: whoever has the link, token
    /// included, sees every picture and run, and the link travels unencrypted
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind: IpAddr,
    /// Accept this name, too, as the host in the address of the page
    #[arg(long = "allow-host", value_name = "NAME")]
    pub allowed_hosts: Vec<String>,
}

const ACCESS: &str = "\
Shards are mapped into memory when they are opened: no program may write to
or truncate them then. After that, a shard that is cut or removed is a message
on the page.

The link has a token, without which the page shows nothing: other users of this
machine cannot see it. To look from another machine, forward the port:
`ssh -L 8642:127.0.0.1:8642 HOST`, and open the link there.";

const EXAMPLES: &str = "\
Examples:
  tinyres view shards
  tinyres view shards --run runs/default-1             what it predicts, and its curves
  tinyres view shards --run runs/*                     several runs compared
  tinyres view shards --port 9000 --json | jq -r .url";
