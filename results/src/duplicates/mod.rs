//! Images that are in a set more than once, over all of its splits: with the same pixels, or nearly the same, or
//! mirrored.
//!
//! Exact copies are found by a hash of their pixels, and compared byte by byte. For the others, an image is shrunk to
//! 8x8 grey values, which are turned to frequencies by a cosine transform: distances stay what they are, most of a
//! distance lies in a few numbers, and a mirrored image differs by signs alone. Images are sorted by their mean, which
//! two near ones must nearly have in common, and compared with their neighbours until they are too far apart. Pairs that pass
//! are compared by all their pixels.

mod sketch;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rayon::prelude::*;
use tinyres_format::Shape;
use tinyres_load::{Dataset, pool};

use crate::num::narrow;
use sketch::Sketch;

/// Images that are read at once at most, and their bytes.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;
/// Near images are at most so far apart as 8x8 grey values, by root mean square, of 255.
const SHRUNK: f32 = 6.0;
/// Near images have at most so much of their variance in their difference, over all pixels and colours.
const DIFFERENT: f32 = 0.15;
/// The most pairs of images with nearly the same mean that are compared: 100,000 photographs have about 500 million.
const MOST: u64 = 4_000_000_000;
/// The most near images that one image is paired with: more are of a series, such as blank pages.
const MOST_OF_ONE: usize = 8;

/// An image of one of the sets that were searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Number of the set, from 0.
    pub set: usize,
    /// Number of the image in it.
    pub image: u32,
}

/// How near two images are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likeness {
    /// Every pixel is the same.
    Exact,
    /// Nearly the same.
    Near,
    /// Nearly the same once one of them is mirrored.
    Mirrored,
}

/// Two images that are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The first image, in the order of sets and images.
    pub a: Place,
    /// The other one.
    pub b: Place,
    /// How near they are.
    pub likeness: Likeness,
    /// Variance of their difference compared with their own, over all pixels and colours: 0 for the same image.
    pub difference: f32,
}

/// Images that can be searched: a split of a set.
pub trait Images: Sync {
    /// Why pixels cannot be read.
    type Error: Send;

    /// Shape of every image.
    fn shape(&self) -> Shape;

    /// Number of images.
    fn count(&self) -> u32;

    /// Copies the pixels of `images` to `out`, `u8 [n, 3, H, W]`.
    ///
    /// # Errors
    /// They are damaged, or can no longer be read.
    fn copy(&self, images: &[u32], out: &mut [u8]) -> Result<(), Self::Error>;
}

impl Images for Dataset {
    type Error = tinyres_load::Error;

    fn shape(&self) -> Shape {
        Self::shape(self)
    }

    fn count(&self) -> u32 {
        self.len()
    }

    fn copy(&self, images: &[u32], out: &mut [u8]) -> Result<(), Self::Error> {
        self.gather(images, out)
    }
}

impl<I: Images + Send> Images for Arc<I> {
    type Error = I::Error;

    fn shape(&self) -> Shape {
        I::shape(self)
    }

    fn count(&self) -> u32 {
        I::count(self)
    }

    fn copy(&self, images: &[u32], out: &mut [u8]) -> Result<(), Self::Error> {
        I::copy(self, images, out)
    }
}

/// The images that are there more than once.
#[derive(Clone, Debug)]
pub struct Duplicates {
    /// Pairs of images that are alike, exact ones first, then by difference. An image with several copies is paired
    /// with each.
    pub pairs: Vec<Pair>,
    /// False if too many images had nearly the same mean, and near ones were not looked for.
    pub complete: bool,
}

impl Duplicates {
    /// Searches `sets`, the splits of a set, whose images have one shape.
    ///
    /// # Errors
    /// Pixels are damaged.
    pub fn find<I: Images>(sets: &[I]) -> Result<Self, I::Error> {
        pool::install(|| {
            let sketches = sketches(sets)?;
            let (mut pairs, first) = exact(sets, &sketches)?;
            let near = near(first);
            let complete = near.is_some();
            let near = near.unwrap_or_default();
            let checked = near.into_par_iter().map(|pair| check(sets, pair));
            for pair in checked.collect::<Result<Vec<_>, _>>()? {
                pairs.extend(pair);
            }
            pairs.sort_by(|a, b| {
                let by_likeness =
                    (a.likeness != Likeness::Exact).cmp(&(b.likeness != Likeness::Exact));
                let by_difference = a.difference.total_cmp(&b.difference);
                by_likeness
                    .then(by_difference)
                    .then((a.a, a.b).cmp(&(b.a, b.b)))
            });
            Ok(Self { pairs, complete })
        })
    }
}

/// Memory of an image.
struct Kept {
    place: Place,
    hash: u64,
    sketch: Sketch,
}

/// Memories of all images, in the order of sets and images.
fn sketches<I: Images>(sets: &[I]) -> Result<Vec<Kept>, I::Error> {
    let mut all = Vec::new();
    for (set, data) in sets.iter().enumerate() {
        let (shape, count) = (data.shape(), data.count());
        let len = shape.image_len().max(1);
        let most = BATCH.min(BATCH_BYTES / len).max(1);
        let batch = |first: u32| {
            let end = first.saturating_add(u32::try_from(most).unwrap_or(u32::MAX));
            let images: Vec<u32> = (first..end.min(count)).collect();
            let mut pixels = vec![0; images.len() * len];
            data.copy(&images, &mut pixels)?;
            let kept = images.iter().zip(pixels.chunks_exact(len));
            let kept = kept.map(|(&image, pixels)| {
                let mut hasher = DefaultHasher::new();
                pixels.hash(&mut hasher);
                Kept {
                    place: Place { set, image },
                    hash: hasher.finish(),
                    sketch: Sketch::of(shape, pixels),
                }
            });
            Ok(kept.collect::<Vec<_>>())
        };
        let firsts: Vec<u32> = (0..count).step_by(most).collect();
        let batches = firsts.into_par_iter().map(batch);
        all.extend(
            batches
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .flatten(),
        );
    }
    Ok(all)
}

