use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::{Error, Member, Result, Set};
use crate::text::Count;
use tinyres_format::{Class, Draws, LeI32, Shape, Split, Stream};

/// One image and what is known of it.
#[derive(Clone, Debug, Serialize)]
pub struct Sample<'a> {
    /// Its split.
    pub split: Split,
    /// Its number, from 0: in the split, or in the shard if that was opened alone.
    pub image: u64,
    /// The shard that it is in.
    pub shard: PathBuf,
    /// Its number in that shard, from 0.
    pub in_shard: u64,
    /// Its class's place in the list of classes.
    pub label: Option<usize>,
    /// Its class.
    pub class: Option<&'a Class>,
    /// Inclusive pixels: x0, y0, x1, y1.
    #[serde(rename = "box")]
    pub bbox: Option<[i32; 4]>,
    /// What the source calls it.
    pub name: &'a str,
    /// Its shape.
    pub shape: Shape,
    /// Its pixels, `u8 [channels, height, width]`.
    #[serde(skip)]
    pub pixels: Cow<'a, [u8]>,
}

impl<B: AsRef<[u8]> + Sync + Send> Set<B> {
    /// The split to look at where none is named: the first.
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

    /// Image number `image` of `split`, or of the first split there is. All that is shown has been
    /// compared with its checksum.
    ///
    /// # Errors
    /// There is no such image, or it is damaged.
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

    /// At most `count` images of `split`, or of the first split there is: one from each of `count`
    /// equal stretches, not always at the same place in them, for classes may take turns.
    ///
    /// # Errors
    /// One of them is damaged.
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
                write!(f, "\n  label  {label}, {}: {}", class.id, class.name)?
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
        write!(f, "\n  name   {}", self.name)
    }
}
