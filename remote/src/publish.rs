//! Publishes a set: the shards first, `dataset.json` last.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use tinyres::event::{Event, Observer};
use tinyres::remote::relay::UNIT;
use tinyres::scratch::output_error;
use tinyres::text::{Bytes, counted};
use tinyres::transport;
use tinyres_format::transport::Expander;
use tinyres_format::{Form, MANIFEST, Manifest, Outline, PAGE, Part, Shard, ShardEntry};

use crate::address::Address;
use crate::answers::Fault;
use crate::error::{Error, Result};
use crate::fetch::{manifest, runtime};
use crate::shard::PART;
use crate::store::{Patience, Store};

/// Parts that are sent at the same time.
const FLIGHT: usize = 8;

/// The publication of one set.
pub struct Publish<'a> {
    pub address: Address,
    pub dir: &'a Path,
    pub force: bool,
    pub patience: Patience,
}

/// A set that is in a store.
#[derive(Debug, serde::Serialize)]
pub struct Published {
    pub address: String,
    pub shards: usize,
    /// Shards that were sent: the others were there.
    pub sent: usize,
    /// Bytes of all shards, in the form that they have there.
    pub bytes: u64,
    pub seconds: f64,
}

impl std::fmt::Display for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (shards, bytes) = (counted(self.shards, "shard"), Bytes(self.bytes));
        match self.sent {
            0 => writeln!(f, "{shards}, {bytes}: there already")?,
            sent => writeln!(
                f,
                "{shards}, {bytes}, {sent} of them sent in {:.1} s",
                self.seconds
            )?,
        }
        write!(f, "{}", self.address)
    }
}

