//! Limit on the size of an image, checked against its header before any memory is allocated.

use super::{ImageError, Resize};

/// Maximum number of pixels of an image, and of the intermediate image of a resize: 32 Mi, which
/// take 128 MiB of memory.
pub const MAX_PIXELS: u64 = 1 << 25;

/// Checks an image of `size`, width and height, against [`MAX_PIXELS`]: the image itself, and the
/// intermediate image of its resize, which is as wide as the result and as high as the image.
pub(super) fn check_size(size: [u32; 2], resize: Option<Resize>) -> Result<(), ImageError> {
    let [width, height] = size.map(u64::from);
    let side = resize.map_or(1, |resize| resize.side.get().into());
    if (width * height).max(side * width.max(height)) > MAX_PIXELS {
        return Err(ImageError::TooLarge { got: size });
    }
    Ok(())
}
