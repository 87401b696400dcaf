#![doc = include_str!("../SPEC.md")]

mod draws;
mod error;
mod header;
mod le;
mod manifest;
mod map;
mod metadata;
mod part;
pub mod publish;
mod shard;
pub mod transport;
mod writer;

pub use draws::{Draws, Stream};
pub use error::{Error, Result};
pub use header::{BLOCK_IMAGES, MAGIC, PAGE, Shape, VERSION};
pub use le::{Le32, Le64, LeI32, LeI64};
pub use manifest::{Form, MANIFEST, Manifest, ShardEntry, SplitEntry, shards_in};
pub use map::{Map, report_faults};
pub use metadata::{Class, Digest, Metadata, Refused, Split};
pub use part::Part;
pub use shard::{Sections, Shard, map, map_sections};
pub use transport::ZstdShard;
pub use writer::{Columns, Published, Run, Sealed, Writer};
