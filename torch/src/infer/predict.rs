//! Predictions for pictures: files of any size and format that can be packed. Threads read and decode them while the network
//! runs. A picture that cannot be decoded costs no other one; reporting it is the caller's.

use std::collections::BTreeMap;
use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use serde::Serialize;
use tch::{Device, Kind, Tensor};
use tinyres::pack::{Decoder, ImageError, Resize};
use tinyres::picture::Panel;
use tinyres::source::{self, Image};
use tinyres_format::{Class, Shape};

use crate::input::{self, Normalizer};
use crate::libtorch::device::{self, Precision};
use crate::libtorch::{PerWorker, Workers};
use crate::net::ResNet18;
use crate::net::boxes;
use crate::run::checkpoint::Checkpoint;
use crate::{Error, Result};

/// How pictures are decoded, and what a prediction contains.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How they are resized for the network.
    pub resize: Resize,
    /// Side, in pixels, of what the network takes: the pictures are scaled to it after that, as in training.
    pub size: NonZeroU32,
    /// Pictures in a batch.
    pub batch: NonZeroUsize,
    /// Number of threads that decode.
    pub threads: NonZeroUsize,
    /// Number of classes in a prediction, the likeliest ones.
    pub top: NonZeroUsize,
    /// Keep pixels to draw: of this many pictures, the first ones, squares of this side.
    pub drawn: Option<(usize, NonZeroU32)>,
}

/// The result for one picture.
#[derive(Debug)]
pub struct PictureResult {
    /// The file.
    pub image: PathBuf,
    /// The prediction, or why the picture cannot be decoded.
    pub found: std::result::Result<Prediction, ImageError>,
}

/// The prediction for one picture.
#[derive(Debug, Serialize)]
pub struct Prediction {
    /// The likeliest classes, likeliest first.
    pub top: Vec<Guess>,
    /// Left, top, right and bottom edge of the object, in pixels of the upright picture, if the network has
    /// a box head.
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    pub bbox: Option<[f64; 4]>,
    /// The pixels to draw, for the pictures that [`Options::drawn`] asks for.
    #[serde(skip)]
    pub drawing: Option<Drawing>,
}

/// A class and its probability.
#[derive(Debug, Serialize)]
pub struct Guess {
    /// The label: its index in the list of classes.
    pub label: usize,
    /// The identifier in the source.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// Probability, from 0 to 1: the softmax over all classes.
    pub probability: f64,
}

/// The part of a picture that the network was given, in more pixels.
#[derive(Debug)]
pub struct Drawing {
    /// The shape of the pixels.
    pub shape: Shape,
    /// `u8 [3, side, side]`.
    pub pixels: Vec<u8>,
    /// The predicted box in these pixels: left, top, right and bottom pixel, inclusive.
    pub bbox: Option<[i32; 4]>,
}

impl Drawing {
    /// Panel of this drawing, with `caption` under it.
    #[must_use]
    pub fn panel<'a>(&'a self, caption: &'a str) -> Panel<'a> {
        Panel {
            shape: self.shape,
            pixels: &self.pixels,
            bbox: self.bbox,
            caption,
        }
    }
}

/// A network ready to predict.
#[derive(Debug)]
pub struct Predictor {
    workers: Workers,
    networks: PerWorker<Network>,
    classes: Vec<Class>,
}

/// The network of one worker, and what it needs of the pixels.
#[derive(Debug)]
struct Network {
    network: ResNet18,
    normalizer: Normalizer,
}

/// Batches that are computed together, for each worker: with more than one, a worker that is held up leaves some of them to
/// the others.
const ROUNDS: usize = 2;

impl Predictor {
    /// The network of `checkpoint`, on `device`, in the precision of its training if `precision` is `None`.
    ///
    /// # Errors
    /// [`Error::Weights`] if the weights do not fit the network.
    pub fn new(
        checkpoint: &Checkpoint,
        device: Device,
        precision: Option<Precision>,
    ) -> Result<Self> {
        let mut network = checkpoint.network(device)?;
        if let Some(precision) = precision {
            network = network.with_precision(precision);
        }
        let workers = Workers::on(device);
        let normalizer = Normalizer::new(checkpoint.about.config.normalize, device)?;
        let networks = PerWorker::new(&workers, || {
            Ok(Network {
                network: network.share()?,
                normalizer: normalizer.share(),
            })
        })?;
        Ok(Self {
            workers,
            networks,
            classes: checkpoint.about.classes.clone(),
        })
    }

