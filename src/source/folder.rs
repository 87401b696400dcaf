//! A listed folder and the joining of paths: what every storage and layout shares. Paths are relative
//! to the root of a tree and separated by `/`; the root's own path is empty.

/// The sorted names in a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    pub folders: Vec<String>,
    pub files: Vec<String>,
    /// Names that no layout uses: those that begin with a dot, and what file managers leave behind.
    pub hidden: Vec<String>,
    /// Symbolic links in a directory that lead nowhere.
    pub dead_links: Vec<String>,
    /// Names in a directory that are neither a file nor a folder: pipes, sockets, devices.
    pub special: Vec<String>,
}

impl Folder {
    pub fn has_folder(&self, name: &str) -> bool {
        contains(&self.folders, name)
    }

    pub fn has_file(&self, name: &str) -> bool {
        contains(&self.files, name)
    }

    /// True if there is nothing in it, hidden names aside.
    pub fn is_empty(&self) -> bool {
        let names = [&self.folders, &self.files, &self.dead_links, &self.special];
        names.iter().all(|names| names.is_empty())
    }

    /// Sorts all names, as [`has_folder`](Self::has_folder) and [`has_file`](Self::has_file) need them.
    pub fn sort(&mut self) {
        for names in [
            &mut self.folders,
            &mut self.files,
            &mut self.hidden,
            &mut self.dead_links,
            &mut self.special,
        ] {
            names.sort_unstable();
        }
    }
}

fn contains(sorted: &[String], name: &str) -> bool {
    sorted
        .binary_search_by(|known| known.as_str().cmp(name))
        .is_ok()
}

/// The path of `name` in `folder`.
pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() || name.is_empty() {
        format!("{folder}{name}")
    } else {
        format!("{folder}/{name}")
    }
}

/// The path of a folder as messages show it: with a slash at its end, and `./` for the root.
pub(super) fn shown(folder: &str) -> String {
    match folder {
        "" => "./".to_owned(),
        folder => format!("{folder}/"),
    }
}
