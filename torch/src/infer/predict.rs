//! What a network sees in pictures of any size.

use std::collections::BTreeMap;
use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use serde::Serialize;
use tch::{Device, Kind, Tensor};
use tinyres::pack::{Decoder, ImageError, Resize};
use tinyres::source;
use tinyres_format::{Class, Shape};

use crate::input::augment::Normalizer;
use crate::libtorch::device::{self, Precision};
use crate::net::ResNet18;
use crate::net::boxes;
use crate::run::checkpoint::Checkpoint;
use crate::{Error, Result};

/// How pictures are given to the network, and what is told of them.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How they are brought to the size that the network takes.
    pub resize: Resize,
    /// Pictures at a time.
    pub batch: NonZeroUsize,
    /// Threads that decode.
    pub threads: NonZeroUsize,
    /// How many of the likeliest classes are told.
    pub top: NonZeroUsize,
    /// Of how many pictures, the first, pixels to draw are kept, and of what side.
    pub drawn: Option<(usize, NonZeroU32)>,
}

/// What was found out about one picture.
#[derive(Debug)]
pub struct Picture {
    /// Its file.
    pub image: PathBuf,
    /// What the network says, or why it could not be asked.
    pub found: std::result::Result<Prediction, ImageError>,
}

/// What the network says of one picture.
#[derive(Debug, Serialize)]
pub struct Prediction {
    /// The likeliest classes, likeliest first.
    pub top: Vec<Guess>,
    /// Left, top, right and bottom edge of what it shows, in pixels of the upright picture, where the
    /// network has a box head.
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    pub bbox: Option<[f64; 4]>,
    /// What to draw, if that was asked for.
    #[serde(skip)]
    pub drawing: Option<Drawing>,
}

/// A class, and how likely it is.
#[derive(Debug, Serialize)]
pub struct Guess {
    /// Its place in the list of classes.
    pub label: usize,
    /// What the source calls it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// From 0 to 1; those of all classes add up to 1.
    pub probability: f64,
}

/// The part of a picture that the network was shown, larger than it was shown.
#[derive(Debug)]
pub struct Drawing {
    /// Its shape.
    pub shape: Shape,
    /// Its pixels, `u8 [3, side, side]`.
    pub pixels: Vec<u8>,
    /// The predicted box, in inclusive pixels.
    pub bbox: Option<[i32; 4]>,
}

/// A network that can be asked about pictures.
#[derive(Debug)]
pub struct Predictor {
    network: ResNet18,
    normalizer: Normalizer,
    classes: Vec<Class>,
    device: Device,
}

impl Predictor {
    /// The network of `checkpoint`, on `device`; it computes as it was trained, or as `precision` says.
    ///
    /// # Errors
    /// Weights that are not whole, or libtorch's.
    pub fn new(
        checkpoint: &Checkpoint,
        device: Device,
        precision: Option<Precision>,
    ) -> Result<Self> {
        let network = checkpoint.network(device)?;
        Ok(Self {
            network: match precision {
                Some(precision) => network.with_precision(precision),
                None => network,
            },
            normalizer: Normalizer::new(checkpoint.about.config.normalize, device)?,
            classes: checkpoint.about.classes.clone(),
            device,
        })
    }

