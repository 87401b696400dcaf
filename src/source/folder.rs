//! A listed folder and the joining of paths: what every storage and layout shares. Paths are relative
//! to the root of a tree and separated by `/`; the root's own path is empty.

/// The sorted names in a folder, without the files that file managers leave behind.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub folders: Vec<String>,
    pub files: Vec<String>,
}

impl Folder {
    pub fn has_folder(&self, name: &str) -> bool {
        contains(&self.folders, name)
    }

    pub fn has_file(&self, name: &str) -> bool {
        contains(&self.files, name)
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
