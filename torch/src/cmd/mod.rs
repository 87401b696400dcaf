//! One file for each command: what was typed, and how its result is shown.

pub mod doctor;
pub mod eval;
pub mod train;

use std::path::Path;

use tinyres::load::{self, Dataset, Verify};
use tinyres_format::Split;

/// What the help of each command that maps shards says of them.
pub const MAPPED: &str = "\
The shards are mapped, not read: nobody may write to or truncate them meanwhile. `tinyres pack`
never does; copying another file over a shard in use would.";

/// Opens a split of a directory of shards.
#[expect(unsafe_code, reason = "the command's help states the rule of the map")]
pub fn open(dir: &Path, split: Split, verify: Verify) -> load::Result<Dataset> {
    // SAFETY: that nobody writes to or truncates the shards is the rule that `--help` gives whoever
    // calls the command; nothing in tinyres does.
    unsafe { Dataset::open(dir, split, verify) }
}
