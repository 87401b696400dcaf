//! The tinyres shard format.
mod error;
mod header;
mod le;
mod part;

pub use error::{Error, Result};
pub use header::{BLOCK_IMAGES, MAGIC, PAGE, Shape, VERSION};
pub use le::{Le32, Le64, LeI32, LeI64};
pub use part::Part;
