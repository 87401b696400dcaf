//! One shard on its way: what it is made of, what of it is there already, and the rest, checked block by block.
//!
//! The raw shard grows in `NAME.part`, which has its final length from the start. Header and columns come first. With
//! them, each block of pixels is compared with its checksum as soon as it came, before it is written, and so is each that
//! a broken fetch left. Nothing else has to be remembered of it.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tinyres::scratch::{OutputError, output_error};
use tinyres_format::transport::{Expander, ReadAt};
use tinyres_format::{Form, Manifest, Outline, PAGE, Part, Shard, ShardEntry, ZstdShard, publish};

use crate::answers::Fault;
use crate::error::{Error, Result};
use crate::store::{Retry, Store, ended};

/// Bytes that are asked for at once.
pub const PART: u64 = 16 << 20;
/// Bytes at the beginning and at the end of a compressed shard that are read first: header, columns, metadata and seek
/// table of most shards.
const ENDS: [u64; 2] = [64 << 10, 1 << 20];

/// A shard without its pixels, in the form that the store has.
enum Known {
    Raw(Shard<Outline>),
    Zstd(ZstdShard<Ends>),
}

/// The beginning and the end of an object.
struct Ends {
    len: u64,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl ReadAt for Ends {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = self.len - self.last.len() as u64;
        let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (bytes, offset) = match offset.checked_sub(start) {
            Some(offset) => (&self.last[..], offset),
            None => (&self.first[..], offset),
        };
        let offset = usize::try_from(offset).map_err(|_| missing())?;
        let end = offset.checked_add(buffer.len()).ok_or_else(missing)?;
        buffer.copy_from_slice(bytes.get(offset..end).ok_or_else(missing)?);
        Ok(())
    }
}

/// A shard whose blocks come.
pub struct Incoming {
    store: Store,
    /// The object's name, below the address.
    name: String,
    version: Option<String>,
    known: Known,
    file: File,
    part: PathBuf,
    to: PathBuf,
    /// Runs of blocks to fetch, at most [`PART`] bytes each unless one block has more.
    pub jobs: Vec<Range<u64>>,
    /// Number of jobs that are not done.
    open: AtomicU64,
    /// Bytes of it that were there.
    pub there: u64,
}

