//! The hook of maps: it is told of each map, and its guard ends before the map does.
//!
//! The hook serves the whole process, so this file holds a single test.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tinyres_format::{Map, MapGuard, set_map_hook};

#[derive(Debug, PartialEq)]
enum Event {
    Opened(Range<usize>, PathBuf),
    Closed(PathBuf),
}

static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());

struct Guard(PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        let closed = Event::Closed(self.0.clone());
        EVENTS.lock().unwrap().push(closed);
    }
}

fn record(range: Range<usize>, path: &Path) -> MapGuard {
    let opened = Event::Opened(range, path.to_owned());
    EVENTS.lock().unwrap().push(opened);
    Box::new(Guard(path.to_owned()))
}

#[expect(unsafe_code, reason = "a test's own files, which nobody else touches")]
fn map(path: &Path) -> Map {
    // SAFETY: the file lies in a fresh temporary directory, and nothing writes to it any more.
    unsafe { Map::open(path) }.unwrap()
}

#[test]
fn hook_is_told_of_every_map_and_of_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, [7; 5000]).unwrap();
    drop(map(&path));
    assert!(EVENTS.lock().unwrap().is_empty(), "no hook yet");

    assert!(set_map_hook(record));
    assert!(!set_map_hook(|_, _| unreachable!()), "the first one stays");
    let first = map(&path);
    let start = first.as_ptr().addr();
    assert_eq!(first[..], [7; 5000]);
    drop(first);
    let expected = [
        Event::Opened(start..start + 5000, path.clone()),
        Event::Closed(path),
    ];
    assert_eq!(EVENTS.lock().unwrap()[..], expected);
}
