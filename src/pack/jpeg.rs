//! Header of a JPEG: its size, number of components and EXIF data. Decodes no pixel.

use turbojpeg::{Colorspace, Decompressor};

/// Facts that the header of a JPEG states.
pub(super) struct JpegHeader<'a> {
    /// Width and height in pixels, as stored.
    pub size: [u32; 2],
    /// 1 for grey, 3 for colour, 4 for CMYK.
    pub components: u8,
    /// TIFF structure of the first EXIF segment.
    pub exif: Option<&'a [u8]>,
}

impl<'a> JpegHeader<'a> {
    /// Reads the header of `jpeg`. Leaves unusual headers to `turbo`, which also reports what is
    /// wrong with a damaged one.
    pub fn read(turbo: &mut Decompressor, jpeg: &'a [u8]) -> turbojpeg::Result<Self> {
        let mut found = Self {
            size: [0; 2],
            components: 0,
            exif: None,
        };
        if found.scan(jpeg).is_none() {
            let header = turbo.read_header(jpeg)?;
            // A JPEG has 16 bits for each.
            found.size = [header.width, header.height]
                .map(|length| u32::try_from(length).unwrap_or(u32::MAX));
            found.components = match header.colorspace {
                Colorspace::Gray => 1,
                Colorspace::CMYK | Colorspace::YCCK => 4,
                _ => 3,
            };
        }
        Ok(found)
    }

    /// Finds the frame header (ITU-T T.81, B.2.2), skipping the segments that commonly precede it.
    /// The decoder would parse all of them, which takes 3% of the time of decoding.
    fn scan(&mut self, jpeg: &'a [u8]) -> Option<()> {
        let mut rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
        loop {
            let [0xff, marker, l0, l1, ..] = *rest else {
                return None;
            };
            let segment = rest.get(4..2 + usize::from(u16::from_be_bytes([l0, l1])))?;
            match (marker, segment) {
                // Frame headers. C4 and CC in this range are tables, C8 is reserved.
                (
                    0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf,
                    &[_, h0, h1, w0, w1, components @ (1 | 3 | 4), ..],
                ) => {
                    self.size =
                        [[w0, w1], [h0, h1]].map(|length| u16::from_be_bytes(length).into());
                    self.components = components;
                    return Some(());
                }
                (0xc4 | 0xdb | 0xdd | 0xe0..=0xef | 0xfe, _) => {
                    if marker == 0xe1 && self.exif.is_none() {
                        self.exif = segment.strip_prefix(b"Exif\0\0");
                    }
                    rest = &rest[4 + segment.len()..];
                }
                _ => return None,
            }
        }
    }
}
