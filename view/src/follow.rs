//! The lines of a file that grows, such as the figures of a run: those that are whole, and again from the start when the
//! file becomes shorter, as a run does that resumes at a checkpoint. Asks for the file's length now and then, which also
//! works on network file systems.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde::Serialize;

/// Bytes that are read at once at most.
const MOST: u64 = 8 << 20;

/// Reads a file that grows.
pub struct Follower {
    path: PathBuf,
    /// The file that was read last.
    inode: u64,
    /// Bytes of whole lines that were read.
    read: u64,
    started: bool,
}

/// What is new in a file.
#[derive(Debug, PartialEq, Serialize)]
pub struct News {
    /// True if the lines are the first ones: those that were given before no longer hold.
    pub reset: bool,
    /// New whole lines, without line ends.
    pub lines: Vec<String>,
    /// Why the file cannot be read, if it cannot.
    pub error: Option<String>,
}

impl Follower {
    /// Begins at the start of the file at `path`, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            inode: 0,
            read: 0,
            started: false,
        }
    }

    /// What is new since the last call, or `None` if nothing is. The first call always has news.
    pub fn poll(&mut self) -> Option<News> {
        let first = !std::mem::replace(&mut self.started, true);
        match self.try_poll() {
            Ok(Some(news)) => Some(news),
            Ok(None) => first.then_some(News {
                reset: true,
                lines: Vec::new(),
                error: None,
            }),
            Err(error) => {
                let reset = self.read > 0;
                (self.read, self.inode) = (0, 0);
                let is_new = error.kind() == ErrorKind::NotFound && !reset;
                (first || reset).then(|| News {
                    reset: true,
                    lines: Vec::new(),
                    error: (!is_new).then(|| format!("{}: {error}", self.path.display())),
                })
            }
        }
    }

    fn try_poll(&mut self) -> std::io::Result<Option<News>> {
        let mut file = File::open(&self.path)?;
        let about = file.metadata()?;
        let reset = about.ino() != self.inode || about.len() < self.read;
        if reset {
            (self.inode, self.read) = (about.ino(), 0);
        }
        if about.len() == self.read && !reset {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n');
        let whole = whole.map_or(0, |end| end + 1);
        bytes.truncate(whole);
        self.read += whole as u64;
        if whole == 0 && !reset {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&bytes);
        Ok(Some(News {
            reset,
            lines: text.lines().map(str::to_owned).collect(),
            error: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn lines(news: Option<News>) -> Option<(bool, String)> {
        news.map(|news| (news.reset, news.lines.join(",")))
    }

    #[test]
    fn a_follower_gives_whole_lines_once_and_starts_again_after_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut follower = Follower::new(path.clone());
        assert_eq!(lines(follower.poll()), Some((true, String::new())));
        assert_eq!(follower.poll(), None);
        fs::write(&path, "1\n2\n{\"ha").unwrap();
        assert_eq!(lines(follower.poll()), Some((true, "1,2".into())));
        assert_eq!(follower.poll(), None);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"lf\"}\n").unwrap();
        assert_eq!(lines(follower.poll()), Some((false, "{\"half\"}".into())));
        // A resumed run cuts what came after its checkpoint.
        file.set_len(4).unwrap();
        assert_eq!(lines(follower.poll()), Some((true, "1,2".into())));
        fs::remove_file(&path).unwrap();
        let news = follower.poll().unwrap();
        assert!(news.reset && news.error.unwrap().contains("metrics.jsonl"));
        assert_eq!(follower.poll(), None);
        fs::write(&path, "3\n").unwrap();
        assert_eq!(lines(follower.poll()), Some((true, "3".into())));
    }
}
