//! Names of the parts of a shard, for errors, reports and [`RawShard::part`](crate::RawShard::part).

/// A part of a shard, as errors and reports name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The header page, bytes 0 to 4095.
    Header,
    /// One block of 16 images, counted from 0; the last block may be shorter.
    Block(u64),
    /// All images.
    Images,
    /// The checksums of the blocks of images.
    BlockCrcs,
    /// A label for each image.
    Labels,
    /// A box for each image.
    Boxes,
    /// The offset at which each image's name begins in the names.
    NameOffsets,
    /// The images' names.
    Names,
    /// The JSON metadata.
    Metadata,
    /// Everything after the images.
    Tail,
}

impl Part {
    /// The sections, in file order. With the header and the zero bytes between sections they are the
    /// whole file.
    pub const SECTIONS: [Self; 7] = [
        Self::Images,
        Self::BlockCrcs,
        Self::Labels,
        Self::Boxes,
        Self::NameOffsets,
        Self::Names,
        Self::Metadata,
    ];
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Block(block) => return write!(f, "image block {block}"),
            Self::Header => "header",
            Self::Images => "images",
            Self::BlockCrcs => "block checksums",
            Self::Labels => "labels",
            Self::Boxes => "boxes",
            Self::NameOffsets => "name offsets",
            Self::Names => "names",
            Self::Metadata => "metadata",
            Self::Tail => "columns and metadata",
        };
        f.write_str(name)
    }
}
