//! Images of every format: the decoder takes any bytes.

use std::num::NonZeroU32;

use tinyres::pack::{Decoder, Resize};
use tinyres::source::Image;
use tinyres_format::Shape;

/// Decodes any bytes as an image, and resizes it. True if there was one.
pub fn pictures(data: &[u8]) -> bool {
    let side = NonZeroU32::new(8).expect("8 is not 0");
    let mut decoder = Decoder::new(Some(Resize { side, squash: true }));
    let shape = Shape::rgb(side.get());
    let mut pixels = vec![0; shape.image_len()];
    let image = Image::Encoded(data);
    decoder.decode(image, None, shape, &mut pixels).is_ok()
}
