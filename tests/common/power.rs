//! Simulated loss of power: records the changes that a program makes to a directory, and rebuilds the states
//! that the directory may be in after a loss of power. The torch crate's tests use it, too.
//!
//! The model is weaker than any file system, as in ALICE (Pillai et al., OSDI 2014). A sync of a file forces its
//! bytes to the disk, a sync of a directory forces its entries, and nothing else is forced. What is not forced may
//! be lost or not, each by itself:
//!
//! - the entry of a name in a directory may be any that it had since the last sync of the directory;
//! - a rename sets the new name before the old one goes, so the file is never lost, but may have both names;
//! - the bytes of a file may be those of the last sync, or all later ones, or zeros in their place, or any of their
//!   pages, or those of the first writes.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;

use super::inject;
use tinyres_format::{Draws, Stream};

/// Bytes of a page, which a disk writes as a whole.
const PAGE: usize = 4096;
/// Most states that are tried for each moment of the loss if all are asked for.
const MOST: usize = 20_000;

/// A file or directory. Inode numbers are used again, nodes are not.
type Node = usize;
/// A directory and a name in it.
type Entry = (Node, String);

const ROOT: Node = 0;

enum Change {
    Entry(Entry, Option<Node>),
    Rename(Entry, Entry),
    Write(Node, usize, Vec<u8>),
    Truncate(Node, usize),
    Sync(Node),
    SyncAll,
}

/// A state of the directory after a loss of power: each path in it with the content of the file, or `None` for a
/// directory.
pub type State = BTreeMap<PathBuf, Option<Content>>;

/// The bytes of a file.
#[derive(Clone, Debug)]
pub struct Content {
    /// A hash of the bytes, by which they are compared.
    pub hash: u64,
    pub bytes: Rc<Vec<u8>>,
}

