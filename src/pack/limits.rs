//! Limits on the size of an image, checked against its header before any memory is allocated, and on the
//! pixels of large images that are in memory at one time.

use std::sync::{Condvar, Mutex, PoisonError};

use super::{ImageError, Resize};

/// Maximum number of pixels of an image, and of the intermediate image of a resize. Pillow refuses larger
/// ones, too: it is twice its `MAX_IMAGE_PIXELS`.
///
/// An image takes 4 bytes a pixel, 4 more if it is turned upright, and up to 8 more while it is decoded: coefficients of
/// a progressive JPEG, samples of a PNG, a TIFF in one strip. Large images that are decoded at one time have no more
/// pixels than this together, so they take at most 2.9 GB, on any number of threads.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Makes `memory` so many bytes, whatever they are. Of new memory, the system hands out what is written to alone: a
/// header that states more pixels than its file has costs next to nothing.
pub(super) fn set_len(memory: &mut Vec<u8>, len: usize) {
    match memory.capacity() < len {
        true => *memory = vec![0; len],
        false => memory.resize(len, 0),
    }
}

/// Images of at most this many pixels are decoded by every thread at its own pace: 4 Mi.
const SMALL: u64 = 1 << 22;

/// Checks that an image of `size`, width and height, has pixels and at most [`MAX_PIXELS`]: the image itself, and the
/// intermediate image of its resize, which is as wide as the result and as high as the image.
pub(super) fn check_size(size: [u32; 2], resize: Option<Resize>) -> Result<(), ImageError> {
    if size.contains(&0) {
        let [width, height] = size;
        let what = format!("an image of {width}x{height} pixels");
        return Err(ImageError::Undecodable(what));
    }
    if pixels(size) > MAX_PIXELS {
        return Err(ImageError::TooLarge { got: size });
    }
    if intermediate(size, resize) > MAX_PIXELS {
        let [width, height] = size;
        return Err(ImageError::TooLargeToResize {
            got: size,
            fits: MAX_PIXELS / u64::from(width.max(height)),
        });
    }
    Ok(())
}

fn pixels([width, height]: [u32; 2]) -> u64 {
    u64::from(width) * u64::from(height)
}

fn intermediate([width, height]: [u32; 2], resize: Option<Resize>) -> u64 {
    let side = resize.map_or(1, |resize| resize.side.get().into());
    side * u64::from(width.max(height))
}

/// Pixels of large images that the process is decoding.
static LARGE: Mutex<u64> = Mutex::new(0);
/// Signals that they have become fewer.
static FEWER: Condvar = Condvar::new();

/// Permission to decode an image, until it is dropped. All large images that are being decoded have at most
/// [`MAX_PIXELS`] together, however many threads there are.
pub(super) struct Permit(u64);

impl Permit {
    /// Waits until an image of `size` may be decoded and resized. Small ones need not wait.
    pub fn wait(size: [u32; 2], resize: Option<Resize>) -> Self {
        let wanted = pixels(size).max(intermediate(size, resize)).min(MAX_PIXELS);
        if wanted <= SMALL {
            return Self(0);
        }
        let held = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
        let room = |held: &mut u64| *held + wanted > MAX_PIXELS;
        let mut held = FEWER
            .wait_while(held, room)
            .unwrap_or_else(PoisonError::into_inner);
        *held += wanted;
        Self(wanted)
    }

    /// True for an image whose memory is to be given back.
    pub fn is_large(&self) -> bool {
        self.0 > 0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.0 > 0 {
            *LARGE.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
            FEWER.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn large_images_wait_for_each_other() {
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for side in [9000, 6000, 12_000, 100] {
                        let permit = Permit::wait([side, side], None);
                        assert_eq!(permit.is_large(), side > 100);
                        let held = now.fetch_add(permit.0, Ordering::SeqCst) + permit.0;
                        most.fetch_max(held, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(permit.0, Ordering::SeqCst);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((12_000 * 12_000..=MAX_PIXELS).contains(&most), "{most}");
    }
}