    /// Calls `report` with the result for each of `images`, in their order. Other threads read and decode
    /// them while the network runs. The batches, and so all results, do not depend on the number of threads.
    ///
    /// # Errors
    /// The first error of `images`, of libtorch or of `report`; [`Error::Threads`]. A picture that cannot be decoded is a
    /// result, not an error.
    pub fn predict<E: From<Error>>(
        &self,
        images: impl Iterator<Item = io::Result<PathBuf>> + Send,
        options: &Options,
        mut report: impl FnMut(PictureResult) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let images = Mutex::new(images.enumerate());
        let together = match self.workers.count() {
            1 => options.batch.get(),
            workers => ROUNDS * workers * options.batch.get(),
        };
        let (send, receive) = mpsc::sync_channel(2 * together);
        thread::scope(|scope| {
            for started in 0..options.threads.get() {
                let (send, images) = (send.clone(), &images);
                let spawned = thread::Builder::new().spawn_scoped(scope, move || {
                    let mut decoder = PictureDecoder::new(options);
                    loop {
                        let next = images.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((index, image)) = next else { break };
                        let picture = image.map(|image| decoder.decode(index, image));
                        if send.send((index, picture)).is_err() {
                            break; // The network or `report` has failed.
                        }
                    }
                });
                match spawned {
                    Ok(_) => {}
                    Err(error) if started == 0 => Err(Error::Threads(error))?,
                    // Those that have started decode all pictures.
                    Err(_) => break,
                }
            }
            drop(send);
            // Pictures arrive in the order in which they are decoded. Those that are early wait here for the
            // `next` one. They are as many as the other threads decode during the slowest picture.
            let (mut early, mut next) = (BTreeMap::new(), 0);
            let mut batches = Vec::with_capacity(together);
            for (index, picture) in receive {
                let picture = picture.map_err(Error::io(Path::new("the list of pictures")))?;
                early.insert(index, picture);
                while let Some(picture) = early.remove(&next) {
                    next += 1;
                    batches.push(picture);
                    if batches.len() == together {
                        self.run(&mut batches, options, &mut report)?;
                    }
                }
            }
            self.run(&mut batches, options, &mut report)
        })
    }

    /// Empties `pictures`, which is one batch or several, and reports the result for each.
    fn run<E: From<Error>>(
        &self,
        pictures: &mut Vec<DecodedPicture>,
        options: &Options,
        report: &mut impl FnMut(PictureResult) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let inputs: Vec<_> = (pictures.iter())
            .filter_map(|picture| picture.input.as_ref().ok())
            .collect();
        let batches = inputs.chunks(options.batch.get()).collect();
        let outputs = self.workers.each(batches, |worker, inputs| {
            tch::no_grad(|| self.networks.of(worker).forward(inputs, options))
        })?;
        let mut outputs = outputs.into_iter().flatten();
        for DecodedPicture { image, input } in pictures.drain(..) {
            let found = input.map(|input| {
                let output = outputs.next();
                let output = output.expect("there is an output for each input");
                input.prediction(self.guesses(&output), output.edges)
            });
            report(PictureResult { image, found })?;
        }
        Ok(())
    }

    fn guesses(&self, output: &NetworkOutput) -> Vec<Guess> {
        let guess = |&(label, probability): &(i64, f64)| {
            let label = usize::try_from(label).ok()?;
            let class = self.classes.get(label)?;
            Some(Guess {
                label,
                id: class.id.clone(),
                name: class.name.clone(),
                probability,
            })
        };
        output.top.iter().filter_map(guess).collect()
    }
}

impl Network {
    /// The outputs for `inputs`, in their order.
    fn forward(&self, inputs: &[&NetworkInput], options: &Options) -> Result<Vec<NetworkOutput>> {
        let side = i64::from(options.resize.side.get());
        let pixels: Vec<u8> = inputs
            .iter()
            .flat_map(|input| &input.pixels)
            .copied()
            .collect();
        let pixels = Tensor::f_from_slice(&pixels)?.f_view([-1, 3, side, side])?;
        let device = self.network.device();
        let mut pixels = device::upload(&pixels, device)?;
        let [from, to] = [options.resize.side, options.size].map(|side| (side.get(), side.get()));
        if let Some(resize) = input::Resize::new(from, to, device)? {
            pixels = resize.apply(&pixels)?;
        }
        let outputs = (self.network).outputs(&self.normalizer.apply(&pixels)?, false)?;
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
        let rows = labels.into_iter().zip(probabilities);
        Ok(rows
            .map(|(labels, probabilities)| NetworkOutput {
                top: labels.into_iter().zip(probabilities).collect(),
                edges: edges.next().and_then(|edges| edges.try_into().ok()),
            })
            .collect())
    }
}

