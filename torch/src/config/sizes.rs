//! Progressive resizing: the side of the training images as a pure function of how far the run is.
//!
//! Small images first, as in fast.ai's entry to DAWNBench (Howard 2018): a step at 32 pixels costs a
//! quarter of one at 64, and early steps have no use for detail.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The sides that a run trains at, one after the other. Written `32:0.35,48:0.2,64`: pixels, and the
/// share of the run; the sides without a share divide what the others leave. `50%` is half of the
/// images' own side, and `full` that side from beginning to end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sizes {
    /// A side, and the share of the run at which its turn is over.
    turns: Vec<(Side, f64)>,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Pixels(u32),
    /// Of the images' own side.
    Percent(u32),
}

/// No side is smaller: the network's maps would be of nothing but padding.
const SMALLEST: u32 = 8;

impl Sizes {
    /// The side of the images where `share` of the run lies behind, for images of side `full`.
    #[must_use]
    pub fn at(&self, share: f64, full: u32) -> u32 {
        let turn = self.turns.iter().find(|(_, end)| share < *end);
        match turn.or(self.turns.last()) {
            None => full,
            Some((Side::Pixels(side), _)) => *side,
            Some((Side::Percent(percent), _)) => {
                ((full * percent + 50) / 100).clamp(SMALLEST.min(full), full)
            }
        }
    }

    /// The largest side that is given in pixels.
    #[must_use]
    pub fn largest(&self) -> Option<u32> {
        let pixels = self.turns.iter().filter_map(|(side, _)| match side {
            Side::Pixels(side) => Some(*side),
            Side::Percent(_) => None,
        });
        pixels.max()
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected full, or sides in pixels or percent, each with its share of \
                                the run or without, as in 32:0.35,48:0.2,64 or 50%,100%";
        if text == "full" {
            return Ok(Self {
                text: text.to_owned(),
                ..Self::default()
            });
        }
        let bad = |what: String| format!("sizes {text:?}: {what}; {EXPECTED}");
        let mut turns = Vec::new();
        for turn in text.split(',') {
            let (side, share) = match turn.split_once(':') {
                Some((side, share)) => (side, Some(share)),
                None => (turn, None),
            };
            let (number, percent) = match side.strip_suffix('%') {
                Some(number) => (number, true),
                None => (side, false),
            };
            let side = match number.parse() {
                Ok(number @ 1..=100) if percent => Side::Percent(number),
                Ok(_) if percent => return Err(bad(format!("{side} is not from 1% to 100%"))),
                Ok(pixels) if pixels >= SMALLEST => Side::Pixels(pixels),
                Ok(_) => return Err(bad(format!("{side} pixels are below {SMALLEST}"))),
                Err(_) => return Err(bad(format!("{side:?} is no number of pixels"))),
            };
            let share = match share.map(str::parse::<f64>) {
                None => None,
                Some(Ok(share)) if share > 0.0 && share <= 1.0 => Some(share),
                Some(_) => return Err(bad(format!("{turn:?} gives no share above 0, up to 1"))),
            };
            turns.push((side, share));
        }
        let given: f64 = turns.iter().filter_map(|(_, share)| *share).sum();
        let open = turns.iter().filter(|(_, share)| share.is_none()).count();
        let left = 1.0 - given;
        // Written shares, such as three times 0.333, need not meet the whole to the last digit.
        if left < -1e-3 || (open > 0 && left < 1e-3) || (open == 0 && left > 1e-3) {
            return Err(bad(format!("the shares make {given} of the run")));
        }
        let each = left / f64::from(u32::try_from(open).unwrap_or(u32::MAX));
        let mut end = 0.0;
        let turns = turns.into_iter().map(|(side, share)| {
            end += share.unwrap_or(each);
            (side, end)
        });
        Ok(Self {
            turns: turns.collect(),
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
    fn each_side_has_its_share_of_the_run() {
        let sizes: Sizes = "32:0.35,48:0.2,64".parse().unwrap();
        for (share, side) in [
            (0.0, 32),
            (0.349, 32),
            (0.351, 48),
            (0.549, 48),
            (0.551, 64),
            (1.0, 64),
            (1.5, 64),
        ] {
            assert_eq!(sizes.at(share, 64), side, "{share}");
        }
        let thirds: Sizes = "32,48,64".parse().unwrap();
        assert_eq!([0.3, 0.4, 0.7].map(|at| thirds.at(at, 64)), [32, 48, 64]);
        assert_eq!(thirds.largest(), Some(64));
        let relative: Sizes = "50%:0.35,75%:0.2,100%".parse().unwrap();
        assert_eq!([0.3, 0.4, 0.7].map(|at| relative.at(at, 64)), [32, 48, 64]);
        assert_eq!([0.3, 0.4, 0.7].map(|at| relative.at(at, 12)), [8, 9, 12]);
        assert_eq!(relative.largest(), None);
        let full: Sizes = "full".parse().unwrap();
        assert_eq!((full.at(0.5, 96), full.largest()), (96, None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("", "no number of pixels"),
            ("32,x", "\"x\""),
            ("4", "below 8"),
            ("0%", "1% to 100%"),
            ("101%", "1% to 100%"),
            ("32:0", "no share"),
            ("32:1.5", "no share"),
            ("32:0.5,64:0.4", "make 0.9"),
            ("32:0.5,64:0.6", "make 1.1"),
            ("32:1,64", "make 1 "),
        ] {
            let message = text.parse::<Sizes>().unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
