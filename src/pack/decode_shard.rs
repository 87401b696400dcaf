//! Decoding of the images of one shard: in parallel, in chunks, each written at its place in the file.
//!
//! The file does not depend on the number of threads, nor on which thread decodes what. Columns,
//! metadata and publishing are left to the caller.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, available_parallelism};
use std::time::Duration;

use tinyres_format::{Shape, Writer, WrittenImages};

use super::decode::{Decoded, Decoder};
use super::{Error, ImageError, Resize, Result};
use crate::source::{self, Item, ItemReader, ReadError, Source, Stamp};

/// Maximum bytes of pixels in a chunk: enough that threads seldom compete for the file, and few enough
/// to stay in a core's cache until they are written. Measured: 384 KiB packs 5 to 15% faster than
/// 96 KiB and than 1 MiB.
const CHUNK_BYTES: usize = 384 << 10;
/// Maximum images in a chunk, so that small images, too, are divided evenly among threads.
const CHUNK_IMAGES: usize = 64;

/// Maximum number of images whose headers decide the size of the shards.
const LOOKED_AT: usize = 64;

/// Time between two reports of progress. Reporting every chunk would take as long as decoding one
/// image in fifty, because each report wakes the observing thread.
const TICK: Duration = Duration::from_millis(50);

/// A decoded image, or why it cannot be packed.
pub(super) type ImageResult = std::result::Result<Decoded, ImageError>;

/// An image after reading and decoding.
pub(super) struct ReadImage {
    pub decoded: ImageResult,
    /// Stamp of its file from before it was read.
    pub stamp: Option<Stamp>,
}

/// Reads and decodes images, one after the other. Each decoding thread has one.
pub(super) struct ImageReader<'a> {
    reader: ItemReader<'a>,
    decoder: Decoder,
}

impl<'a> ImageReader<'a> {
    pub fn new(source: &'a Source, resize: Option<Resize>) -> Self {
        Self {
            reader: source.reader(),
            decoder: Decoder::new(resize),
        }
    }

    /// Side of the images, which must be squares: the most frequent size among [`LOOKED_AT`] of `items`, evenly
    /// spaced, so that one odd image does not decide. If none of these is readable, that of the first readable
    /// image. 1 if there is none: then packing reports all of them as bad, whatever the side.
    pub fn side(&mut self, items: &[&Item]) -> Result<u32> {
        // Each size with its number of images and the name of the first.
        let mut sizes: Vec<([u32; 2], usize, &str)> = Vec::new();
        let count = items.len().min(LOOKED_AT);
        for at in 0..count {
            let item = items[at * items.len() / count];
            if let Some(size) = self.size(item)? {
                match sizes.iter_mut().find(|(known, ..)| *known == size) {
                    Some((_, seen, _)) => *seen += 1,
                    None => sizes.push((size, 1, &item.name)),
                }
            }
        }
        if sizes.is_empty() {
            for item in items {
                if let Some(size) = self.size(item)? {
                    sizes.push((size, 1, &item.name));
                    break;
                }
            }
        }
        // A stable sort: of sizes that are as frequent as each other, the first found is first.
        sizes.sort_by_key(|&(_, seen, _)| Reverse(seen));
        match sizes.first() {
            None => Ok(1),
            Some(&([width, height], ..)) if width == height => Ok(width),
            Some(&(size, _, image)) => {
                let seen = sizes
                    .iter()
                    .take(5)
                    .map(|([width, height], seen, _)| format!("{seen} of {width}x{height}"));
                Err(Error::NotSquare {
                    image: image.to_owned(),
                    size,
                    seen: seen.collect::<Vec<_>>().join(", "),
                })
            }
        }
    }

    /// Width and height of the image, if it is readable.
    fn size(&mut self, item: &Item) -> Result<Option<[u32; 2]>> {
        let size = match self.reader.raw_size(item) {
            Some(size) => self.decoder.checked(size),
            None => match self.reader.read(item) {
                Ok(image) => self.decoder.size(image),
                Err(error) => return image_error(error).map(|_| None),
            },
        };
        match size {
            Err(ImageError::Memory) => Err(no_memory(item)),
            size => Ok(size.ok()),
        }
    }

    /// Decodes `items` to `pixels`, `u8 [items, 3, height, width]`.
    pub fn decode(
        &mut self,
        shape: Shape,
        items: &[&Item],
        pixels: &mut Vec<u8>,
    ) -> Result<Vec<ReadImage>> {
        let len = shape.image_len();
        pixels.resize(items.len() * len, 0);
        self.reader.load(items);
        let mut images = Vec::with_capacity(items.len());
        for (item, pixels) in items.iter().zip(pixels.chunks_exact_mut(len)) {
            let decoded = match self.reader.read(item) {
                Ok(image) => self.decoder.decode(image, item.bbox, shape, pixels),
                Err(error) => Err(image_error(error)?),
            };
            if decoded == Err(ImageError::Memory) {
                return Err(no_memory(item));
            }
            let stamp = self.reader.stamp();
            images.push(ReadImage { decoded, stamp });
        }
        Ok(images)
    }
}

/// State that the threads share while they decode and write the images of one shard.
struct ShardJob<'a> {
    shape: Shape,
    writer: &'a Writer,
    /// Items of each chunk; all but the last have `chunk_len`.
    chunks: Vec<&'a [&'a Item]>,
    chunk_len: usize,
    /// Index of the first chunk that no thread has begun.
    next: AtomicUsize,
    /// Images decoded since the last report of progress.
    images: AtomicU64,
    /// Buffers of written chunks, to use again: the kernel has to clear new memory first.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Consecutive images that one thread decoded and that are still to be written.