impl Incoming {
    /// Reads all but the pixels of the shard `listed`, number `index` of its split in `manifest`, and finds out what of
    /// it is in `dir` already.
    pub async fn begin(
        store: &Store,
        manifest: &Manifest,
        listed: &ShardEntry,
        dir: &Path,
    ) -> Result<Self> {
        let name = manifest.file(listed).into_owned();
        let (known, version) = match manifest.transport {
            None => raw(store, &name, listed).await?,
            Some(Form::Zstd) => compressed(store, &name, listed).await?,
        };
        let part = dir.join(format!("{}.part", listed.file));
        let mut incoming = Self {
            store: store.clone(),
            name,
            version,
            known,
            file: open(&part).map_err(output_error(&part))?,
            to: dir.join(&listed.file),
            part,
            jobs: Vec::new(),
            open: AtomicU64::new(0),
            there: 0,
        };
        // Reads what a broken fetch left.
        tokio::task::spawn_blocking(move || {
            incoming
                .take_stock()
                .map_err(output_error(&incoming.part))?;
            Ok(incoming)
        })
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn shard(&self) -> &dyn Blocks {
        match &self.known {
            Known::Raw(shard) => shard,
            Known::Zstd(shard) => shard,
        }
    }

    /// Writes all but the pixels to the file, and lists the runs of blocks that are missing.
    fn take_stock(&mut self) -> io::Result<()> {
        let len = self.shard().bytes().len() as u64;
        let begun = self.file.metadata()?.len() == len;
        self.file.set_len(len)?;
        let tail = self.shard().place(Part::Tail);
        (self.file).write_all_at(&self.shard().bytes()[..PAGE], 0)?;
        (self.file).write_all_at(&self.shard().bytes()[tail.clone()], tail.start as u64)?;
        let (mut jobs, mut there, mut block) = (Vec::<Range<u64>>::new(), 0, Vec::new());
        for number in 0..self.shard().count() {
            let place = self.shard().place(Part::Block(number));
            block.resize(place.len(), 0);
            let is_there = begun && {
                ReadAt::read_exact_at(&self.file, &mut block, place.start as u64)?;
                self.shard().is_block(number, &block)
            };
            if is_there {
                there += place.len() as u64;
                continue;
            }
            let bytes =
                |run: &Range<u64>| self.shard().remote(run).map_or(0, |at| at.end - at.start);
            match jobs.last_mut() {
                Some(last) if last.end == number && bytes(&(last.start..number + 1)) <= PART => {
                    last.end += 1;
                }
                _ => jobs.push(number..number + 1),
            }
        }
        self.open = AtomicU64::new(jobs.len() as u64);
        (self.jobs, self.there) = (jobs, there);
        Ok(())
    }

    /// Fetches a run of blocks, and adds the bytes of each to `done`. Gives the shard its name if it was the last run.
    pub async fn fetch(&self, run: Range<u64>, done: &AtomicU64) -> Result<()> {
        let mut retry = Retry::new(&self.store, &self.name);
        let mut taking = Taking {
            next: run.start,
            buffer: Vec::new(),
            expander: None,
            taken: 0,
        };
        while taking.next < run.end {
            let attempt = self.attempt(&mut taking, run.end, done).await;
            if let Err(fault) = attempt {
                retry
                    .after(fault, taking.taken + taking.buffer.len() as u64)
                    .await?;
            }
        }
        match self.open.fetch_sub(1, Ordering::AcqRel) {
            1 => self.finish().await,
            _ => Ok(()),
        }
    }

    async fn attempt(
        &self,
        taking: &mut Taking,
        end: u64,
        done: &AtomicU64,
    ) -> std::result::Result<(), Fault> {
        let run = taking.next..end;
        let mut range = self.shard().remote(&run).unwrap_or_default();
        let whole = range.end;
        range.start += taking.buffer.len() as u64;
        let mut at = range.start;
        let answer = self
            .store
            .get(&self.name, Some(range), self.version.as_ref());
        let mut bytes = answer.await?.bytes;
        while let Some(chunk) = bytes.next().await {
            let chunk: Bytes = chunk.map_err(|error| self.store.fault(&self.name, &error))?;
            at += chunk.len() as u64;
            taking.buffer.extend_from_slice(&chunk);
            self.take(taking, end, done)?;
        }
        match at < whole {
            true => Err(ended(at, whole)),
            false => Ok(()),
        }
    }

    /// Writes the whole blocks at the front of the buffer, if they match their checksums.
    fn take(
        &self,
        taking: &mut Taking,
        end: u64,
        done: &AtomicU64,
    ) -> std::result::Result<(), Fault> {
        let mut used = 0;
        let result = loop {
            let next = taking.next;
            let Some(frame) = self.shard().remote(&(next..next + 1)) else {
                break Ok(());
            };
            let len = usize::try_from(frame.end - frame.start).unwrap_or(usize::MAX);
            let Some(bytes) = taking.buffer.get(used..).and_then(|rest| rest.get(..len)) else {
                break Ok(());
            };
            if next == end {
                break Ok(());
            }
            let pixels = match self.shard().pixels(next, bytes, &mut taking.expander) {
                Ok(pixels) => pixels,
                Err(error) => break Err(Fault::Damage(error)),
            };
            let place = self.shard().place(Part::Block(next));
            if let Err(error) = self.file.write_all_at(pixels, place.start as u64) {
                break Err(Fault::Lasting(output_error(&self.part)(error).into()));
            }
            used += len;
            taking.next += 1;
            taking.taken += len as u64;
            done.fetch_add(place.len() as u64, Ordering::Relaxed);
        };
        match result {
            // Damaged bytes are read again.
            Err(Fault::Damage(_)) => taking.buffer.clear(),
            _ => drop(taking.buffer.drain(..used)),
        }
        result
    }

    /// Gives the shard, which is whole, its name.
    pub async fn finish(&self) -> Result<()> {
        let (file, part, to) = (self.file.try_clone(), self.part.clone(), self.to.clone());
        let finish = move || -> std::result::Result<(), OutputError> {
            file.and_then(|file| file.sync_all())
                .map_err(output_error(&part))?;
            fs::rename(&part, &to).map_err(output_error(&to))?;
            publish::sync_parent(&to).map_err(output_error(&to))?;
            Ok(())
        };
        let finished = tokio::task::spawn_blocking(finish).await;
        finished.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(())
    }
}

/// Progress of a run of blocks.
struct Taking {
    /// The block that comes next.
    next: u64,
    /// Its bytes that have come.
    buffer: Vec<u8>,
    expander: Option<Expander>,
    /// Bytes of the blocks before it.
    taken: u64,
}

/// The parts that both forms of a shard have.
trait Blocks: Sync {
    /// All but the pixels.
    fn bytes(&self) -> &[u8];
    fn count(&self) -> u64;
    /// The place of a part in the raw shard.
    fn place(&self, part: Part) -> Range<usize>;
    /// The place of a run of blocks in the object; `None` if it has no such blocks.
    fn remote(&self, run: &Range<u64>) -> Option<Range<u64>>;
    fn is_block(&self, block: u64, pixels: &[u8]) -> bool;
    /// The pixels of a block from its bytes in the object, checked.
    fn pixels<'a>(
        &self,
        block: u64,
        bytes: &'a [u8],
        expander: &'a mut Option<Expander>,
    ) -> tinyres_format::Result<&'a [u8]>;
}