/// The output of the network for one input.
struct NetworkOutput {
    /// The likeliest labels and their probabilities.
    top: Vec<(i64, f64)>,
    /// Left, top, right and bottom edge of the box, as fractions of the input's side.
    edges: Option<[f64; 4]>,
}

/// A picture as it comes from the threads that decode.
struct DecodedPicture {
    image: PathBuf,
    input: std::result::Result<NetworkInput, ImageError>,
}

/// The input of the network: a picture cut and resized.
struct NetworkInput {
    /// `u8 [3, side, side]`.
    pixels: Vec<u8>,
    /// Left, top, right and bottom edge of the kept part of the upright picture, in its pixels.
    kept: [f64; 4],
    drawing: Option<(Shape, Vec<u8>)>,
}

impl NetworkInput {
    /// Converts the network's `edges` for this input to pixels of the picture.
    fn prediction(self, guesses: Vec<Guess>, edges: Option<[f64; 4]>) -> Prediction {
        let [left, top, right, bottom] = self.kept;
        let bbox = edges.map(|[x0, y0, x1, y1]| {
            let x = |fraction: f64| left + fraction.clamp(0.0, 1.0) * (right - left);
            let y = |fraction: f64| top + fraction.clamp(0.0, 1.0) * (bottom - top);
            // Rounded to a tenth of a pixel, which is finer than any prediction.
            [x(x0), y(y0), x(x1), y(y1)].map(|edge| (10.0 * edge).round() / 10.0)
        });
        let drawing = self.drawing.map(|(shape, pixels)| Drawing {
            shape,
            pixels,
            bbox: edges.map(|edges| touched_pixels(edges, shape.width)),
        });
        Prediction {
            top: guesses,
            bbox,
            drawing,
        }
    }
}

/// The first and last pixels that a box touches in a square of `side` pixels. The edges x0, y0, x1, y1 are
/// fractions of the side.
fn touched_pixels([x0, y0, x1, y1]: [f64; 4], side: u32) -> [i32; 4] {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "integers clamped to the side, which is far below 2^31"
    )]
    let pixel = |at: f64| at.clamp(0.0, f64::from(side - 1)) as i32;
    let first = |fraction: f64| pixel((fraction * f64::from(side)).floor());
    let last = |fraction: f64| pixel((fraction * f64::from(side)).ceil() - 1.0);
    [first(x0), first(y0), last(x1), last(y1)]
}

/// The decoders and buffers of one thread.
struct PictureDecoder {
    resize: Resize,
    decoder: Decoder,
    /// How many pictures, the first ones, get pixels to draw; the decoder and the shape of those.
    drawing: Option<(usize, Decoder, Shape)>,
    encoded: Vec<u8>,
}

impl PictureDecoder {
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
            drawing: (options.drawn)
                .map(|(count, side)| (count, decoder(side), Shape::rgb(side.get()))),
            encoded: Vec::new(),
        }
    }

    /// Decodes the picture with number `index`.
    fn decode(&mut self, index: usize, image: PathBuf) -> DecodedPicture {
        let input = self.input(index, &image);
        DecodedPicture { image, input }
    }

    fn input(
        &mut self,
        index: usize,
        image: &Path,
    ) -> std::result::Result<NetworkInput, ImageError> {
        source::read(image, &mut self.encoded)
            .map_err(|fault| ImageError::Unreadable(fault.to_string()))?;
        let decode = |decoder: &mut Decoder, shape: Shape| {
            let mut pixels = vec![0; shape.image_len()];
            let decoded =
                decoder.decode(Image::Encoded(&self.encoded), None, shape, &mut pixels)?;
            Ok((pixels, decoded))
        };
        let shape = Shape::rgb(self.resize.side.get());
        let (pixels, decoded) = decode(&mut self.decoder, shape)?;
        let drawing = match &mut self.drawing {
            Some((count, decoder, shape)) if index < *count => {
                Some((*shape, decode(decoder, *shape)?.0))
            }
            _ => None,
        };
        Ok(NetworkInput {
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
    fn boxes_are_mapped_to_pixels_of_the_picture() {
        let side = NonZeroU32::new(64).unwrap();
        let resize = Resize {
            side,
            squash: false,
        };
        let input = NetworkInput {
            pixels: Vec::new(),
            kept: resize.kept([400, 200]),
            drawing: Some((Shape::rgb(100), Vec::new())),
        };
        let edges = Some([0.25, 0.101, 0.5, 1.2]);
        let prediction = input.prediction(Vec::new(), edges);
        // The crop is the middle 200x200 of 400x200.
        assert_eq!(prediction.bbox, Some([150.0, 20.2, 200.0, 200.0]));
        assert_eq!(prediction.drawing.unwrap().bbox, Some([25, 10, 49, 99]));
    }
}