/// The pairs with the same pixels, and what is kept of one image of each such group and of all others.
fn exact<'a, I: Images>(
    sets: &[I],
    kept: &'a [Kept],
) -> Result<(Vec<Pair>, Vec<&'a Kept>), I::Error> {
    let mut first_of: HashMap<u64, &Kept> = HashMap::with_capacity(kept.len());
    let (mut pairs, mut firsts) = (Vec::new(), Vec::new());
    for image in kept {
        match first_of.get(&image.hash) {
            Some(first) if pixels(sets, first.place)? == pixels(sets, image.place)? => {
                pairs.push(Pair {
                    a: first.place,
                    b: image.place,
                    likeness: Likeness::Exact,
                    difference: 0.0,
                });
            }
            _ => {
                first_of.insert(image.hash, image);
                firsts.push(image);
            }
        }
    }
    Ok((pairs, firsts))
}

/// The pixels of an image, copied.
fn pixels<I: Images>(sets: &[I], place: Place) -> Result<Vec<u8>, I::Error> {
    let data = &sets[place.set];
    let mut pixels = vec![0; data.shape().image_len()];
    data.copy(&[place.image], &mut pixels)?;
    Ok(pixels)
}

/// The pairs whose sketches are near. `None` if there are too many to compare.
fn near(mut kept: Vec<&Kept>) -> Option<Vec<(Place, Place, Likeness)>> {
    kept.sort_by(|a, b| {
        let by_mean = a.sketch.mean().total_cmp(&b.sketch.mean());
        by_mean.then(a.place.cmp(&b.place))
    });
    let within = Sketch::distance_of(SHRUNK);
    // The images whose mean is near enough that of each: a range from the next one on.
    let mut end = 0;
    let mut ends = Vec::with_capacity(kept.len());
    for image in &kept {
        while kept
            .get(end)
            .is_some_and(|other| other.sketch.mean() - image.sketch.mean() <= within)
        {
            end += 1;
        }
        ends.push(end);
    }
    let compared: u64 = (0..).zip(&ends).map(|(at, &end)| (end - at) as u64).sum();
    if compared > MOST {
        return None;
    }
    // The numbers that tell most pairs apart, next to each other in memory.
    let heads: Vec<_> = kept.iter().map(|image| image.sketch.head()).collect();
    let of_one = |at: usize| {
        let (one, head) = (kept[at], heads[at]);
        let others = (at + 1..ends[at]).filter(|&other| {
            let pairs = head.iter().zip(&heads[other]);
            pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f32>() <= within * within
        });
        let near = others.filter_map(|other| {
            let other = kept[other];
            let mirrored = one.sketch.is_near(&other.sketch, within)?;
            let likeness = if mirrored {
                Likeness::Mirrored
            } else {
                Likeness::Near
            };
            let (a, b) = (one.place.min(other.place), one.place.max(other.place));
            Some((a, b, likeness))
        });
        near.take(MOST_OF_ONE).collect::<Vec<_>>()
    };
    Some(
        (0..kept.len())
            .into_par_iter()
            .flat_map_iter(of_one)
            .collect(),
    )
}

/// Compares a pair by all pixels.
fn check<I: Images>(
    sets: &[I],
    (a, b, likeness): (Place, Place, Likeness),
) -> Result<Option<Pair>, I::Error> {
    let (one, other) = (pixels(sets, a)?, pixels(sets, b)?);
    let width = sets[b.set].shape().width as usize;
    let same = difference(&one, other.iter().copied());
    let mirror = other
        .chunks_exact(width.max(1))
        .flat_map(|row| row.iter().rev().copied());
    let mirrored = difference(&one, mirror);
    // A symmetric image passes either way; its sketch says one at random.
    let (difference, likeness) = match likeness {
        Likeness::Mirrored if mirrored < same => (mirrored, Likeness::Mirrored),
        _ => (same, Likeness::Near),
    };
    Ok((difference <= DIFFERENT).then_some(Pair {
        a,
        b,
        likeness,
        difference,
    }))
}

/// Mean square of the difference of `a` and `b`, `u8 [3, H, W]`, divided by the mean of their variances. The variance is
/// that within each colour: a plain background of any colour has none. Blank images are not alike.
fn difference(a: &[u8], b: impl Iterator<Item = u8>) -> f32 {
    let plane = (a.len() / 3).max(1);
    let (mut square, mut own) = (0.0, 0.0);
    let mut b = b;
    for a in a.chunks(plane) {
        let (mut sums, mut squares) = ([0_u64; 2], [0_u64; 2]);
        for (&a, b) in a.iter().zip(&mut b) {
            let (a, b) = (u64::from(a), u64::from(b));
            square += a.abs_diff(b).pow(2) as f64;
            for (at, value) in [a, b].into_iter().enumerate() {
                sums[at] += value;
                squares[at] += value * value;
            }
        }
        let count = a.len() as f64;
        for (sum, squares) in sums.into_iter().zip(squares) {
            own += (squares as f64 - (sum as f64).powi(2) / count) / 2.0;
        }
    }
    narrow(square / own.max(a.len() as f64))
}
