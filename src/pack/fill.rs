use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tinyres_format::{BLOCK_IMAGES, Run, Shape, Writer};

use super::decode::{Decoded, Decoder};
use super::{Bad, Error, Resize, Result};
use crate::source::{self, Fault, Item, Source};

/// Pixels that a thread decodes between two writes, in bytes: enough that threads seldom meet at the
/// file, and few enough to stay in a core's cache until they are written. Measured: 384 KiB packs 5
/// to 15% faster than 96 KiB and than 1 MiB.
const PIECE: usize = 384 << 10;

/// What an image became, or why it cannot be packed.
pub(super) type Outcome = std::result::Result<Decoded, Bad>;

/// What one thread decodes with.
pub(super) struct Worker {
    decoder: Decoder,
    encoded: Vec<u8>,
    pixels: Vec<u8>,
}

/// Images that one thread decoded.
struct Piece {
    run: Option<Run>,
    outcomes: Vec<Outcome>,
}

impl Worker {
    pub fn new(resize: Option<Resize>) -> Self {
        Self {
            decoder: Decoder::new(resize),
            encoded: Vec::new(),
            pixels: Vec::new(),
        }
    }

    /// Side of the first image of `items` that can be read, which must be a square. Where none can be,
    /// they are all bad, and any side will do to say so.
    pub fn side<'a>(
        &mut self,
        source: &Source,
        items: impl Iterator<Item = &'a Item>,
    ) -> Result<u32> {
        for item in items {
            match source.read(item, &mut self.encoded) {
                Ok(()) => {}
                Err(error) => {
                    damage(error)?;
                    continue;
                }
            }
            match self.decoder.size(&self.encoded) {
                Ok([width, height]) if width == height => return Ok(width),
                Ok(size) => {
                    let image = item.name.clone();
                    return Err(Error::NotSquare { image, size });
                }
                Err(_) => {}
            }
        }
        Ok(1)
    }

    /// Decodes `items` and writes them from image `first` on, if none of them is bad.
    fn decode(
        &mut self,
        source: &Source,
        shape: Shape,
        writer: &Writer,
        first: usize,
        items: &[&Item],
    ) -> Result<Piece> {
        let len = shape.image_len();
        self.pixels.resize(items.len() * len, 0);
        let mut outcomes = Vec::with_capacity(items.len());
        for (item, pixels) in items.iter().zip(self.pixels.chunks_exact_mut(len)) {
            outcomes.push(match source.read(item, &mut self.encoded) {
                Ok(()) => self.decoder.decode(&self.encoded, item.bbox, shape, pixels),
                Err(error) => Err(damage(error)?),
            });
        }
        let run = if outcomes.iter().all(Outcome::is_ok) {
            Some(writer.write_at(first as u64, &self.pixels)?)
        } else {
            None
        };
        Ok(Piece { run, outcomes })
    }
}

/// Decodes `items`, a thread for each of `workers`, and writes each image at its place in `writer`.
/// They become the shard's images, unless one of them is bad. `advance` is told of each number of
/// images that is done.
pub(super) fn fill(
    workers: &mut [Worker],
    source: &Source,
    shape: Shape,
    writer: &mut Writer,
    items: &[&Item],
    mut advance: impl FnMut(u64),
) -> Result<Vec<Outcome>> {
    let per_piece = (PIECE / shape.image_len()).clamp(1, BLOCK_IMAGES);
    let pieces: Vec<&[&Item]> = items.chunks(per_piece).collect();
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    let mut done = std::thread::scope(|scope| {
        let (writer, pieces, next) = (&*writer, &pieces, &next);
        for worker in workers {
            let send = send.clone();
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(items) = pieces.get(index) else {
                        break;
                    };
                    let piece = worker.decode(source, shape, writer, index * per_piece, items);
                    if send.send((index, piece)).is_err() {
                        break; // Another thread has failed.
                    }
                }
            });
        }
        drop(send);
        let mut done = Vec::with_capacity(pieces.len());
        for (index, piece) in receive {
            advance(pieces[index].len() as u64);
            done.push((index, piece?));
        }
        Ok::<_, Error>(done)
    })?;
    done.sort_unstable_by_key(|(index, _)| *index);
    let whole = done.iter().all(|(_, piece)| piece.run.is_some());
    let mut outcomes = Vec::with_capacity(items.len());
    for (_, piece) in done {
        if let Some(run) = piece.run.filter(|_| whole) {
            writer.push(run)?;
        }
        outcomes.extend(piece.outcomes);
    }
    Ok(outcomes)
}

/// Bytes that are not as they were written are the image's fault; that they could not be read is not.
fn damage(error: source::Error) -> Result<Bad> {
    match error {
        source::Error::Read {
            fault: fault @ (Fault::Entry { .. } | Fault::Checksum { .. }),
            ..
        } => Ok(Bad::Unreadable(fault.to_string())),
        error => Err(error.into()),
    }
}
