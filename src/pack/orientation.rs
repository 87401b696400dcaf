//! EXIF orientation: turns stored pixels and boxes upright, as Pillow's `ImageOps.exif_transpose` does.

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

    /// Orientation stated by the EXIF data `tiff`; upright if that cannot be read.
    pub fn of_exif(tiff: &[u8]) -> Self {
        let exif = exif::Reader::new().read_raw(tiff.to_vec()).ok();
        let value = exif.and_then(|exif| {
            let field = exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY)?;
            field.value.get_uint(0)
        });
        let (mirror_x, mirror_y, transpose) = match value {
            Some(2) => (true, false, false),
            Some(3) => (true, true, false),
            Some(4) => (false, true, false),
            Some(5) => (false, false, true),
            Some(6) => (false, true, true),
            Some(7) => (true, true, true),
            Some(8) => (true, false, true),
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
            let orientation = Orientation::of_exif(&exif(value, value % 2 == 0));
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
                Orientation::of_exif(&exif(value, true)),
                Orientation::UPRIGHT
            );
        }
        let whole = exif(6, false);
        assert_ne!(Orientation::of_exif(&whole), Orientation::UPRIGHT);
        for length in 0..20 {
            assert_eq!(Orientation::of_exif(&whole[..length]), Orientation::UPRIGHT);
        }
    }
}
