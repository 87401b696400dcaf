//! Bounds on what `--skip-bad` may leave out, so that a set with next to nothing in it is not a success.

use std::collections::HashSet;

use tinyres_format::{Refused, Split};

use super::{Error, Result};
use crate::source::{Problems, Source};

/// The largest part of a split's images, in percent, that may be left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SkipBad(f64);

impl SkipBad {
    /// Half of a split.
    pub const HALF: Self = Self(50.0);

    /// A bound of so many percent, 0 to 100.
    #[must_use]
    pub fn percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then_some(Self(percent))
    }
}

/// Checks that the images of `source` without the bad ones are still a set: at most the bound of each split is
/// left out, no split becomes empty, and no class loses all of its train images.
pub(super) fn check(source: &Source, refused: &[Refused], bound: SkipBad) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let names: HashSet<&str> = refused.iter().map(|bad| &*bad.name).collect();
    let images = || {
        let mut images = Problems::default();
        refused.iter().cloned().for_each(|bad| images.push(bad));
        images
    };
    let mut worst: Option<(f64, Error)> = None;
    for (split, items) in &source.splits {
        let mut left = vec![[0_usize; 2]; source.classes.len()];
        let mut bad = 0;
        for item in items {
            let is_bad = names.contains(&*item.name);
            bad += usize::from(is_bad);
            let class = item.label.and_then(|label| left.get_mut(label as usize));
            if let Some([all, good]) = class {
                *all += 1;
                *good += usize::from(!is_bad);
            }
        }
        let all = items.len();
        if bad == all {
            return Err(Error::NoneLeft {
                what: format!("the split {split}"),
                images: images(),
            });
        }
        let empty = left.iter().position(|&[all, good]| all > 0 && good == 0);
        if let (Split::Train, Some(class)) = (split, empty) {
            return Err(Error::NoneLeft {
                what: format!("the class {}", source.classes[class].id),
                images: images(),
            });
        }
        let percent = 100.0 * bad as f64 / all as f64;
        if percent > bound.0 && worst.as_ref().is_none_or(|(most, _)| percent > *most) {
            let error = Error::ManyLeftOut {
                split: *split,
                bad,
                all,
                bound: bound.0,
                needed: (10.0 * percent).ceil() / 10.0,
                images: images(),
            };
            worst = Some((percent, error));
        }
    }
    worst.map_or(Ok(()), |(_, error)| Err(error))
}
