//! Recognition of a source: a file of many images, shards, or a tree of a known layout.

use std::path::Path;

use super::folder::{Folder, shown};
#[cfg(feature = "parquet")]
use super::parquet;
use super::passed_over::Tally;
use super::reader::TreeReader;
use super::storage::Storage;
use super::tree::Tree;
use super::{Contents, Error, Problems, ReadError, TreeProblem};
use super::{cifar, downsampled, ilsvrc, image_folder, npz, tiny_imagenet, webdataset};

/// Opens the source at `path` by its kind.
pub(super) fn open(
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<(Storage, Contents), Error> {
    #[cfg(feature = "parquet")]
    if let Some((parquet, listing)) = parquet::Parquet::open(path, problems)? {
        let contents = Contents::of_file(listing, "Parquet");
        return Ok((Storage::Parquet(parquet), contents));
    }
    let mut tree = match Tree::open(path, problems)? {
        Tree::Zip(zip) if npz::is_npz(&zip) => {
            let (raw, contents) = npz::open(zip, path, problems)?;
            return Ok((Storage::Raw(raw), contents));
        }
        tree => tree,
    };
    if webdataset::is_set(&tree)
        && let Tree::Tar(tar) = tree
    {
        let (shards, contents) = webdataset::open_tar(tar, path, problems)?;
        return Ok((Storage::Shards(shards), contents));
    }
    let batches =
        tree.find_roots(|_, folder| cifar::is_marked(folder) || downsampled::is_marked(folder));
    let is_downsampled = |root: &String| {
        let folder = tree.list(root).ok().flatten();
        folder.is_some_and(|folder| downsampled::is_marked(&folder))
    };
    if !batches.is_empty() && batches.iter().all(is_downsampled) {
        let (raw, contents) = downsampled::open(&tree, &batches, path, problems)?;
        return Ok((Storage::Raw(raw), contents));
    }
    if let [root] = batches.as_slice() {
        tree.enter(root);
        if let Some((raw, listing)) = cifar::open(&tree, path, problems)? {
            return Ok((Storage::Raw(raw), Contents::of_file(listing, "CIFAR")));
        }
    }
    if let Some((shards, contents)) = webdataset::open_folder(&tree, path, problems)? {
        return Ok((Storage::Shards(shards), contents));
    }
    let layout = enter(&mut tree, path);
    if refuse_unlisted(&tree, problems) {
        return Ok((Storage::Tree(tree), Contents::default()));
    }
    let mut reader = TreeReader {
        tree: &tree,
        problems,
        passed_over: Tally::default(),
        notes: Vec::new(),
    };
    let mut contents = match layout {
        Ok(TreeLayout::TinyImageNet) => tiny_imagenet::read(&mut reader),
        Ok(TreeLayout::Ilsvrc) => ilsvrc::read(&mut reader),
        Ok(TreeLayout::ClassFolders) => image_folder::read(&mut reader),
        // The tree may be missing only because the archive's names were refused.
        Err(Error::NotATree { .. }) if !reader.problems.is_empty() => Contents::default(),
        Err(error) => return Err(error),
    };
    contents.passed_over = reader.passed_over.finish();
    contents.notes = reader.notes;
    refuse_unlisted(&tree, problems);
    Ok((Storage::Tree(tree), contents))
}

/// True if the system failed to list a folder. That is then the only problem: others may follow from it.
fn refuse_unlisted(tree: &Tree, problems: &mut Problems<TreeProblem>) -> bool {
    let Some((folder, error)) = tree.failure() else {
        return false;
    };
    *problems = Problems::default();
    problems.push(TreeProblem::Unreadable {
        name: shown(folder),
        reason: ReadError::Io(error),
    });
    true
}

enum TreeLayout {
    Ilsvrc,
    TinyImageNet,
    ClassFolders,
}

/// Finds the data set in `tree`, which was opened from `path`, and makes its folder the root.
fn enter(tree: &mut Tree, path: &Path) -> Result<TreeLayout, Error> {
    let is_ilsvrc = |path: &str, folder: &Folder| ilsvrc::is_marked(tree, path, folder);
    let mut roots = tree.find_roots(|path, folder| {
        folder.has_file(tiny_imagenet::WNIDS) || is_ilsvrc(path, folder)
    });
    if roots.is_empty() {
        roots = tree.find_roots(|path, folder| image_folder::is_split(tree, path, folder));
    }
    if roots.is_empty() {
        roots = tree.find_roots(|path, folder| image_folder::is_bare(tree, path, folder));
    }
    let [root] = roots.as_slice() else {
        let path = path.to_owned();
        return Err(match roots.is_empty() {
            true => Error::NotATree {
                path,
                searched: tree.search_range(),
            },
            false => Error::SeveralTrees { path, roots },
        });
    };
    tree.enter(root);
    match tree.list("") {
        Ok(Some(root)) if ilsvrc::is_marked(tree, "", &root) => Ok(TreeLayout::Ilsvrc),
        Ok(Some(root)) if tiny_imagenet::is_marked(tree, &root) => Ok(TreeLayout::TinyImageNet),
        _ => Ok(TreeLayout::ClassFolders),
    }
}
