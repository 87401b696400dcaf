use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::names::is_junk;
use super::tree::{Folder, join};
use super::{Problem, Problems};

/// Deepest folder that is kept, in parts: each costs the memory of all that it lies in. Two more
/// than the layouts ask for at the deepest place that a tree may lie at.
const DEEPEST: usize = 24;

/// The names in an archive, as folders, and of each file an `E`: where its bytes lie.
#[derive(Debug)]
pub(super) struct Index<E> {
    root: String,
    /// All folders, by their path in the archive.
    folders: HashMap<String, Names>,
    entries: Vec<E>,
}

#[derive(Debug, Default)]
struct Names {
    folders: BTreeSet<String>,
    /// The number of each file's entry.
    files: BTreeMap<String, usize>,
}

impl<E> Index<E> {
    pub fn new() -> Self {
        Self {
            root: String::new(),
            folders: HashMap::from([(String::new(), Names::default())]),
            entries: Vec::new(),
        }
    }

    /// Files the entry called `name` under its folder, unless it is junk. A name that ends in a
    /// slash is a folder's own. One that leads outside, or is there already, is a problem.
    pub fn insert(&mut self, name: &str, entry: E, problems: &mut Problems<Problem>) {
        let path = name.strip_prefix("./").unwrap_or(name);
        let (mut folder, mut file) = path.rsplit_once('/').unwrap_or(("", path));
        let known = self.folders.contains_key(folder);
        let mut parts = folder.split('/');
        if path.starts_with('/')
            || (!known && parts.clone().any(|part| matches!(part, "" | "." | "..")))
            || matches!(file, "." | "..")
        {
            problems.push(Problem::EntryName {
                name: name.to_owned(),
            });
            return;
        }
        if !known {
            if parts.any(is_junk) {
                return;
            }
            // The folder at the limit stands for all below it, so that whoever walks down to it
            // can tell that there is more.
            if let Some((at, _)) = folder.match_indices('/').nth(DEEPEST - 1) {
                (folder, file) = (&folder[..at], "");
            }
            self.insert_folder(folder);
        }
        if file.is_empty() || is_junk(file) {
            return;
        }
        if let Some(names) = self.folders.get_mut(folder)
            && let before = names.files.insert(file.to_owned(), self.entries.len())
        {
            self.entries.push(entry);
            if before.is_some() {
                problems.push(Problem::RepeatedEntry {
                    name: name.to_owned(),
                });
            }
        }
    }

    /// Adds `folder` and those that it lies in.
    fn insert_folder(&mut self, folder: &str) {
        if self.folders.contains_key(folder) {
            return;
        }
        let (parent, name) = folder.rsplit_once('/').unwrap_or(("", folder));
        self.insert_folder(parent);
        if let Some(names) = self.folders.get_mut(parent) {
            names.folders.insert(name.to_owned());
        }
        self.folders.insert(folder.to_owned(), Names::default());
    }

    /// Makes `folder` the root.
    pub fn enter(&mut self, folder: &str) {
        self.root = join(&self.root, folder);
    }

    /// The path of `file` from the top of the archive.
    pub fn path(&self, file: &str) -> String {
        join(&self.root, file)
    }

    /// The names in `folder`, or none where there is no such folder.
    pub fn list(&self, folder: &str) -> Option<Folder> {
        let names = self.folders.get(&self.path(folder))?;
        Some(Folder {
            folders: names.folders.iter().cloned().collect(),
            files: names.files.keys().cloned().collect(),
        })
    }

    /// The number of `file`'s entry.
    pub fn find(&self, file: &str) -> Option<usize> {
        let path = self.path(file);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        self.folders.get(folder)?.files.get(name).copied()
    }

    /// What is known of the file whose entry has number `entry`.
    pub fn get(&self, entry: usize) -> Option<&E> {
        self.entries.get(entry)
    }
}
