//! The first directory of a TIFF, read as Pillow reads it: entry by entry, whatever is broken elsewhere. EXIF data
//! are a TIFF, too, and its orientation is in there.

use std::collections::BTreeMap;

/// Orientation that EXIF data states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stated {
    /// Pillow fails to read the data.
    Unreadable,
    /// No entry for it.
    Nothing,
    /// The value, or 0 if it is none that turns an image.
    Value(u8),
}

/// Tag of the orientation.
const ORIENTATION: u16 = 0x0112;

/// The orientation in `exif`: a TIFF header, its first directory and their values, with or without
/// `Exif\0\0` before them.
pub(super) fn orientation(exif: &[u8]) -> Stated {
    let mut tiff = exif;
    for _ in 0..2 {
        tiff = tiff.strip_prefix(b"Exif\0\0").unwrap_or(tiff);
    }
    if tiff.is_empty() {
        return Stated::Nothing;
    }
    match Directory::of_exif(tiff) {
        None => Stated::Unreadable,
        Some(directory) => directory.orientation(),
    }
}

/// The first directory of a TIFF.
pub(super) struct Directory<'a> {
    little: bool,
    /// For each tag the type of its value, and the bytes of it.
    values: BTreeMap<u16, (u16, &'a [u8])>,
}

/// Byte order and widths of the numbers of a file.
#[derive(Clone, Copy)]
struct Widths {
    little: bool,
    /// BigTIFF: offsets and counts have 8 bytes instead of 4.
    big: bool,
}

impl<'a> Directory<'a> {
    /// Reads EXIF data. `None` without a header. BigTIFF is none here, and Pillow takes its number in the other byte
    /// order for that of TIFF.
    pub fn of_exif(bytes: &'a [u8]) -> Option<Self> {
        let little = match *bytes.get(..4)? {
            // The number in the other byte order is taken, too.
            [b'M', b'M', 0, 0x2a | 0x2b] | [b'M', b'M', 0x2a, 0] => false,
            [b'I', b'I', 0x2a, 0] | [b'I', b'I', 0, 0x2a] => true,
            _ => return None,
        };
        Self::read(bytes, Widths { little, big: false })
    }

    /// Reads a file that is a TIFF or a BigTIFF.
    pub fn of_file(bytes: &'a [u8]) -> Option<Self> {
        match *bytes.get(..4)? {
            [b'I', b'I', 0x2b, 0] => Self::read(
                bytes,
                Widths {
                    little: true,
                    big: true,
                },
            ),
            [b'M', b'M', 0, 0x2b] => Self::read(
                bytes,
                Widths {
                    little: false,
                    big: true,
                },
            ),
            _ => Self::of_exif(bytes),
        }
    }

    /// `None` without a header. Ends early, with the values so far, where the file does.
    fn read(bytes: &'a [u8], widths: Widths) -> Option<Self> {
        let mut directory = Self {
            little: widths.little,
            values: BTreeMap::new(),
        };
        let (place, entry_len) = if widths.big { (8, 20) } else { (4, 12) };
        let first = widths.offset(bytes.get(place..)?)?;
        let mut read_entries = || {
            let mut rest = bytes.get(usize::try_from(first).ok()?..)?;
            let entries;
            (entries, rest) = match widths.big {
                true => (widths.number(rest.get(..8)?)?, &rest[8..]),
                false => (widths.number(rest.get(..2)?)?, &rest[2..]),
            };
            // Bytes of all values that do not fit into their entries. Pillow passes over a value that would
            // make them more than the file has.
            let mut outside = 0_u64;
            for _ in 0..entries {
                let (entry, after) = rest.split_at_checked(entry_len)?;
                rest = after;
                let tag = u16::try_from(widths.number(&entry[..2])?).ok()?;
                let kind = u16::try_from(widths.number(&entry[2..4])?).ok()?;
                let count = widths.offset(&entry[4..])?;
                // The first entry of a tag that has a value counts.
                let Some(unit) = unit(kind).filter(|_| !directory.values.contains_key(&tag)) else {
                    continue;
                };
                let within = &entry[4 + place..];
                let len = count.saturating_mul(unit);
                let value = match usize::try_from(len) {
                    Ok(len) if len <= within.len() => &within[..len],
                    _ => {
                        outside = outside.saturating_add(len);
                        if outside > bytes.len() as u64 {
                            continue;
                        }
                        let from = usize::try_from(widths.offset(within)?).ok()?;
                        // Pillow reads no further after a value that is cut short.
                        bytes.get(from..)?.get(..usize::try_from(len).ok()?)?
                    }
                };
                if !value.is_empty() {
                    directory.values.insert(tag, (kind, value));
                }
            }
            Some(())
        };
        let _whole = read_entries();
        Some(directory)
    }