impl Publish<'_> {
    pub fn run(&self, watch: &mut dyn Observer) -> Result<Published> {
        let began = Instant::now();
        let set = Manifest::load_any(self.dir)?;
        let runtime = runtime(&self.address.text)?;
        let [reader, writer] = [false, true].map(|writes| {
            runtime.block_on(Store::open(self.address.clone(), self.patience, writes))
        });
        let (reader, writer) = (reader?, writer?);
        let there = match runtime.block_on(manifest(&reader)) {
            Err(Error::NoSet { .. }) => None,
            // It is replaced, if at all, whatever it is.
            Err(Error::Manifest { .. }) if self.force => Some(None),
            there => Some(Some(there?)),
        };
        let mut bytes = 0;
        for listed in set.shards() {
            bytes += self.file(&set, listed)?.1;
        }
        let published = |sent| Published {
            address: self.address.text.clone(),
            shards: set.shards().count(),
            sent,
            bytes,
            seconds: began.elapsed().as_secs_f64(),
        };
        match there {
            Some(Some(there)) if there == set && !self.force => return Ok(published(0)),
            Some(Some(there)) if !self.force => {
                return Err(Error::Occupied {
                    address: self.address.text.clone(),
                    fingerprint: there.fingerprint.to_string(),
                });
            }
            _ => {}
        }
        watch.on(&Event::Begin {
            task: "checking".to_owned(),
            unit: UNIT,
            total: bytes / 1000,
        });
        let mut done = 0;
        for (entry, index, listed) in entries(&set) {
            self.check(&set, entry, index, listed)?;
            done += self.file(&set, listed)?.1;
            watch.on(&Event::Advance { done: done / 1000 });
        }
        watch.on(&Event::End);
        if there.is_some() {
            // From here on there is no set, until the new one is whole.
            let gone = runtime.block_on(writer.inner.delete(&writer.path(MANIFEST)));
            gone.map_err(|error| lasting(&writer, MANIFEST, &error))?;
        }
        let sent = runtime.block_on(self.send(&set, &reader, &writer, bytes, watch))?;
        Ok(published(sent))
    }

    /// The file of the shard `listed`, with its length.
    fn file(&self, set: &Manifest, listed: &ShardEntry) -> Result<(File, u64)> {
        let path = self.dir.join(&*set.file(listed));
        let open = || {
            let file = File::open(&path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        Ok(open().map_err(output_error(&path))?)
    }

    /// Compares every byte of a shard with its checksum.
    fn check(
        &self,
        set: &Manifest,
        entry: &tinyres_format::SplitEntry,
        index: usize,
        listed: &ShardEntry,
    ) -> Result<()> {
        let path = self.dir.join(&*set.file(listed));
        let check = || match set.transport {
            Some(Form::Zstd) => {
                let shard = transport::open(&path)?;
                set.check(entry, index, &shard)?;
                shard.verify_columns()?;
                let mut expander = Expander::new()?;
                (0..shard.blocks())
                    .try_for_each(|block| shard.expand_block(block, &mut expander).map(drop))
            }
            None => {
                let file = File::open(&path)?;
                let len = file.metadata()?.len();
                let mut page = [0; PAGE];
                file.read_exact_at(&mut page, 0)?;
                let place = Outline::tail(&page, len)?;
                let mut tail = vec![0; usize::try_from(place.end - place.start).unwrap_or(0)];
                file.read_exact_at(&mut tail, place.start)?;
                let shard = Shard::outline(&page, len, &tail)?;
                set.check(entry, index, &shard)?;
                let mut block = Vec::new();
                (0..shard.blocks()).try_for_each(|number| {
                    let place = shard.range(Part::Block(number));
                    block.resize(place.len(), 0);
                    file.read_exact_at(&mut block, place.start as u64)?;
                    shard.check_block(number, &block)
                })
            }
        };
        Ok(check().map_err(|error: tinyres_format::Error| error.at(&path))?)
    }

    /// Sends what is not there, and returns the number of shards sent.
    async fn send(
        &self,
        set: &Manifest,
        reader: &Store,
        writer: &Store,
        bytes: u64,
        watch: &mut dyn Observer,
    ) -> Result<usize> {
        watch.on(&Event::Begin {
            task: "publishing".to_owned(),
            unit: UNIT,
            total: bytes / 1000,
        });
        let (mut done, mut sent) = (0, 0);
        for listed in set.shards() {
            let name = set.file(listed);
            let (file, len) = self.file(set, listed)?;
            if is_there(reader, &name, &file, len).await? {
                done += len;
                watch.on(&Event::Advance { done: done / 1000 });
                continue;
            }
            sent += 1;
            let path = self.dir.join(&*name);
            let mut upload = Upload {
                store: writer,
                name: &name,
                file,
                path: &path,
                done,
                watch,
            };
            upload.run(len).await?;
            done += len;
        }
        watch.on(&Event::End);
        let json = set.to_json()?;
        let put = |mode| {
            let options = PutOptions::from(mode);
            let payload = PutPayload::from(json.clone());
            async move {
                writer
                    .inner
                    .put_opts(&writer.path(MANIFEST), payload, options)
                    .await
            }
        };
        let put = match put(PutMode::Create).await {
            // Not every store can do that.
            Err(object_store::Error::NotImplemented { .. }) => put(PutMode::Overwrite).await,
            put => put,
        };
        match put {
            // Another one has published here meanwhile.
            Err(object_store::Error::AlreadyExists { .. }) => {
                let there = manifest(reader).await?;
                match there == *set {
                    true => Ok(sent),
                    false => Err(Error::Occupied {
                        address: self.address.text.clone(),
                        fingerprint: there.fingerprint.to_string(),
                    }),
                }
            }
            put => put
                .map(|_| sent)
                .map_err(|error| lasting(writer, MANIFEST, &error)),
        }
    }
}

/// The shards of a set, with their splits and numbers.
fn entries(
    set: &Manifest,
) -> impl Iterator<Item = (&tinyres_format::SplitEntry, usize, &ShardEntry)> {
    let entries = set.splits.iter();
    entries.flat_map(|entry| {
        (entry.shards.iter().enumerate()).map(move |(at, listed)| (entry, at, listed))
    })
}

/// True if the object `name` is the shard in `file`: its header, with the checksums of everything else, is the same, and
/// so is its length.
async fn is_there(store: &Store, name: &str, file: &File, len: u64) -> Result<bool> {
    let mut page = vec![0; PAGE.min(usize::try_from(len).unwrap_or(PAGE))];
    file.read_exact_at(&mut page, 0)
        .map_err(output_error(Path::new(name)))?;
    match store.read(name, 0..page.len() as u64).await {
        Ok((there, there_len, _)) => Ok(there_len == len && there == page),
        // Also an object that is too short for this.
        Err(Error::Missing { .. } | Error::Answer { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// One shard that is sent.
struct Upload<'a> {
    store: &'a Store,
    name: &'a str,
    file: File,
    path: &'a Path,
    /// Bytes of the shards before.
    done: u64,
    watch: &'a mut dyn Observer,
}

impl Upload<'_> {
    async fn run(&mut self, len: u64) -> Result<()> {
        let path = self.store.path(self.name);
        let failed = |store: &Store, name: &str, error| lasting(store, name, &error);
        if len <= PART {
            let payload = self.part()?;
            let put = self.store.inner.put(&path, payload.into()).await;
            put.map_err(|error| failed(self.store, self.name, error))?;
            self.advance(len);
            return Ok(());
        }
        let upload = self.store.inner.put_multipart(&path).await;
        let mut upload = upload.map_err(|error| failed(self.store, self.name, error))?;
        let sent = self.parts(&mut *upload).await;
        let sent = match sent {
            Ok(()) => upload
                .complete()
                .await
                .map(drop)
                .map_err(|error| failed(self.store, self.name, error)),
            Err(error) => Err(error),
        };
        if sent.is_err() {
            // Parts that were sent cost money until they are given up.
            let _ = upload.abort().await;
        }
        sent
    }

    async fn parts(&mut self, upload: &mut dyn object_store::MultipartUpload) -> Result<()> {
        let mut flying = FuturesUnordered::new();
        let mut sent = 0;
        loop {
            let part = self.part()?;
            let is_last = part.is_empty();
            if !is_last {
                let len = part.len() as u64;
                let job = upload.put_part(part.into());
                flying.push(async move { job.await.map(|()| len) });
            }
            while !flying.is_empty() && (is_last || flying.len() >= FLIGHT) {
                let len = flying.next().await.unwrap_or(Ok(0));
                sent += len.map_err(|error| lasting(self.store, self.name, &error))?;
                self.advance(sent);
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The next part of the file; empty at its end.
    fn part(&mut self) -> Result<Vec<u8>> {
        let mut part = Vec::new();
        let read = (&mut self.file).take(PART).read_to_end(&mut part);
        read.map_err(|error: io::Error| output_error(self.path)(error))?;
        Ok(part)
    }

    fn advance(&mut self, sent: u64) {
        self.watch.on(&Event::Advance {
            done: (self.done + sent) / 1000,
        });
    }
}

/// The error of a request that the store's client has given up.
fn lasting(store: &Store, name: &str, error: &object_store::Error) -> Error {
    match store.fault(name, error) {
        Fault::Lasting(Error::Missing { object }) => Error::NoBucket { object },
        Fault::Lasting(error) => error,
        Fault::Passing { reason, .. } => Error::Send {
            object: store.object(name),
            reason,
        },
        Fault::Damage(error) => Error::Format(error),
    }
}
