//! The commands of `tinyres-remote`: their flags, and what they call.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tinyres::cache;
use tinyres::event::Observer;
use tinyres::remote;

use crate::address::Address;
use crate::error::Error;
use crate::store::Patience;
use crate::{fetch, publish};

/// The flags of every transfer.
#[derive(Args)]
struct Transfer {
    /// Longest wait for the next bytes, in seconds; a transfer as such may take any time
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Further tries after a fault, each after a longer pause, as long as none gets any further
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,
}

impl Transfer {
    fn patience(&self) -> Patience {
        Patience {
            wait: Duration::from_secs(self.timeout),
            retries: self.retries,
        }
    }
}

/// Fetch a set to the cache, and print the directory that it is in
///
/// The set is fetched once, by parts, several at a time, and every byte is compared with its checksum before the set
/// appears. A compressed set is expanded as it comes. If the transfer breaks off or is killed, the same command goes on
/// where it stopped. Other processes that want the set wait for this one. Later runs ask the store if the set is another
/// one by now; if the store does not answer, they use what was fetched.
#[derive(Args)]
#[command(after_help = FETCH)]
pub struct Fetch {
    /// Address of a set
    address: String,
    /// Directory of the cache [default: TINYRES_CACHE, or ~/.cache/tinyres]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Bytes that sets and sources in the cache may have, such as 200G: those used longest ago are removed to make room,
    /// but none that is in use [default: TINYRES_CACHE_SIZE, or no limit]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    cache_size: Option<u64>,
    #[command(flatten)]
    transfer: Transfer,
}

const FETCH: &str = "\
Examples:
  tinyres-remote fetch s3://bucket/tiny-imagenet
  tinyres-remote fetch gs://bucket/sets/a --cache /scratch/tinyres --cache-size 200G
  AWS_ENDPOINT_URL=http://10.0.0.2:9000 tinyres-remote fetch s3://bucket/a     MinIO, Ceph, SeaweedFS and such
  AWS_SKIP_SIGNATURE=true tinyres-remote fetch s3://public-bucket/a            without credentials
  tinyres-remote fetch https://example.org/sets/a/
  tinyres train s3://bucket/tiny-imagenet                                      fetches it first, once";

impl Fetch {
    pub fn run(self, watch: &mut dyn Observer) -> anyhow::Result<fetch::Fetched> {
        let address = Address::parse(&self.address)?;
        let limit = match self.cache_size {
            Some(limit) => Some(limit),
            None => std::env::var("TINYRES_CACHE_SIZE")
                .ok()
                .filter(|size| !size.is_empty())
                .map(|text| {
                    size(&text).map_err(|error| anyhow::anyhow!("TINYRES_CACHE_SIZE: {error}"))
                })
                .transpose()?,
        };
        let no_cache = || Error::NoCache {
            address: address.text.clone(),
        };
        let cache = self.cache.or_else(cache::cache_dir).ok_or_else(no_cache)?;
        let fetch = fetch::Fetch {
            cache: &cache,
            limit,
            patience: self.transfer.patience(),
            address,
        };
        Ok(fetch.run(watch)?)
    }
}

/// Publish a packed set at an address
///
/// Each shard is checked before it is sent. dataset.json comes last, so the address has the whole set or none. What a
/// broken publication left there is kept. If exactly this set is there, nothing is sent; another one is replaced only
/// with --force, and readers find no set meanwhile.
#[derive(Args)]
#[command(after_help = PUBLISH)]
pub struct Publish {
    /// Directory of a packed set, raw or compressed
    dir: PathBuf,
    /// Address to publish it at: s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH
    address: String,
    /// Replace another set that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    transfer: Transfer,
}

const PUBLISH: &str = "\
Examples:
  tinyres-remote publish shards s3://bucket/tiny-imagenet
  tinyres pack tiny-imagenet-200.zip --zstd -o gs://bucket/tiny     packs it, and then publishes it";

impl Publish {
    pub fn run(self, watch: &mut dyn Observer) -> anyhow::Result<publish::Published> {
        remote::store_address(Path::new(&self.address))?;
        let publish = publish::Publish {
            address: Address::parse(&self.address)?,
            dir: &self.dir,
            force: self.force,
            patience: self.transfer.patience(),
        };
        Ok(publish.run(watch)?)
    }
}

/// A size in bytes: a number, with a decimal unit if it has one.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size such as 500M, 200G or 2T");
    let end = text
        .find(|at: char| !at.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_uppercase();
    let scale = match unit.strip_suffix('B').unwrap_or(&unit) {
        "" => 1,
        "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(scale).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_decimal_units() {
        assert_eq!(size("200G"), Ok(200_000_000_000));
        assert_eq!(size("5 mb"), Ok(5_000_000));
        assert_eq!(size("17"), Ok(17));
        for wrong in ["", "G", "1.5G", "5X", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
