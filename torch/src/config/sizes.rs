//! Progressive resizing: the side of the training images as a pure function of progress, the fraction of the
//! run that is done. `inputs` scales the images.
//!
//! A run starts with small images, as in fast.ai's entry to DAWNBench (Howard 2018): a step at 32 pixels
//! costs a quarter of one at 64, and early steps do not need the detail. It may end with enlarged ones: they have no
//! more detail, but the network's maps are larger.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::run::checkpoint::MAX_SIZE;

/// The sides that a run trains at, one after the other. `32:0.35,48:0.2,64` means 32 pixels for the first 0.35
/// of the run, then 48 for 0.2, then 64. Sides without a fraction divide the rest of the run equally. `50%` is
/// half the side of the data set's images, and `full` alone is their side for the whole run. `150%` is one and a half times
/// their side, but at most 128 pixels, or their side where that is more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sizes {
    /// Each side, with the progress at which it ends. Empty for `full`.
    phases: Vec<(Side, f64)>,
    /// The text that this was parsed from.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Pixels(u32),
    /// Percent of the side of the data set's images.
    Percent(u32),
}

/// Smallest side, in pixels. Below it the network's last maps would see little but padding.
const SMALLEST: u32 = 8;
/// Largest side, in pixels, that percents enlarge images to: maps of larger images are large enough, and a step at 320 pixels takes
/// 25 GB. Sides in pixels may be larger.
const ENLARGED: u32 = 128;
/// Largest side, in percent of the side of the data set's images. A step at four times the side costs 16 times as much.
const LARGEST_PERCENT: u32 = 400;

/// Largest side that a set whose images have side `full` can be trained at.
pub(crate) fn largest(full: u32) -> u32 {
    let most = u64::from(full) * u64::from(LARGEST_PERCENT) / 100;
    u32::try_from(most).map_or(MAX_SIZE, |most| most.min(MAX_SIZE))
}

impl Sizes {
    /// The side, in pixels, at `progress` through the run, for a data set whose images have side `full`.
    #[must_use]
    pub fn at(&self, progress: f64, full: u32) -> u32 {
        let phase = self.phases.iter().find(|(_, end)| progress < *end);
        match phase.or(self.phases.last()) {
            None => full,
            Some((Side::Pixels(side), _)) => *side,
            Some((Side::Percent(percent), _)) => {
                let scaled = (u64::from(full) * u64::from(*percent) + 50) / 100;
                let side = u32::try_from(scaled).unwrap_or(u32::MAX);
                side.clamp(SMALLEST.min(full), ENLARGED.max(full))
            }
        }
    }

    /// The largest of the sides given in pixels.
    #[must_use]
    pub(crate) fn largest(&self) -> Option<u32> {
        let pixels = self.phases.iter().filter_map(|(side, _)| match side {
            Side::Pixels(side) => Some(*side),
            Side::Percent(_) => None,
        });
        pixels.max()
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected full, or sides in pixels or percent, with or without a \
                                fraction of the run, such as 32:0.35,48:0.2,64 or 50%,100%";
        if text == "full" {
            return Ok(Self {
                text: text.to_owned(),
                ..Self::default()
            });
        }
        let bad = |what: String| format!("sizes {text:?}: {what}; {EXPECTED}");
        let mut phases = Vec::new();
        for phase in text.split(',') {
            let (side, fraction) = match phase.split_once(':') {
                Some((side, fraction)) => (side, Some(fraction)),
                None => (phase, None),
            };
            let (number, percent) = match side.strip_suffix('%') {
                Some(number) => (number, true),
                None => (side, false),
            };
            let side = match number.parse() {
                Ok(number @ 1..=LARGEST_PERCENT) if percent => Side::Percent(number),
                Ok(_) if percent => {
                    return Err(bad(format!("{side} is not from 1% to {LARGEST_PERCENT}%")));
                }
                Ok(pixels) if pixels >= SMALLEST => Side::Pixels(pixels),
                Ok(_) => return Err(bad(format!("{side} is below {SMALLEST} pixels"))),
                Err(_) => return Err(bad(format!("{side:?} is not a number of pixels"))),
            };
            let fraction = match fraction.map(str::parse::<f64>) {
                None => None,
                Some(Ok(fraction)) if fraction > 0.0 && fraction <= 1.0 => Some(fraction),
                Some(_) => {
                    return Err(bad(format!(
                        "the fraction in {phase:?} is not above 0 and at most 1"
                    )));
                }
            };
            phases.push((side, fraction));
        }
        let given: f64 = phases.iter().filter_map(|(_, fraction)| *fraction).sum();
        let open = phases.iter().filter(|phase| phase.1.is_none()).count();
        let left = 1.0 - given;
        // Tolerates rounded fractions, such as three times 0.333.
        if left < -1e-3 || (open > 0 && left < 1e-3) || (open == 0 && left > 1e-3) {
            return Err(bad(format!("the fractions add up to {given}")));
        }
        let each = left / open as f64;
        let mut end = 0.0;
        let phases = phases.into_iter().map(|(side, fraction)| {
            end += fraction.unwrap_or(each);
            (side, end)
        });
        Ok(Self {
            phases: phases.collect(),
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Sizes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Sizes> for String {
    fn from(sizes: Sizes) -> Self {
        sizes.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_lasts_for_its_fraction_of_the_run() {
        let sizes: Sizes = "32:0.35,48:0.2,64".parse().unwrap();
        for (progress, side) in [
            (0.0, 32),
            (0.349, 32),
            (0.351, 48),
            (0.549, 48),
            (0.551, 64),
            (1.0, 64),
            (1.5, 64),
        ] {
            assert_eq!(sizes.at(progress, 64), side, "{progress}");
        }
        let thirds: Sizes = "32,48,64".parse().unwrap();
        assert_eq!([0.3, 0.4, 0.7].map(|at| thirds.at(at, 64)), [32, 48, 64]);
        assert_eq!(thirds.largest(), Some(64));
        let relative: Sizes = "50%:0.35,75%:0.2,100%".parse().unwrap();
        assert_eq!([0.3, 0.4, 0.7].map(|at| relative.at(at, 64)), [32, 48, 64]);
        assert_eq!([0.3, 0.4, 0.7].map(|at| relative.at(at, 12)), [8, 9, 12]);
        assert_eq!(relative.largest(), None);
        let larger: Sizes = "100%,150%,400%".parse().unwrap();
        assert_eq!([0.3, 0.4, 0.7].map(|at| larger.at(at, 64)), [64, 96, 128]);
        assert_eq!([0.3, 0.4, 0.7].map(|at| larger.at(at, 16)), [16, 24, 64]);
        assert_eq!([0.3, 0.4, 0.7].map(|at| larger.at(at, 160)), [160; 3]);
        let full: Sizes = "full".parse().unwrap();
        assert_eq!((full.at(0.5, 96), full.largest()), (96, None));
    }

    #[test]
    fn errors_name_the_wrong_part() {
        for (text, part) in [
            ("", "not a number of pixels"),
            ("32,x", "\"x\""),
            ("4", "below 8"),
            ("0%", "1% to 400%"),
            ("401%", "1% to 400%"),
            ("32:0", "\"32:0\" is not above 0"),
            ("32:1.5", "\"32:1.5\" is not above 0"),
            ("32:0.5,64:0.4", "add up to 0.9"),
            ("32:0.5,64:0.6", "add up to 1.1"),
            ("32:1,64", "add up to 1;"),
        ] {
            let message = text.parse::<Sizes>().unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
