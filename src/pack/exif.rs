//! The orientation in EXIF data, read as Pillow reads it: the first directory alone, entry by entry, whatever
//! is broken elsewhere.

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
    let Some(tiff) = Tiff::open(tiff) else {
        return Stated::Unreadable;
    };
    tiff.orientation().unwrap_or(Stated::Nothing)
}

pub(super) struct Tiff<'a> {
    bytes: &'a [u8],
    little: bool,
    /// Offset of the first directory, in bytes.
    directory: usize,
}

impl<'a> Tiff<'a> {
    /// Reads the header: byte order, number, place of the first directory. BigTIFF is not read in EXIF.
    pub fn open(bytes: &'a [u8]) -> Option<Self> {
        let little = match *bytes.get(..4)? {
            // The number in the other byte order is taken, too; and, by Pillow, BigTIFF's in this one.
            [b'M', b'M', 0, 0x2a | 0x2b] | [b'M', b'M', 0x2a, 0] => false,
            [b'I', b'I', 0x2a, 0] | [b'I', b'I', 0, 0x2a] => true,
            _ => return None,
        };
        let mut tiff = Self {
            bytes,
            little,
            directory: 0,
        };
        tiff.directory = tiff.long(4)? as usize;
        Some(tiff)
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The numbers of the first entry `tag` in the directory: bytes, shorts or longs.
    pub fn numbers(&self, tag: u16) -> Option<Vec<u32>> {
        let entries = self.short(self.directory)?;
        let places = (0..usize::from(entries)).map(|index| self.directory + 2 + 12 * index);
        let at = places.into_iter().find(|&at| self.short(at) == Some(tag))?;
        let (kind, count) = (self.short(at + 2)?, self.long(at + 4)? as usize);
        let len = unit(kind)?.checked_mul(count)?;
        let from = match len {
            ..=4 => at + 8,
            _ => self.long(at + 8)? as usize,
        };
        let value = self.bytes.get(from..)?.get(..len)?;
        match kind {
            1 | 7 => Some(value.iter().map(|&byte| byte.into()).collect()),
            3 => (value.chunks(2))
                .map(|short| Some(self.short_of(short)?.into()))
                .collect(),
            4 | 13 => value.chunks(4).map(|long| self.long_of(long)).collect(),
            _ => None,
        }
    }

    /// A sample of 16 bits in the byte order of the file.
    pub fn short_from(&self, bytes: [u8; 2]) -> u16 {
        match self.little {
            true => u16::from_le_bytes(bytes),
            false => u16::from_be_bytes(bytes),
        }
    }

    /// The bytes of a sample of 16 bits in the byte order of the file.
    pub fn short_to(&self, sample: u16) -> [u8; 2] {
        match self.little {
            true => sample.to_le_bytes(),
            false => sample.to_be_bytes(),
        }
    }

    /// `None` where the directory ends before an orientation.
    fn orientation(&self) -> Option<Stated> {
        let entries = self.short(self.directory)?;
        // Bytes of all values that do not fit into their entries. Pillow passes over a value that would
        // make them more than the data has.
        let mut outside = 0_u64;
        // The first entry of a tag that has a value counts.
        let mut seen = Vec::new();
        for index in 0..usize::from(entries) {
            let at = self.directory + 2 + 12 * index;
            let entry = self.bytes.get(at..at + 12)?;
            let (tag, kind, count) = (self.short(at)?, self.short(at + 2)?, self.long(at + 4)?);
            let Some(unit) = unit(kind).filter(|_| !seen.contains(&tag)) else {
                continue;
            };
            let len = u64::from(count) * unit as u64;
            let value = if len > 4 {
                outside += len;
                if outside > self.bytes.len() as u64 {
                    continue;
                }
                let from = self.long(at + 8)? as usize;
                // Pillow reads no further after a value that is cut short.
                self.bytes.get(from..)?.get(..usize::try_from(len).ok()?)?
            } else {
                &entry[8..8 + usize::try_from(len).ok()?]
            };
            if value.is_empty() {
                continue;
            }
            seen.push(tag);
            if tag == ORIENTATION {
                return Some(Stated::Value(self.first(kind, value).unwrap_or(0)));
            }
        }
        None
    }

    /// The first number in `value`, if it is one from 0 to 255. A text is no number, nor are bytes, which
    /// Pillow does not take for numbers.
    fn first(&self, kind: u16, value: &[u8]) -> Option<u8> {
        let whole = |number: i64| u8::try_from(number).ok();
        let float = |number: f64| (0..=8).find(|&whole| f64::from(whole) == number);
        let signed = |long: u32| i64::from(long.cast_signed());
        let part = |at: usize| self.long_of(value.get(at..at + 4)?);
        let ratio = |above: i64, below: i64| {
            (below != 0 && above % below == 0).then(|| whole(above / below))?
        };
        match kind {
            3 => whole(self.short_of(value)?.into()),
            4 | 13 => whole(part(0)?.into()),
            5 => ratio(part(0)?.into(), part(4)?.into()),
            6 => whole(value[0].cast_signed().into()),
            8 => whole(self.short_of(value)?.cast_signed().into()),
            9 => whole(signed(part(0)?)),
            10 => ratio(signed(part(0)?), signed(part(4)?)),
            11 => float(f32::from_bits(part(0)?).into()),
            12 | 16 => {
                let (high, low) = if self.little { (4, 0) } else { (0, 4) };
                let bits = u64::from(part(high)?) << 32 | u64::from(part(low)?);
                match kind {
                    12 => float(f64::from_bits(bits)),
                    _ => u8::try_from(bits).ok(),
                }
            }
            _ => None,
        }
    }

    fn short(&self, at: usize) -> Option<u16> {
        self.short_of(self.bytes.get(at..)?)
    }

    fn long(&self, at: usize) -> Option<u32> {
        self.long_of(self.bytes.get(at..)?)
    }

    fn short_of(&self, bytes: &[u8]) -> Option<u16> {
        Some(self.short_from(*bytes.first_chunk()?))
    }

    fn long_of(&self, bytes: &[u8]) -> Option<u32> {
        let bytes = *bytes.first_chunk()?;
        Some(match self.little {
            true => u32::from_le_bytes(bytes),
            false => u32::from_be_bytes(bytes),
        })
    }
}

/// Bytes of one value of a type (TIFF 6.0, section 2, and the types of BigTIFF). `None` for unknown types.
fn unit(kind: u16) -> Option<usize> {
    Some(match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 => 8,
        _ => return None,
    })
}