    /// True if numbers of several bytes begin with the lowest.
    pub fn is_little(&self) -> bool {
        self.little
    }

    /// The bytes of the value of `tag`.
    pub fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        self.values.get(&tag).map(|&(_, value)| value)
    }

    /// The numbers of the value of `tag`: bytes, shorts, longs or offsets.
    pub fn numbers(&self, tag: u16) -> Option<Vec<u64>> {
        let &(kind, value) = self.values.get(&tag)?;
        if !matches!(kind, 1 | 3 | 4 | 7 | 13 | 16) {
            return None;
        }
        let unit = usize::try_from(unit(kind)?).ok()?;
        let widths = Widths {
            little: self.little,
            big: false,
        };
        value
            .chunks(unit)
            .map(|bytes| widths.number(bytes))
            .collect()
    }

    /// The orientation that the directory states.
    pub fn orientation(&self) -> Stated {
        match self.values.get(&ORIENTATION) {
            None => Stated::Nothing,
            Some(&(kind, value)) => Stated::Value(self.first(kind, value).unwrap_or(0)),
        }
    }

    /// The first number in `value`, if it is one from 0 to 255. A text is no number, nor are bytes, which
    /// Pillow does not take for numbers.
    fn first(&self, kind: u16, value: &[u8]) -> Option<u8> {
        let whole = |number: i64| u8::try_from(number).ok();
        let float = |number: f64| (0..=8).find(|&whole| f64::from(whole) == number);
        let signed = |long: u32| i64::from(long.cast_signed());
        let widths = Widths {
            little: self.little,
            big: false,
        };
        let short = || u16::try_from(widths.number(value.get(..2)?)?).ok();
        let part = |at: usize| u32::try_from(widths.number(value.get(at..at + 4)?)?).ok();
        let ratio = |above: i64, below: i64| {
            (below != 0 && above % below == 0).then(|| whole(above / below))?
        };
        match kind {
            3 => whole(short()?.into()),
            4 | 13 => whole(part(0)?.into()),
            5 => ratio(part(0)?.into(), part(4)?.into()),
            6 => whole(value[0].cast_signed().into()),
            8 => whole(short()?.cast_signed().into()),
            9 => whole(signed(part(0)?)),
            10 => ratio(signed(part(0)?), signed(part(4)?)),
            11 => float(f32::from_bits(part(0)?).into()),
            12 => float(f64::from_bits(widths.number(value.get(..8)?)?)),
            16 => u8::try_from(widths.number(value.get(..8)?)?).ok(),
            _ => None,
        }
    }
}

impl Widths {
    /// The number that `bytes` are, at most 8 of them.
    fn number(self, bytes: &[u8]) -> Option<u64> {
        let join = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        (1..=8).contains(&bytes.len()).then(|| match self.little {
            true => bytes.iter().rev().fold(0, join),
            false => bytes.iter().fold(0, join),
        })
    }

    /// The offset or count that `bytes` begin with.
    fn offset(self, bytes: &[u8]) -> Option<u64> {
        self.number(bytes.get(..if self.big { 8 } else { 4 })?)
    }
}

/// Bytes of one value of a type (TIFF 6.0, section 2, and the types of BigTIFF). `None` for unknown types.
fn unit(kind: u16) -> Option<u64> {
    Some(match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 => 8,
        _ => return None,
    })
}
