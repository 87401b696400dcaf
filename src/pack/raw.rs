//! Raw pixels of a source: copied to the planes of a shard, or to RGBX where they must be resized.

use super::ImageError;
use crate::source::{Order, RawImage};

/// Checks that `image` has as many values as its size needs.
pub(super) fn checked(image: RawImage<'_>) -> Result<RawImage<'_>, ImageError> {
    let (got, [width, height]) = (image.values.len(), image.size.map(u64::from));
    let expected = width * height * image.order.channels() as u64;
    match got as u64 == expected {
        true => Ok(image),
        false => Err(ImageError::Undecodable(format!(
            "{got} values of raw pixels, expected {expected}"
        ))),
    }
}

/// Writes the pixels of `image` to `out`, `u8 [3, height, width]` of its size.
pub(super) fn planes(image: &RawImage<'_>, out: &mut [u8]) {
    match image.order {
        Order::Planar => out.copy_from_slice(image.values),
        Order::Grey => {
            for plane in out.chunks_exact_mut(image.values.len()) {
                plane.copy_from_slice(image.values);
            }
        }
        Order::Interleaved => {
            let (pixels, _) = image.values.as_chunks::<3>();
            let (red, rest) = out.split_at_mut(pixels.len());
            let (green, blue) = rest.split_at_mut(pixels.len());
            for (((pixel, red), green), blue) in pixels.iter().zip(red).zip(green).zip(blue) {
                [*red, *green, *blue] = *pixel;
            }
        }
    }
}

/// Writes the pixels of `image` to `rgbx`, four bytes each, of which the last has no meaning.
pub(super) fn rgbx(image: &RawImage<'_>, rgbx: &mut Vec<u8>) {
    let values = image.values;
    rgbx.clear();
    match image.order {
        Order::Grey => rgbx.extend(values.iter().flat_map(|&grey| [grey, grey, grey, 0])),
        Order::Interleaved => {
            let (pixels, _) = values.as_chunks::<3>();
            rgbx.extend(
                pixels
                    .iter()
                    .flat_map(|&[red, green, blue]| [red, green, blue, 0]),
            );
        }
        Order::Planar => {
            let (red, rest) = values.split_at(values.len() / 3);
            let (green, blue) = rest.split_at(red.len());
            let pixels = red.iter().zip(green).zip(blue);
            rgbx.extend(pixels.flat_map(|((&red, &green), &blue)| [red, green, blue, 0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_values_are_an_error() {
        let image = RawImage {
            size: [2, 1],
            order: Order::Planar,
            values: b"abcde",
        };
        let error = checked(image).unwrap_err().to_string();
        assert_eq!(error, "undecodable: 5 values of raw pixels, expected 6");
    }

    #[test]
    fn pixels_of_every_order_become_the_same_planes_and_quads() {
        for (order, values, expected) in [
            (Order::Planar, &b"adbecf"[..], b"adbecf"),
            (Order::Interleaved, b"abcdef", b"adbecf"),
            (Order::Grey, b"ad", b"adadad"),
        ] {
            let image = RawImage {
                size: [2, 1],
                order,
                values,
            };
            let (mut out, mut quads) = ([0; 6], vec![9; 3]);
            planes(&image, &mut out);
            assert_eq!(&out, expected, "{order:?}");
            rgbx(&image, &mut quads);
            let [a, b, c, d, e, f] = *expected;
            assert_eq!(quads, [a, c, e, 0, b, d, f, 0], "{order:?}");
        }
    }
}
