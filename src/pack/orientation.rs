//! Orientation of an image: turns stored pixels and boxes upright, as Pillow's `ImageOps.exif_transpose`
//! does. Finds it in EXIF data and in XMP; finding those in a file is the formats' work.

use super::exif::{self, Stated};

/// Transform from stored to upright pixels: first the two mirrors, then the transpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation {
    mirror_x: bool,
    mirror_y: bool,
    transpose: bool,
}

impl Orientation {
    pub const UPRIGHT: Self = Self {
        mirror_x: false,
        mirror_y: false,
        transpose: false,
    };

    /// The orientation that Pillow's `getexif` finds: in the EXIF data, or in XMP where that states none.
    /// Upright where Pillow cannot read the EXIF data.
    pub fn of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Self {
        Self::of_stated(exif.map_or(Stated::Nothing, exif::orientation), xmp)
    }

    /// The orientation of an image whose EXIF data states `stated`.
    pub fn of_stated(stated: Stated, xmp: Option<&[u8]>) -> Self {
        let value = match stated {
            Stated::Unreadable => 1,
            Stated::Value(value) => value,
            Stated::Nothing => xmp.and_then(of_xmp).unwrap_or(1),
        };
        Self::from_value(value)
    }

    /// The orientation of that number in the tables of EXIF; upright for any other number.
    fn from_value(value: u8) -> Self {
        let (mirror_x, mirror_y, transpose) = match value {
            2 => (true, false, false),
            3 => (true, true, false),
            4 => (false, true, false),
            5 => (false, false, true),
            6 => (false, true, true),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => (false, false, false),
        };
        Self {
            mirror_x,
            mirror_y,
            transpose,
        }
    }

    /// Width and height of the upright image whose stored size is `size`.
    pub fn size(self, [width, height]: [u32; 2]) -> [u32; 2] {
        if self.transpose {
            [height, width]
        } else {
            [width, height]
        }
    }

    /// The box, in inclusive pixels of a stored image of `size`, in pixels of the upright image.
    pub fn bbox(self, size: [u32; 2], [x0, y0, x1, y1]: [i32; 4]) -> [i32; 4] {
        // Never saturates: the box lies inside the image, and its sides are `i32`.
        let [width, height] = size.map(|length| i32::try_from(length).unwrap_or(i32::MAX));
        let mirror = |mirrored, length: i32, [first, last]: [i32; 2]| {
            if mirrored {
                [length - 1 - last, length - 1 - first]
            } else {
                [first, last]
            }
        };
        let [x0, x1] = mirror(self.mirror_x, width, [x0, x1]);
        let [y0, y1] = mirror(self.mirror_y, height, [y0, y1]);
        if self.transpose {
            [y0, x0, y1, x1]
        } else {
            [x0, y0, x1, y1]
        }
    }

    /// Writes the pixels of `stored`, `width` a row, to `upright`.
    pub fn turn(self, stored: &[[u8; 4]], width: usize, upright: &mut Vec<[u8; 4]>) {
        let height = stored.len() / width;
        let pixel = |x: usize, y: usize| {
            let x = if self.mirror_x { width - 1 - x } else { x };
            let y = if self.mirror_y { height - 1 - y } else { y };
            stored[y * width + x]
        };
        upright.clear();
        if self.transpose {
            upright.extend((0..width).flat_map(|x| (0..height).map(move |y| pixel(x, y))));
        } else {
            upright.extend((0..height).flat_map(|y| (0..width).map(move |x| pixel(x, y))));
        }
    }
}

