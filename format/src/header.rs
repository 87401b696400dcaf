




/// The length of the header page, and where the images begin.
pub const PAGE: usize = 4096;
/// Images under one checksum.
pub const BLOCK_IMAGES: usize = 64;
/// The newest shard version that this build reads, and the one that it writes.
pub const VERSION: u32 = 1;
/// What every shard begins with: a byte that is not ASCII, `TRS`, then the line ends that a
/// text-mode transfer changes and the byte that stops `type` on DOS, as in PNG.
pub const MAGIC: [u8; 8] = *b"\x89TRS\r\n\x1a\n";
/// Sections begin at multiples of this, so that every column is aligned for any vector width.
pub(crate) const ALIGN: u64 = 64;
/// The `dtype` of `u8` pixels.
const DTYPE_U8: u32 = 0;
/// The largest side and channel count: keeps every product of sizes far from overflow.
const MAX_SIDE: u32 = 65_535;

/// The shape of one image, planar: `[channels, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "[u32; 3]", into = "[u32; 3]")]
pub struct Shape {
    /// Colour planes: 3, in the order red, green, blue.
    pub channels: u32,
    /// Rows of pixels.
    pub height: u32,
    /// Pixels in a row.
    pub width: u32,
}

impl Shape {
    /// RGB images of `side` x `side` pixels.
    #[must_use]
    pub const fn rgb(side: u32) -> Self {
        Self { channels: 3, height: side, width: side }
    }

    /// Bytes of one image.
    #[must_use]
    pub const fn image_len(self) -> usize {
        self.channels as usize * self.height as usize * self.width as usize
    }
}

impl From<[u32; 3]> for Shape {
    fn from([channels, height, width]: [u32; 3]) -> Self {
        Self { channels, height, width }
    }
}

impl From<Shape> for [u32; 3] {
    fn from(shape: Shape) -> Self {
        [shape.channels, shape.height, shape.width]
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}
