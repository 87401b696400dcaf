//! One file for each command: what was typed, and how its result is shown.

pub mod cache;
pub mod compare;
pub mod completions;
pub mod expand;
pub mod inspect;
pub mod man;
pub mod pack;
pub mod program;
pub mod report;
pub mod runs;
pub mod sample;
pub mod unpack;
pub mod view;

/// Maps and opens the shard at `path`: where the commands of `tinyres` take the risk of a map.
fn map(
    path: &std::path::Path,
) -> tinyres_format::Result<tinyres_format::Shard<tinyres_format::Map>> {
    #[expect(unsafe_code, reason = "only the user can keep others off the file")]
    // SAFETY: the help of each command that comes here asks that nobody write to the shard
    // meanwhile, and tinyres itself renames finished files into place.
    unsafe {
        tinyres_format::map(path)
    }
}