    /// Calls `tell` with each of `images`, in their order. They are read and decoded on threads of their
    /// own while the network runs; batches, and so all figures, are the same for any number of them.
    ///
    /// # Errors
    /// That of `images`, libtorch's, or that of `tell`, at which it stops. A picture that cannot be
    /// decoded is no error.
    pub fn predict<E: From<Error>>(
        &self,
        images: impl Iterator<Item = io::Result<PathBuf>> + Send,
        options: &Options,
        mut tell: impl FnMut(Picture) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let images = Mutex::new(images.enumerate());
        let batch_size = options.batch.get();
        let (send, receive) = mpsc::sync_channel(2 * batch_size);
        thread::scope(|scope| {
            for _ in 0..options.threads.get() {
                let (send, images) = (send.clone(), &images);
                scope.spawn(move || {
                    let mut worker = Worker::new(options);
                    loop {
                        let next = images.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((index, image)) = next else { break };
                        let view = image.map(|image| worker.view(index, image));
                        if send.send((index, view)).is_err() {
                            break; // The network, or who is told, has failed.
                        }
                    }
                });
            }
            drop(send);
            // Threads end with pictures in another order than they began. What is early is small, and no
            // more than what the other threads decode while one decodes the largest picture there may be.
            let (mut early, mut next) = (BTreeMap::new(), 0);
            let mut batch = Vec::with_capacity(batch_size);
            for (index, view) in receive {
                let view = view.map_err(Error::io(Path::new("the list of pictures")))?;
                early.insert(index, view);
                while let Some(view) = early.remove(&next) {
                    next += 1;
                    batch.push(view);
                    if batch.len() == batch_size {
                        self.run(&mut batch, options, &mut tell)?;
                    }
                }
            }
            self.run(&mut batch, options, &mut tell)
        })
    }

    /// Empties `batch`, telling what is found out about each picture of it.
    fn run<E: From<Error>>(
        &self,
        batch: &mut Vec<View>,
        options: &Options,
        tell: &mut impl FnMut(Picture) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let seen: Vec<_> = (batch.iter())
            .filter_map(|view| view.seen.as_ref().ok())
            .collect();
        let mut answers = self.ask(&seen, options)?.into_iter();
        for View { image, seen } in batch.drain(..) {
            let found = seen.map(|seen| {
                let answer = answers.next();
                seen.with(answer.expect("there is an answer for each picture that was seen"))
            });
            tell(Picture { image, found })?;
        }
        Ok(())
    }

    /// What the network says of pictures, in their order.
    fn ask(&self, seen: &[&Seen], options: &Options) -> Result<Vec<Answer>> {
        if seen.is_empty() {
            return Ok(Vec::new());
        }
        let side = i64::from(options.resize.side.get());
        let pixels: Vec<u8> = seen.iter().flat_map(|seen| &seen.pixels).copied().collect();
        let pixels = Tensor::f_from_slice(&pixels)?.f_view([-1, 3, side, side])?;
        tch::no_grad(|| {
            let x = self
                .normalizer
                .apply(&device::upload(&pixels, self.device)?)?;
            let outputs = self.network.outputs(&x, false)?;
            let edges = match &outputs.boxes {
                Some(boxes) => Vec::<Vec<f64>>::try_from(boxes::to_edges(boxes)?)?,
                None => Vec::new(),
            };
            let mut edges = edges.into_iter();
            let probabilities = outputs.logits.f_softmax(1, Kind::Double)?;
            let most = i64::try_from(options.top.get()).unwrap_or(i64::MAX);
            let most = most.min(probabilities.size()[1]);
            let (probabilities, labels) = probabilities.f_topk(most, 1, true, true)?;
            let probabilities = Vec::<Vec<f64>>::try_from(probabilities)?;
            let labels = Vec::<Vec<i64>>::try_from(labels)?;
            let rows = probabilities.into_iter().zip(labels);
            Ok(rows
                .map(|(probabilities, labels)| Answer {
                    top: self.guesses(&probabilities, &labels),
                    edges: edges.next().and_then(|edges| edges.try_into().ok()),
                })
                .collect())
        })
    }

    fn guesses(&self, probabilities: &[f64], labels: &[i64]) -> Vec<Guess> {
        let labels = labels
            .iter()
            .filter_map(|&label| usize::try_from(label).ok());
        (labels.zip(probabilities))
            .map(|(label, &probability)| Guess {
                label,
                id: self.classes[label].id.clone(),
                name: self.classes[label].name.clone(),
                probability,
            })
            .collect()
    }
}

/// What the network says of one picture.
struct Answer {
    top: Vec<Guess>,
    /// The box's left, top, right and bottom edge, in shares of what the network was shown.
    edges: Option<[f64; 4]>,
}

/// A picture as it comes from the threads that decode.
struct View {
    image: PathBuf,
    seen: std::result::Result<Seen, ImageError>,
}

