/// A part of a shard, as errors and reports name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The header page.
    Header,
    /// One block of 16 images.
    Block(u64),
    /// All images.
    Images,
    /// The checksums of the blocks of images.
    BlockCrcs,
    /// A label for each image.
    Labels,
    /// A box for each image.
    Boxes,
    /// Where each image's name ends, and the next begins.
    NameOffsets,
    /// The images' names.
    Names,
    /// The JSON metadata.
    Metadata,
    /// All that comes after the images.
    Tail,
}

impl Part {
    /// The sections, in file order: all of the file but the header and the bytes between them.
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
