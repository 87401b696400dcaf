//! An image as a source hands it out: an encoded file, or pixels that were never encoded.

/// An image in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image<'a> {
    /// A file of an image format, which its first bytes tell.
    Encoded(&'a [u8]),
    /// Pixels as an array holds them.
    Raw(RawImage<'a>),
}

/// Pixels as an array holds them, one byte for each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawImage<'a> {
    /// Width and height in pixels.
    pub size: [u32; 2],
    /// Meaning of the values, and how they lie.
    pub order: Order,
    /// The values: `width * height` times the number of channels.
    pub values: &'a [u8],
}

/// Channels of raw pixels, and how they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[height, width]`: a grey level for each pixel.
    Grey,
    /// `[height, width, 3]`: red, green and blue of a pixel next to each other.
    Interleaved,
    /// `[3, height, width]`: red of all pixels, then green, then blue, as shards have it.
    Planar,
}

impl Order {
    /// Values of one pixel.
    #[must_use]
    pub fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Interleaved | Self::Planar => 3,
        }
    }
}