/// What is shown to the network.
struct Seen {
    /// `u8 [3, side, side]`.
    pixels: Vec<u8>,
    /// The edges of that part of the upright picture, in its pixels.
    kept: [f64; 4],
    drawing: Option<(Shape, Vec<u8>)>,
}

impl Seen {
    fn with(self, answer: Answer) -> Prediction {
        let [left, top, right, bottom] = self.kept;
        let bbox = answer.edges.map(|[x0, y0, x1, y1]| {
            let x = |share: f64| left + share.clamp(0.0, 1.0) * (right - left);
            let y = |share: f64| top + share.clamp(0.0, 1.0) * (bottom - top);
            // More digits would claim what no network knows.
            [x(x0), y(y0), x(x1), y(y1)].map(|edge| (10.0 * edge).round() / 10.0)
        });
        let drawing = self.drawing.map(|(shape, pixels)| Drawing {
            shape,
            pixels,
            bbox: answer.edges.map(|edges| touched(edges, shape.width)),
        });
        Prediction {
            top: answer.top,
            bbox,
            drawing,
        }
    }
}

/// The first and last pixels of a square of `side` pixels that a box touches, whose `edges` are shares of
/// it: x0, y0, x1, y1.
fn touched([x0, y0, x1, y1]: [f64; 4], side: u32) -> [i32; 4] {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole numbers that are clamped to a side, which is far below 2^31"
    )]
    let pixel = |at: f64| at.clamp(0.0, f64::from(side - 1)) as i32;
    let first = |share: f64| pixel((share * f64::from(side)).floor());
    let last = |share: f64| pixel((share * f64::from(side)).ceil() - 1.0);
    [first(x0), first(y0), last(x1), last(y1)]
}

/// What one thread decodes with.
struct Worker {
    resize: Resize,
    decoder: Decoder,
    /// For the pictures whose numbers are below the first part.
    larger: Option<(usize, Decoder, Shape)>,
    encoded: Vec<u8>,
}

impl Worker {
    fn new(options: &Options) -> Self {
        let decoder = |side| {
            Decoder::new(Some(Resize {
                side,
                ..options.resize
            }))
        };
        Self {
            resize: options.resize,
            decoder: decoder(options.resize.side),
            larger: (options.drawn)
                .map(|(count, side)| (count, decoder(side), Shape::rgb(side.get()))),
            encoded: Vec::new(),
        }
    }

    fn view(&mut self, index: usize, image: PathBuf) -> View {
        let seen = self.see(index, &image);
        View { image, seen }
    }

    fn see(&mut self, index: usize, image: &Path) -> std::result::Result<Seen, ImageError> {
        source::read(image, &mut self.encoded)
            .map_err(|fault| ImageError::Unreadable(fault.to_string()))?;
        let decode = |decoder: &mut Decoder, shape: Shape| {
            let mut pixels = vec![0; shape.image_len()];
            let decoded = decoder.decode(&self.encoded, None, shape, &mut pixels)?;
            Ok((pixels, decoded))
        };
        let shape = Shape::rgb(self.resize.side.get());
        let (pixels, decoded) = decode(&mut self.decoder, shape)?;
        let drawing = match &mut self.larger {
            Some((count, decoder, shape)) if index < *count => {
                Some((*shape, decode(decoder, *shape)?.0))
            }
            _ => None,
        };
        Ok(Seen {
            pixels,
            kept: self.resize.kept(decoded.size),
            drawing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_go_back_to_where_the_picture_shows_them() {
        let side = NonZeroU32::new(64).unwrap();
        let resize = Resize {
            side,
            squash: false,
        };
        let seen = Seen {
            pixels: Vec::new(),
            kept: resize.kept([400, 200]),
            drawing: Some((Shape::rgb(100), Vec::new())),
        };
        let answer = Answer {
            top: Vec::new(),
            edges: Some([0.25, 0.101, 0.5, 1.2]),
        };
        let prediction = seen.with(answer);
        // The middle 200x200 of 400x200.
        assert_eq!(prediction.bbox, Some([150.0, 20.2, 200.0, 200.0]));
        assert_eq!(prediction.drawing.unwrap().bbox, Some([25, 10, 49, 99]));
    }
}