/// The digit after the first `tiff:Orientation`, as an attribute or as an element.
fn of_xmp(xmp: &[u8]) -> Option<u8> {
    (0..xmp.len()).find_map(|at| {
        let rest = xmp[at..].strip_prefix(b"tiff:Orientation")?;
        let value = rest
            .strip_prefix(b"=\"")
            .or_else(|| rest.strip_prefix(b">"))?;
        let digit = *value.first()?;
        digit.is_ascii_digit().then(|| digit - b'0')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXIF data that holds only an orientation, in either byte order.
    fn exif(value: u16, big: bool) -> Vec<u8> {
        let short = |n: u16| {
            if big {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        let long = |n: u32| {
            if big {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        let order: &[u8] = if big { b"MM" } else { b"II" };
        let parts = [
            order,
            &short(42),
            &long(8),
            &short(1),
            &short(0x0112),
            &short(3),
            &long(1),
            &short(value),
            &[0; 2],
            &long(0),
        ];
        parts.concat()
    }

    /// The turned box holds the same pixels as before.
    #[test]
    fn boxes_turn_with_their_pixels() {
        let [width, height] = [7, 5];
        let [x0, y0, x1, y1] = [1, 0, 2, 3];
        let pixels: Vec<[u8; 4]> = (0..width * height)
            .map(|at| (at % width, at / width))
            .map(|(x, y)| [((x0..=x1).contains(&x) && (y0..=y1).contains(&y)).into(); 4])
            .collect();
        let mut seen = Vec::new();
        for value in 1..=8 {
            let orientation = Orientation::of(Some(&exif(value, value % 2 == 0)), None);
            assert!(!seen.contains(&orientation), "{value}");
            seen.push(orientation);
            let [w, h] = orientation.size([width, height]);
            assert_eq!([w, h] == [height, width], value >= 5);
            let mut upright = Vec::new();
            orientation.turn(&pixels, width as usize, &mut upright);
            let [x0, y0, x1, y1] = orientation
                .bbox([width, height], [x0, y0, x1, y1].map(u32::cast_signed))
                .map(|side| u32::try_from(side).unwrap());
            for (at, pixel) in (0..).zip(&upright) {
                let (x, y) = (at % w, at / w);
                let inside = (x0..=x1).contains(&x) && (y0..=y1).contains(&y);
                assert_eq!(pixel[0] == 1, inside, "orientation {value} at {x}, {y}");
            }
        }
    }

    #[test]
    fn invalid_orientation_is_upright() {
        for value in [0, 1, 9, u16::MAX] {
            assert_eq!(
                Orientation::of(Some(&exif(value, true)), None),
                Orientation::UPRIGHT
            );
        }
        let whole = exif(6, false);
        assert_ne!(Orientation::of(Some(&whole), None), Orientation::UPRIGHT);
        for length in 0..20 {
            assert_eq!(
                Orientation::of(Some(&whole[..length]), None),
                Orientation::UPRIGHT
            );
        }
    }

    /// `tools/witness/orientation_golden.py` wrote the blocks and what Pillow finds in them.
    #[test]
    fn orientations_are_those_that_pillow_found() {
        let golden = include_bytes!("../../tests/golden/orientations.bin");
        let mut records = Vec::new();
        let mut reader = flate2::read::ZlibDecoder::new(&golden[..]);
        std::io::Read::read_to_end(&mut reader, &mut records).unwrap();
        let mut rest = &records[..];
        let mut counts = [0; 9];
        while let Some((&[value, e0, e1, x0, x1], after)) = rest.split_first_chunk() {
            rest = after;
            let [exif, xmp] = [[e0, e1], [x0, x1]].map(|len| {
                let len = match u16::from_le_bytes(len) {
                    u16::MAX => return None,
                    len => usize::from(len),
                };
                let (block, after) = rest.split_at(len);
                rest = after;
                Some(block)
            });
            let expected = Orientation::from_value(value);
            assert_eq!(
                Orientation::of(exif, xmp),
                expected,
                "{value}: {exif:x?} {xmp:x?}"
            );
            counts[usize::from(value)] += 1;
        }
        assert_eq!(counts.iter().sum::<u32>(), 2500);
        assert!(counts[1..].iter().all(|&count| count > 50), "{counts:?}");
    }
}