struct Chunk {
    index: usize,
    pixels: Vec<u8>,
    images: Vec<ReadImage>,
}

/// A chunk whose pixels are in the file. A chunk with a bad image is not written.
struct WrittenChunk {
    index: usize,
    written: Option<WrittenImages>,
    images: Vec<ReadImage>,
}

impl ShardJob<'_> {
    /// Decodes chunks until none is left and sends them to `to_writer`. Writes a chunk itself if the
    /// writing thread is busy, or if there is none.
    fn decode(
        &self,
        reader: &mut ImageReader<'_>,
        to_writer: &SyncSender<Chunk>,
    ) -> Result<Vec<WrittenChunk>> {
        let mut written = Vec::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(items) = self.chunks.get(index) else {
                return Ok(written);
            };
            let mut pixels = self.spare().pop().unwrap_or_default();
            let images = reader.decode(self.shape, items, &mut pixels)?;
            let chunk = Chunk {
                index,
                pixels,
                images,
            };
            match to_writer.try_send(chunk) {
                Ok(()) => {}
                Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => {
                    written.push(self.write(chunk)?);
                }
            }
            self.images.fetch_add(items.len() as u64, Ordering::Relaxed);
        }
    }

    fn write(&self, chunk: Chunk) -> Result<WrittenChunk> {
        let first = (chunk.index * self.chunk_len) as u64;
        let good = chunk.images.iter().all(|image| image.decoded.is_ok());
        let written = good.then(|| self.writer.write_at(first, &chunk.pixels));
        let written = written.transpose()?;
        self.spare().push(chunk.pixels);
        Ok(WrittenChunk {
            index: chunk.index,
            written,
            images: chunk.images,
        })
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps all threads from beginning another chunk.
    fn stop(&self) {
        self.next.fetch_max(self.chunks.len(), Ordering::Relaxed);
    }
}

/// Decodes `items` with a thread for each of `readers`, and writes each image at its place in
/// `writer`. If all images are good, they become the shard's images; otherwise the shard gets none.
/// Returns a result for each item, in order, and the number of threads that decoded. Calls `advance` with the
/// number of images done since the last call.
///
/// Writing takes a tenth of the time of decoding. If a core is left, another thread does it. If the system
/// gives fewer threads, those that there are do the work, at the least the calling one.
pub(super) fn decode_shard(
    readers: &mut [ImageReader<'_>],
    shape: Shape,
    writer: &mut Writer,
    items: &[&Item],
    mut advance: impl FnMut(u64),
) -> Result<(Vec<ReadImage>, usize)> {
    let chunk_len = (CHUNK_BYTES / shape.image_len()).clamp(1, CHUNK_IMAGES);
    let job = ShardJob {
        shape,
        writer,
        chunks: items.chunks(chunk_len).collect(),
        chunk_len,
        next: AtomicUsize::new(0),
        images: AtomicU64::new(0),
        spare: Mutex::default(),
    };
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    // Each belongs to one thread, if that can be started.
    let readers: Vec<_> = readers.iter_mut().map(Mutex::new).collect();
    let readers = &readers;
    // Carries no message: it disconnects when the last decoding thread drops its end.
    let (working, ended) = mpsc::channel::<()>();
    let (mut chunks, decoding) = std::thread::scope(|scope| {
        let job = &job;
        let (to_writer, decoded) = mpsc::sync_channel(1);
        let writer = move || {
            let written = decoded.iter().map(|chunk| job.write(chunk)).collect();
            Result::inspect_err(written, |_| job.stop())
        };
        let mut threads = Vec::new();
        if cores > readers.len() {
            threads.extend(Builder::new().spawn_scoped(scope, writer));
        } else {
            drop(writer); // Disconnects the channel: decoding threads write their own chunks.
        }
        let (mut decoding, mut chunks) = (0, Vec::new());
        for reader in readers {
            let (working, to_writer) = (working.clone(), to_writer.clone());
            let decode = move || {
                let _working = working;
                let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                let written = job.decode(&mut reader, &to_writer);
                written.inspect_err(|_| job.stop())
            };
            match Builder::new().spawn_scoped(scope, decode.clone()) {
                Ok(thread) => threads.push(thread),
                Err(_) if decoding > 0 => break,
                Err(_) => {
                    chunks.extend(decode()?);
                    decoding = 1;
                    break;
                }
            }
            decoding += 1;
        }
        drop((working, to_writer));
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(TICK) {
            advance(job.images.swap(0, Ordering::Relaxed));
        }
        for thread in threads {
            chunks.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        advance(job.images.swap(0, Ordering::Relaxed));
        Ok::<_, Error>((chunks, decoding))
    })?;
    chunks.sort_unstable_by_key(|chunk| chunk.index);
    let good = chunks.iter().all(|chunk| chunk.written.is_some());
    let mut images = Vec::with_capacity(items.len());
    for chunk in chunks {
        if let Some(written) = chunk.written.filter(|_| good) {
            writer.push(written)?;
        }
        images.extend(chunk.images);
    }
    Ok((images, decoding))
}

fn no_memory(item: &Item) -> Error {
    Error::Memory {
        image: item.name.clone(),
    }
}

/// Damaged bytes are the fault of the image. Any other failure to read ends the pack.
fn image_error(error: source::Error) -> Result<ImageError> {
    match error {
        source::Error::Read {
            reason:
                reason @ (ReadError::Entry { .. } | ReadError::Checksum { .. } | ReadError::Row { .. }),
            ..
        } => Ok(ImageError::Unreadable(reason.to_string())),
        error => Err(error.into()),
    }
}