impl Blocks for Shard<Outline> {
    fn bytes(&self) -> &[u8] {
        (**self).bytes()
    }

    fn count(&self) -> u64 {
        self.blocks()
    }

    fn place(&self, part: Part) -> Range<usize> {
        self.range(part)
    }

    fn remote(&self, run: &Range<u64>) -> Option<Range<u64>> {
        let last = run
            .end
            .checked_sub(1)
            .filter(|last| *last < self.blocks())?;
        let (first, last) = (
            self.range(Part::Block(run.start)),
            self.range(Part::Block(last)),
        );
        Some(first.start as u64..last.end as u64)
    }

    fn is_block(&self, block: u64, pixels: &[u8]) -> bool {
        self.check_block(block, pixels).is_ok()
    }

    fn pixels<'a>(
        &self,
        block: u64,
        bytes: &'a [u8],
        _: &'a mut Option<Expander>,
    ) -> tinyres_format::Result<&'a [u8]> {
        self.check_block(block, bytes).map(|()| bytes)
    }
}

impl Blocks for ZstdShard<Ends> {
    fn bytes(&self) -> &[u8] {
        (**self).bytes()
    }

    fn count(&self) -> u64 {
        self.blocks()
    }

    fn place(&self, part: Part) -> Range<usize> {
        self.range(part)
    }

    fn remote(&self, run: &Range<u64>) -> Option<Range<u64>> {
        let last = self.frame(run.end.checked_sub(1)?)?;
        Some(self.frame(run.start)?.start..last.end)
    }

    fn is_block(&self, block: u64, pixels: &[u8]) -> bool {
        self.check_block(block, pixels).is_ok()
    }

    fn pixels<'a>(
        &self,
        block: u64,
        bytes: &'a [u8],
        expander: &'a mut Option<Expander>,
    ) -> tinyres_format::Result<&'a [u8]> {
        let expander = match expander {
            Some(expander) => expander,
            None => expander.insert(Expander::new()?),
        };
        self.expand_frame(block, bytes, expander)
    }
}

/// Opens the file of an unfinished shard, which may be there.
fn open(part: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(part)
}

/// All but the pixels of a raw shard.
async fn raw(store: &Store, name: &str, listed: &ShardEntry) -> Result<(Known, Option<String>)> {
    again(store, name, async || {
        let (head, len, version) = store.read(name, 0..PAGE as u64).await?;
        same(store, name, "length", len, listed.bytes)?;
        let page = page(&head)?;
        let digest = tinyres_format::Digest::of(page);
        same(store, name, "SHA-256 of the header", digest, listed.digest)?;
        let tail = Outline::tail(page, len).map_err(Fault::Damage)?;
        let (tail, ..) = store.read(name, tail).await?;
        let shard = Shard::outline(page, len, &tail).map_err(Fault::Damage)?;
        Ok((Known::Raw(shard), version))
    })
    .await
}

/// All but the pixels of a shard in its transport form.
async fn compressed(
    store: &Store,
    name: &str,
    listed: &ShardEntry,
) -> Result<(Known, Option<String>)> {
    again(store, name, async || {
        let [first, mut last] = ENDS;
        let (first, len, version) = store.read(name, 0..first).await?;
        let shard = loop {
            let end = len.saturating_sub(last)..len;
            let ends = Ends {
                len,
                first: first.clone(),
                last: store.read(name, end).await?.0,
            };
            match ZstdShard::open(ends) {
                Err(tinyres_format::Error::Io(error))
                    if error.kind() == io::ErrorKind::UnexpectedEof && last < len =>
                {
                    last = last.saturating_mul(8);
                }
                shard => break shard.map_err(Fault::Damage)?,
            }
        };
        same(
            store,
            name,
            "SHA-256 of the header",
            shard.digest(),
            listed.digest,
        )?;
        shard.verify_columns().map_err(Fault::Damage)?;
        Ok((Known::Zstd(shard), version))
    })
    .await
}

/// Repeats `attempt` when what came is damaged.
async fn again<T>(
    store: &Store,
    name: &str,
    attempt: impl AsyncFn() -> std::result::Result<T, Fault>,
) -> Result<T> {
    let mut retry = Retry::new(store, name);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(fault) => retry.after(fault, 0).await?,
        }
    }
}

fn page(bytes: &[u8]) -> std::result::Result<&[u8; PAGE], Fault> {
    bytes
        .first_chunk()
        .ok_or_else(|| ended(bytes.len() as u64, PAGE as u64))
}

/// Checks that the object is the listed shard by one of its properties.
fn same<T: PartialEq + std::fmt::Display>(
    store: &Store,
    name: &str,
    what: &'static str,
    found: T,
    expected: T,
) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::Other {
            object: store.object(name),
            what,
            found: format!("{found:.12}"),
            expected: format!("{expected:.12}"),
        }),
    }
}
