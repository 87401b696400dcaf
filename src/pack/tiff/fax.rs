//! Expansion of bilevel images that fax machines compress (ITU-T T.4 and T.6; TIFF 6.0, sections 10 and 11), with
//! the code tables of the crate `fax`.
//!
//! Its own readers take Group 4, and Group 3 in one dimension with an end behind the last row. Here are rows in two
//! dimensions and those without line ends, too. A code that stands for nothing makes the image a bad one: libtiff
//! guesses where the next row begins.

use std::convert::Infallible;

use fax::maps::{Mode, black, mode, white};
use fax::{BitReader as _, ByteReader};

use super::super::ImageError;
use super::super::error::broken;

/// How rows are coded.
#[derive(Clone, Copy)]
pub(super) enum Rows {
    /// Runs of white and black, each row from a byte of its own.
    Bytes,
    /// Rows with line ends before them.
    Group3 {
        /// Bit 0 of the tag T4Options: a bit says whether a row is coded by its differences.
        mixed: bool,
    },
    /// Differences to the row above.
    Group4,
}

type Bits<I> = ByteReader<std::iter::Map<I, fn(u8) -> Result<u8, Infallible>>>;

/// Expands `height` rows of `width` pixels: rows of bits, each from a byte of its own, black as 1.
pub(super) fn expand(
    data: &[u8],
    rows: Rows,
    width: usize,
    height: usize,
) -> Result<Vec<u8>, ImageError> {
    // The tables look ahead, behind the end, too.
    let padded = data.iter().copied().chain([0; 8]);
    let Ok(mut bits) = ByteReader::new(padded.map(Ok as fn(u8) -> Result<u8, Infallible>));
    let wrong = || broken("TIFF with a fax code that stands for nothing");
    let stride = width.div_ceil(8);
    let mut found = vec![0; stride * height];
    let width = u32::try_from(width).map_err(|_| wrong())?;
    // Positions where a row changes from white to black and back.
    let (mut above, mut changes) = (Vec::new(), Vec::new());
    for row in found.chunks_exact_mut(stride) {
        let differences = match rows {
            Rows::Bytes => false,
            Rows::Group4 => true,
            Rows::Group3 { mixed } => {
                skip_line_end(&mut bits)
                    .ok_or_else(|| broken("TIFF with a fax that lacks rows"))?;
                let runs = !mixed || bits.peek(1) == Some(1);
                skip(&mut bits, mixed.into());
                // A line end after a line end: no more rows. Those that are missing are white.
                if bits.peek(11) == Some(0) {
                    break;
                }
                !runs
            }
        };
        changes.clear();
        let whole = match differences {
            false => read_runs(&mut bits, width, &mut changes).map(|()| true),
            true => read_differences(&mut bits, width, &above, &mut changes),
        };
        if !whole.ok_or_else(wrong)? {
            break;
        }
        for black in changes.chunks(2) {
            for x in black[0]..*black.get(1).unwrap_or(&width) {
                row[x as usize / 8] |= 128 >> (x % 8);
            }
        }
        if let Rows::Bytes = rows {
            let rest = bits.bits_to_byte_boundary();
            skip(&mut bits, rest);
        }
        std::mem::swap(&mut above, &mut changes);
    }
    Ok(found)
}

fn skip<I: Iterator<Item = u8>>(bits: &mut Bits<I>, count: u8) {
    let Ok(()) = bits.consume(count);
}

/// Goes behind the next line end: eleven zeros or more, and a one. `None` at the end of the data.
fn skip_line_end<I: Iterator<Item = u8>>(bits: &mut Bits<I>) -> Option<()> {
    while bits.peek(11)? != 0 {
        skip(bits, 1);
    }
    while bits.peek(1)? == 0 {
        skip(bits, 1);
    }
    skip(bits, 1);
    Some(())
}

/// Reads a run that begins at `at`, and returns its end: any number of codes for 64 pixels and more, then one for
/// fewer.
fn run<I: Iterator<Item = u8>>(
    bits: &mut Bits<I>,
    at: u32,
    width: u32,
    is_black: bool,
) -> Option<u32> {
    let mut end = at;
    loop {
        let part = match is_black {
            true => black::decode(bits),
            false => white::decode(bits),
        }?;
        end += u32::from(part);
        match part {
            _ if end > width => return None,
            ..64 => return Some(end),
            _ => {}
        }
    }
}

/// Reads a row of runs. `None` where a code stands for nothing.
fn read_runs<I: Iterator<Item = u8>>(
    bits: &mut Bits<I>,
    width: u32,
    changes: &mut Vec<u32>,
) -> Option<()> {
    let (mut at, mut is_black) = (0, false);
    while at < width {
        at = run(bits, at, width, is_black)?;
        changes.push(at);
        is_black = !is_black;
    }
    Some(())
}

/// Reads a row that is coded by its differences to the changes `above` (T.4, section 4.2.1.3). False if the end of the
/// image stands in its place.
fn read_differences<I: Iterator<Item = u8>>(
    bits: &mut Bits<I>,
    width: u32,
    above: &[u32],
    changes: &mut Vec<u32>,
) -> Option<bool> {
    let (mut at, mut is_black, mut index) = (0, false, 0_usize);
    let mut begun = false;
    while at < width {
        // The next change above that goes the same way as the one to come.
        index = index.saturating_sub(3);
        while (index % 2 == 1) != is_black
            || begun && above.get(index).is_some_and(|&change| change <= at)
        {
            index += 1;
        }
        let change = |index: usize| *above.get(index).unwrap_or(&width);
        match mode::decode(bits)? {
            Mode::Pass => at = change(index + 1),
            Mode::Vertical(shift) => {
                let end = change(index).checked_add_signed(shift.into())?;
                at = (at..=width).contains(&end).then_some(end)?;
                changes.push(at);
                is_black = !is_black;
            }
            Mode::Horizontal => {
                for color in [is_black, !is_black] {
                    at = run(bits, at, width, color)?;
                    changes.push(at);
                }
            }
            Mode::EOF if !begun => return Some(false),
            Mode::Extension | Mode::EOF => return None,
        }
        begun = true;
    }
    Some(true)
}
