//! Single images of a set, with label, box and name, for `inspect --image` and `--sheet`. An image is
//! compared with its checksum before it is shown.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::{Error, Member, Result, Set};
use crate::picture::Panel;
use crate::text::{Count, one_line};
use tinyres_format::{Class, Draws, LeI32, Shape, Split, Stream};

/// One image with its label, box and name.
#[derive(Clone, Debug, Serialize)]
pub struct Sample<'a> {
    /// The split.
    pub split: Split,
    /// Number of the image, from 0: in the split, or in the shard if that was opened alone.
    pub image: u64,
    /// The shard.
    #[serde(serialize_with = "crate::text::path")]
    pub shard: PathBuf,
    /// Number of the image in the shard, from 0.
    pub in_shard: u64,
    /// Label: the place of the class in the list of classes.
    pub label: Option<usize>,
    /// The class.
    pub class: Option<&'a Class>,
    /// Box in inclusive pixels: x0, y0, x1, y1.
    #[serde(rename = "box")]
    pub bbox: Option<[i32; 4]>,
    /// Name in the source.
    pub name: &'a str,
    /// Shape.
    pub shape: Shape,
    /// Pixels, `u8 [channels, height, width]`.
    #[serde(skip)]
    pub pixels: Cow<'a, [u8]>,
}

/// With a word for the class as caption, or the image's name if it has no class.
impl<'a> From<&'a Sample<'_>> for Panel<'a> {
    fn from(sample: &'a Sample<'_>) -> Self {
        let words = sample.class.map_or(sample.name, |class| &class.name);
        Self {
            bbox: sample.bbox,
            ..Self::new(sample.shape, &sample.pixels, words)
        }
    }
}

impl<B: AsRef<[u8]> + Sync + Send> Set<B> {
    /// Returns `split` if the set has it, or the first split if none is named.
    fn choose(&self, split: Option<Split>) -> Result<Split> {
        let mut present = self.splits.iter().map(|(split, _)| *split);
        match split {
            None => Ok(present.next().unwrap_or(Split::Train)),
            Some(split) if present.any(|known| known == split) => Ok(split),
            Some(split) => Err(Error::NoSplit {
                path: self.path.clone(),
                split,
                present: self.splits.iter().map(|(split, _)| split.name()).collect(),
            }),
        }
    }

    /// Image number `image` of `split`, or of the first split if none is named.
    ///
    /// # Errors
    /// There is no such image, or it fails its checksum.
    pub fn sample(&self, split: Option<Split>, image: u64) -> Result<Sample<'_>> {
        let split = self.choose(split)?;
        let (path, len) = (self.path.clone(), self.len(split));
        if image >= len {
            return Err(Error::NoImage {
                path,
                split,
                image,
                len,
            });
        }
        let place = |member: &&Member<B>| {
            let at = usize::try_from(image.checked_sub(member.start)?).ok()?;
            (at < member.shard.len()).then_some(at)
        };
        let Some((member, at)) = self
            .of(split)
            .find_map(|member| Some((member, place(&member)?)))
        else {
            return Err(Error::NotOpen { path, split, image });
        };
        let shard = &member.shard;
        let whole = shard.verify_columns().and_then(|()| member.image(at));
        let pixels = whole.map_err(|error| error.at(&member.path))?;
        let label = usize::try_from(shard.labels()[at].get()).ok();
        let sides = shard.boxes()[at].map(LeI32::get);
        Ok(Sample {
            split,
            image,
            shard: member.path.clone(),
            in_shard: at as u64,
            label,
            class: label.and_then(|label| self.class_list().get(label)),
            bbox: (sides[0] >= 0).then_some(sides),
            name: shard.name(at).transpose()?.unwrap_or_default(),
            shape: shard.shape(),
            pixels,
        })
    }

    /// At most `count` images spread over `split`, or over the first split if none is named. One image
    /// is drawn at random from each of `count` equal ranges: with a fixed place in each range, a set
    /// whose classes alternate would show only some of them.
    ///
    /// # Errors
    /// One of them fails its checksum.
    pub fn spread(&self, split: Option<Split>, count: u64) -> Result<Vec<Sample<'_>>> {
        let split = self.choose(split)?;
        let len = self.len(split);
        let count = count.min(len);
        let bound = |i: u64| {
            let bound = u128::from(i) * u128::from(len) / u128::from(count);
            u64::try_from(bound).expect("at most `len`")
        };
        let draws = Draws::new(0, Stream::Order, 0);
        let image = |i| bound(i) + draws.below(i, bound(i + 1) - bound(i));
        (0..count)
            .map(|i| self.sample(Some(split), image(i)))
            .collect()
    }
}

impl fmt::Display for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (image, in_shard) = (Count(self.image), Count(self.in_shard));
        write!(f, "{} image {image}: {}", self.split, self.shard.display())?;
        if self.image != self.in_shard {
            write!(f, ", image {in_shard} there")?;
        }
        match (self.label, self.class) {
            (Some(label), Some(class)) => {
                let (id, name) = (one_line(&class.id), one_line(&class.name));
                write!(f, "\n  label  {label}, {id}: {name}")?
            }
            _ => write!(f, "\n  label  none")?,
        }
        match self.bbox {
            Some([x0, y0, x1, y1]) => {
                let (width, height) = (x1 - x0 + 1, y1 - y0 + 1);
                write!(
                    f,
                    "\n  box    x {x0}-{x1}, y {y0}-{y1}: {width}x{height} pixels"
                )?;
            }
            None => write!(f, "\n  box    none")?,
        }
        write!(f, "\n  name   {}", one_line(self.name))
    }
}
