//! The folders of an archive, built from the flat list of names in it. Knows nothing about zip or tar:
//! each file carries an entry of the type `E`, which says where its bytes are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::folder::{Folder, join};
use super::names::is_junk;
use super::{Problems, TreeProblem};

/// Maximum folder depth. Every folder stores its full path, so the depth bounds the memory. The
/// deepest valid layout needs two levels less.
const MAX_DEPTH: usize = 24;

/// The files of an archive by folder, with an entry of type `E` for each file.
#[derive(Debug)]
pub(super) struct Index<E> {
    root: String,
    /// All folders by their path in the archive.
    folders: HashMap<String, Names>,
    entries: Vec<E>,
}

#[derive(Debug, Default)]
struct Names {
    folders: BTreeSet<String>,
    hidden: BTreeSet<String>,
    /// The index of each file in `entries`.
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

    /// Adds the entry called `name` to its folder, unless the name is junk. A name that ends in a
    /// slash stands for the folder itself. A name that leads outside the archive, or that is already
    /// present, is a problem.
    pub fn insert(&mut self, name: &str, entry: E, problems: &mut Problems<TreeProblem>) {
        let path = name.strip_prefix("./").unwrap_or(name);
        let (mut folder, mut file) = path.rsplit_once('/').unwrap_or(("", path));
        let known = self.folders.contains_key(folder);
        let mut parts = folder.split('/');
        if path.starts_with('/')
            || (!known && parts.clone().any(|part| matches!(part, "" | "." | "..")))
            || matches!(file, "." | "..")
        {
            problems.push(TreeProblem::EntryName {
                name: name.to_owned(),
            });
            return;
        }
        if !known {
            // Hidden folders are listed by name, and nothing in them is.
            if let Some(junk) = parts.find(|part| is_junk(part)) {
                let at = junk.as_ptr().addr() - folder.as_ptr().addr();
                let parent = folder[..at].trim_end_matches('/');
                if parent.matches('/').count() < MAX_DEPTH {
                    self.insert_hidden(parent, junk);
                }
                return;
            }
            // A folder at the limit is kept without its content. A layout that descends so far
            // reports it as too deep.
            if let Some((at, _)) = folder.match_indices('/').nth(MAX_DEPTH - 1) {
                (folder, file) = (&folder[..at], "");
            }
            self.insert_folder(folder);
        }
        if file.is_empty() {
            return;
        }
        if is_junk(file) {
            return self.insert_hidden(folder, file);
        }
        if let Some(names) = self.folders.get_mut(folder)
            && let before = names.files.insert(file.to_owned(), self.entries.len())
        {
            self.entries.push(entry);
            if before.is_some() {
                problems.push(TreeProblem::RepeatedEntry {
                    name: name.to_owned(),
                });
            }
        }
    }

    fn insert_hidden(&mut self, folder: &str, name: &str) {
        self.insert_folder(folder);
        if let Some(names) = self.folders.get_mut(folder) {
            names.hidden.insert(name.to_owned());
        }
    }

    /// Adds `folder` and its parents.
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

    /// The names in `folder`, or `None` if there is no such folder.
    pub fn list(&self, folder: &str) -> Option<Folder> {
        let names = self.folders.get(&self.path(folder))?;
        Some(Folder {
            folders: names.folders.iter().cloned().collect(),
            files: names.files.keys().cloned().collect(),
            hidden: names.hidden.iter().cloned().collect(),
            ..Folder::default()
        })
    }

    /// The index of the entry of `file`, for [`get`](Self::get).
    pub fn find(&self, file: &str) -> Option<usize> {
        let path = self.path(file);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        self.folders.get(folder)?.files.get(name).copied()
    }

    /// The names of all files without their folders, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let folders = self.folders.values();
        folders.flat_map(|names| names.files.keys().map(String::as_str))
    }

    /// The path and the index of each file below the root, in no order.
    pub fn files(&self) -> impl Iterator<Item = (String, usize)> {
        let inside = |folder: &str| match folder.strip_prefix(self.root.as_str())? {
            "" => Some(String::new()),
            rest if self.root.is_empty() => Some(rest.to_owned()),
            rest => rest.strip_prefix('/').map(str::to_owned),
        };
        let folders = self.folders.iter();
        let folders = folders.filter_map(move |(folder, names)| Some((inside(folder)?, names)));
        folders.flat_map(|(folder, names)| {
            let files = names.files.iter();
            files.map(move |(name, &entry)| (join(&folder, name), entry))
        })
    }

    pub fn get(&self, index: usize) -> Option<&E> {
        self.entries.get(index)
    }
}
