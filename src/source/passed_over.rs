//! Count of what a layout does not use, so that no file is lost without a word.

use std::collections::BTreeMap;

use serde::Serialize;

/// Files or folders of one kind that are not packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The kind: an extension such as `.gif`, or words such as `hidden` or `empty folder`.
    pub kind: String,
    /// The number of them.
    pub count: u64,
    /// The first of them that was found: its path in the tree.
    pub example: String,
}

/// Counts by kind while a tree is read.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<String, (u64, String)>);

impl Tally {
    pub fn add(&mut self, kind: &str, name: impl FnOnce() -> String) {
        match self.0.get_mut(kind) {
            Some((count, _)) => *count += 1,
            None => drop(self.0.insert(kind.to_owned(), (1, name()))),
        }
    }

    /// Adds what was counted elsewhere, after what is counted here.
    pub fn merge(&mut self, other: Self) {
        for (kind, (count, example)) in other.0 {
            self.0.entry(kind).or_insert((0, example)).0 += count;
        }
    }

    /// The counts, the largest first.
    pub fn finish(self) -> Vec<PassedOver> {
        let mut kinds: Vec<_> = (self.0.into_iter())
            .map(|(kind, (count, example))| PassedOver {
                kind,
                count,
                example,
            })
            .collect();
        kinds.sort_by_key(|it| std::cmp::Reverse(it.count));
        kinds
    }
}