impl Content {
    fn new(bytes: Vec<u8>) -> Self {
        // Megabytes, for which std's hasher is slow in a debug build.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let halves = [first, second].map(|half| u64::from(crc32fast::hash(half)));
        Self {
            hash: (halves[0] << 32 | halves[1]).wrapping_add(bytes.len() as u64),
            bytes: Rc::new(bytes),
        }
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

/// The contents that a file may have, by the number of changes before it was forced, and of those after that.
type Known = HashMap<Node, (usize, usize, Vec<Content>)>;

/// Counts of what was tried.
#[derive(Debug, Default)]
pub struct Tried {
    /// Moments at which the power was lost: one after each change.
    pub moments: usize,
    /// The moments for which all states were tried.
    pub complete: usize,
    /// States, counted once each however many moments lead to them.
    pub states: usize,
}

/// The changes that a program made to a directory.
pub struct Trace {
    changes: Vec<Change>,
    /// What was there before, and is on the disk: the entries, and the content of each file. Files that the program
    /// made begin empty.
    entries: BTreeMap<Entry, Node>,
    files: BTreeMap<Node, Content>,
    /// Output of the program.
    pub output: Output,
}

impl Trace {
    /// Runs `command`, which changes the entry `name` of the directory `dir` and what is below it.
    pub fn record(command: &mut Command, dir: &Path, name: &str) -> Self {
        let (mut entries, mut files) = (BTreeMap::new(), BTreeMap::new());
        let mut nodes = HashMap::from([(fs::metadata(dir).unwrap().ino(), ROOT)]);
        let below = read(dir, name);
        for (path, content) in &below {
            let child = fs::metadata(dir.join(path)).unwrap().ino();
            let parent = fs::metadata(dir.join(path.parent().unwrap()))
                .unwrap()
                .ino();
            let next = nodes.len();
            let child = *nodes.entry(child).or_insert(next);
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            entries.insert((nodes[&parent], name), child);
            if let Some(content) = content {
                files.insert(child, content.clone());
            }
        }
        let log = tempfile::NamedTempFile::new().unwrap();
        command.env("INJECT_TRACE", log.path());
        let output = inject::run(command, dir, "").output;
        let mut trace = Self {
            changes: Vec::new(),
            entries,
            files,
            output,
        };
        trace.parse(&fs::read(log.path()).unwrap(), nodes);
        let newest = Moment::new(&trace, trace.changes.len(), &mut Known::new());
        let (replayed, there) = (
            newest.state(&vec![0; newest.options().len()]).0,
            read(dir, name),
        );
        let differ = |path: &&PathBuf| replayed.get(*path) != there.get(*path);
        let differing: BTreeSet<_> = there.keys().chain(replayed.keys()).filter(differ).collect();
        assert!(
            differing.is_empty(),
            "a change to {differing:?} was not recorded"
        );
        trace
    }

    fn parse(&mut self, mut log: &[u8], mut nodes: HashMap<u64, Node>) {
        let mut next = nodes.len();
        while let Some(end) = log.iter().position(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(&log[..end]).unwrap();
            log = &log[end + 1..];
            let fields: Vec<&str> = line.split('\t').collect();
            let number = |at: usize| fields[at].parse::<u64>().unwrap();
            let size = |at: usize| usize::try_from(number(at)).unwrap();
            let entry = |at: usize| (nodes[&number(at)], fields[at + 1].to_owned());
            let change = match fields[0] {
                kind @ ("create" | "mkdir") => {
                    let entry = entry(1);
                    nodes.insert(number(3), next);
                    if kind == "create" {
                        self.files.insert(next, Content::new(Vec::new()));
                    }
                    next += 1;
                    Change::Entry(entry, Some(next - 1))
                }
                "link" => Change::Entry(entry(1), Some(nodes[&number(3)])),
                "remove" => Change::Entry(entry(1), None),
                "rename" => Change::Rename(entry(1), entry(3)),
                "truncate" => Change::Truncate(nodes[&number(1)], size(2)),
                "write" => {
                    let (bytes, rest) = log.split_at(size(3));
                    log = rest;
                    Change::Write(nodes[&number(1)], size(2), bytes.to_vec())
                }
                "sync" => Change::Sync(nodes[&number(1)]),
                "syncfs" => Change::SyncAll,
                _ => panic!("{line}: no replay knows this"),
            };
            self.changes.push(change);
        }
    }

    /// Tries states after a loss of power, each once: for each moment the simplest ones and `random` others, or,
    /// if `TINYRES_POWER` is `all`, all of them, up to a limit.
    pub fn states(&self, random: u64, mut each: impl FnMut(&State)) -> Tried {
        let all = std::env::var("TINYRES_POWER").is_ok_and(|value| value == "all");
        let mut tried = Tried::default();
        let (mut seen, mut known) = (HashSet::new(), Known::new());
        for number in 0..=self.changes.len() {
            let moment = Moment::new(self, number, &mut known);
            tried.moments += 1;
            let options = moment.options();
            let product = options.iter().try_fold(1, |product: usize, (count, _)| {
                product
                    .checked_mul(*count)
                    .filter(|product| *product <= MOST)
            });
            let choices = match product {
                Some(_) if all => {
                    tried.complete += 1;
                    every(&options)
                }
                _ => {
                    let random = if all { MOST as u64 } else { random };
                    let mut choices = simplest(&options);
                    choices.extend((0..random).map(|round| drawn(&options, number as u64, round)));
                    choices
                }
            };
            for choice in choices {
                let (state, hash) = moment.state(&choice);
                if seen.insert(hash) {
                    tried.states += 1;
                    each(&state);
                }
            }
        }
        tried
    }
}

/// What may be on the disk once some changes were made. All that is open is a choice between options, of which
/// number 0 is the newest.
struct Moment {
    entries: Vec<EntryHistory>,
    /// For each rename its number, and the places in `entries` of the old and the new name.
    renames: Vec<(usize, usize, usize)>,
    files: Vec<(Node, Vec<Content>)>,
}

/// What an entry may be: all that it has been since it was forced to the disk, from the oldest on, with the number
/// of the change.
struct EntryHistory {
    entry: Entry,
    values: Vec<(usize, Option<Node>)>,
}

impl Moment {
    fn new(trace: &Trace, moment: usize, known: &mut Known) -> Self {
        let changes = &trace.changes[..moment];
        let value = |(entry, node): (&Entry, &Node)| (entry.clone(), vec![(0, Some(*node))]);
        let mut entries: BTreeMap<Entry, Vec<_>> = trace.entries.iter().map(value).collect();
        // For each file the number of changes before it was forced.
        let mut forced: HashMap<Node, usize> = HashMap::new();
        let mut renames = Vec::new();
        for (at, change) in changes.iter().enumerate() {
            let mut set = |entry: &Entry, node| {
                let values = entries.entry(entry.clone()).or_insert(vec![(0, None)]);
                let was = values.last().and_then(|(_, node)| *node);
                values.push((at + 1, node));
                was
            };
            match change {
                Change::Entry(entry, node) => drop(set(entry, *node)),
                Change::Rename(from, to) => {
                    let node = set(from, None);
                    set(to, node);
                    renames.push((at + 1, from, to));
                }
                Change::Sync(node) => {
                    forced.insert(*node, at);
                    let in_it = entries.iter_mut().filter(|((dir, _), _)| dir == node);
                    in_it.for_each(|(_, values)| drop(values.drain(..values.len() - 1)));
                }
                Change::SyncAll => {
                    forced.extend(trace.files.keys().map(|file| (*file, at)));
                    let all = entries.values_mut();
                    all.for_each(|values| drop(values.drain(..values.len() - 1)));
                }
                Change::Write(..) | Change::Truncate(..) => {}
            }
        }
        let place = |entry| entries.keys().position(|known| known == entry).unwrap();
        let renames = renames
            .into_iter()
            .map(|(at, from, to)| (at, place(from), place(to)));
        let renames = renames.collect();
        let files = trace.files.iter().map(|(file, before)| {
            let forced = forced.get(file).copied().unwrap_or_default();
            let (forced, pending) = changes.split_at(forced);
            let count = pending.iter().filter(|change| change.is_of(*file)).count();
            let contents = match known.get(file) {
                Some((at, pending, contents)) if (*at, *pending) == (forced.len(), count) => {
                    contents.clone()
                }
                _ => contents(*file, &before.bytes, forced, pending),
            };
            known.insert(*file, (forced.len(), count, contents.clone()));
            (*file, contents)
        });
        Self {
            renames,
            files: files.collect(),
            entries: (entries.into_iter())
                .map(|(entry, values)| EntryHistory { entry, values })
                .collect(),
        }
    }

    /// For each entry and then each file the number of options, and which of them is the oldest.
    fn options(&self) -> Vec<(usize, usize)> {
        let entries = self.entries.iter().map(|entry| entry.values.len());
        let entries = entries.map(|count| (count, count - 1));
        let files = self.files.iter().map(|(_, versions)| versions.len());
        entries
            .chain(files.map(|count| (count, 1.min(count - 1))))
            .collect()
    }

    /// The state of these choices, and a hash of it.
    fn state(&self, choice: &[usize]) -> (State, u64) {
        let (of_entries, of_files) = choice.split_at(self.entries.len());
        let values = self.entries.iter().map(|entry| entry.values.len());
        let mut chosen: Vec<usize> = values
            .zip(of_entries)
            .map(|(len, at)| len - 1 - at)
            .collect();
        let index = |entry: usize, number| {
            let mut values = self.entries[entry].values.iter();
            values.position(|(known, _)| *known == number)
        };
        // The old name of a file does not go before the file has the new one. To have one name, it may need to have
        // had another before.
        for _ in 0..self.renames.len() {
            for &(number, from, to) in &self.renames {
                // If the change is not among its values, the entry was forced since.
                let is_gone = index(from, number).is_none_or(|index| chosen[from] >= index);
                if let Some(index) = index(to, number)
                    && is_gone
                {
                    chosen[to] = chosen[to].max(index);
                }
            }
        }
        let mut tree: HashMap<Node, Vec<(&str, Node)>> = HashMap::new();
        for (
            EntryHistory {
                entry: (dir, name),
                values,
            },
            at,
        ) in self.entries.iter().zip(chosen)
        {
            if let Some(node) = values[at].1 {
                tree.entry(*dir).or_default().push((name, node));
            }
        }
        let contents = self.files.iter().zip(of_files);
        let contents: HashMap<Node, &Content> = contents
            .map(|((file, contents), at)| (*file, &contents[*at]))
            .collect();
        let (mut state, mut open) = (State::new(), vec![(PathBuf::new(), ROOT)]);
        let mut hashes = BTreeMap::new();
        while let Some((path, dir)) = open.pop() {
            for (name, node) in tree.get(&dir).into_iter().flatten() {
                let (path, content) = (path.join(name), contents.get(node).copied());
                if content.is_none() {
                    open.push((path.clone(), *node));
                }
                hashes.insert(path.clone(), content.map(|content| content.hash));
                state.insert(path, content.cloned());
            }
        }
        let mut hasher = DefaultHasher::new();
        hashes.hash(&mut hasher);
        (state, hasher.finish())
    }
}

/// The contents that `file` may have after changes that are forced to the disk and others that are pending: the
/// newest one first, then the oldest.
fn contents(file: Node, before: &[u8], forced: &[Change], pending: &[Change]) -> Vec<Content> {
    let all = |_: usize| true;
    let after = |before: &[u8], changes: &[&Change], kept: &dyn Fn(usize) -> bool| {
        let mut bytes = before.to_vec();
        changes
            .iter()
            .for_each(|change| change.apply(&mut bytes, kept));
        bytes
    };
    let is_of = |change: &&Change| change.is_of(file);
    let forced: Vec<&Change> = forced.iter().filter(is_of).collect();
    let pending: Vec<&Change> = pending.iter().filter(is_of).collect();
    let oldest = after(before, &forced, &all);
    let mut contents = vec![after(&oldest, &pending, &all)];
    if !pending.is_empty() {
        contents.push(after(&oldest, &pending, &|_| false));
        contents.push(after(&oldest, &pending, &|page| page % 2 == 0));
        contents.push(after(&oldest, &pending, &|page| page % 2 == 1));
        contents.push(after(&oldest, &pending[..pending.len() / 2], &all));
        contents.insert(1, oldest);
    }
    contents.into_iter().map(Content::new).collect()
}

impl Change {
    /// True if it changes the bytes of `file`.
    fn is_of(&self, file: Node) -> bool {
        match self {
            Self::Write(node, ..) | Self::Truncate(node, _) => *node == file,
            _ => false,
        }
    }

    /// Makes a change of bytes, of those pages that `kept` says.
    fn apply(&self, bytes: &mut Vec<u8>, kept: &dyn Fn(usize) -> bool) {
        match self {
            Self::Write(_, offset, written) => {
                let end = offset + written.len();
                set_len(bytes, bytes.len().max(end));
                let mut at = *offset;
                while at < end {
                    let next = end.min((at / PAGE + 1) * PAGE);
                    if kept(at / PAGE) {
                        bytes[at..next].copy_from_slice(&written[at - offset..next - offset]);
                    }
                    at = next;
                }
            }
            Self::Truncate(_, len) => set_len(bytes, *len),
            _ => {}
        }
    }
}

/// Cuts `bytes`, or fills them up with zeros. `Vec::resize` is slow in a debug build.
fn set_len(bytes: &mut Vec<u8>, len: usize) {
    match len.checked_sub(bytes.len()) {
        Some(more) => bytes.extend_from_slice(&vec![0; more]),
        None => bytes.truncate(len),
    }
}

/// All newest, all oldest, and each choice by itself different from either.
fn simplest(options: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let newest = vec![0; options.len()];
    let oldest: Vec<usize> = options.iter().map(|(_, oldest)| *oldest).collect();
    let mut choices = vec![newest.clone(), oldest.clone()];
    for (at, (count, _)) in options
        .iter()
        .enumerate()
        .filter(|(_, (count, _))| *count > 1)
    {
        for option in 0..*count {
            for base in [&newest, &oldest] {
                let mut choice = base.clone();
                choice[at] = option;
                choices.push(choice);
            }
        }
    }
    choices
}

fn every(options: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut choices = vec![Vec::new()];
    for (count, _) in options {
        let longer =
            |choice: Vec<usize>| (0..*count).map(move |option| [&choice[..], &[option]].concat());
        choices = choices.into_iter().flat_map(longer).collect();
    }
    choices
}

fn drawn(options: &[(usize, usize)], moment: u64, round: u64) -> Vec<usize> {
    let draws = Draws::new(moment, Stream::Sample, 0).of(round);
    let one = |(at, (count, _)): (u64, &(usize, usize))| {
        usize::try_from(draws.below(at, *count as u64)).unwrap()
    };
    (0..).zip(options).map(one).collect()
}

/// Reads the entry `name` of `dir` and all below it, directories before what is in them.
pub fn read(dir: &Path, name: &str) -> State {
    let (mut state, mut open) = (State::new(), vec![PathBuf::from(name)]);
    while let Some(path) = open.pop() {
        let there = dir.join(&path);
        let Ok(metadata) = fs::symlink_metadata(&there) else {
            continue;
        };
        if metadata.is_dir() {
            let entries = fs::read_dir(&there).unwrap();
            open.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
            state.insert(path, None);
        } else {
            state.insert(path, Some(Content::new(fs::read(&there).unwrap())));
        }
    }
    state
}

/// Makes the entry `name` of `dir` what it is in `state`.
pub fn write(state: &State, dir: &Path, name: &str) {
    if dir.join(name).exists() {
        fs::remove_dir_all(dir.join(name)).unwrap();
    }
    for (path, content) in state {
        match content {
            None => fs::create_dir(dir.join(path)).unwrap(),
            Some(content) => fs::write(dir.join(path), &*content.bytes).unwrap(),
        }
    }
}
